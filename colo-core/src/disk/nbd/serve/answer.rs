use super::buffer::Buffer;
use crate::disk::nbd::reply::Reply;
use crate::disk::nbd::request::{Command, Request};
use crate::disk::nbd::{Export, Session};
use crate::disk::{Backend, DiskError};

/// Does what one client asks for.
pub(super) struct Desk<'a> {
    pub(super) export: &'a Export,
    pub(super) session: Session,
    pub(super) disk: &'a dyn Backend,
}

impl Desk<'_> {
    /// Does it, and puts the reply behind what is in `output`.
    pub(super) fn answer(&self, request: &Request, payload: &[u8], output: &mut Buffer) {
        let begin = output.len();
        if let Err(error) = self.done(request, payload, output) {
            output.truncate(begin);
            let is_structured_read = self.session.is_structured && request.command == Command::Read;
            output.append(&Reply::error(request.cookie, error, is_structured_read));
        }
    }

    fn done(&self, request: &Request, payload: &[u8], output: &mut Buffer) -> Result<(), DiskError> {
        request.check(self.export, &self.session)?;
        let Request { cookie, offset, length, .. } = *request;
        match request.command {
            Command::Read => {
                let head = Reply::data_head(cookie, offset, length, self.session.is_structured);
                // From the disk to where it is sent from.
                output.align(head.len(), length as usize);
                output.append(&head);
                return self.disk.read(offset, output.grow(length as usize));
            }
            Command::BlockStatus => {
                let mut parts = self.disk.allocation(offset, length)?;
                if request.wants_one_extent() {
                    parts.truncate(1);
                }
                output.append(&Reply::block_status(cookie, &parts));
                return Ok(());
            }
            Command::Write => self.disk.write(offset, payload)?,
            Command::Trim => self.disk.trim(offset, length.into())?,
            Command::WriteZeroes => self.disk.write_zeroes(offset, length.into(), request.may_unmap())?,
            Command::Flush => self.disk.flush()?,
            Command::Cache => {}
            Command::Disconnect | Command::Unknown(_) => return Err(DiskError::Invalid),
        }
        if request.is_durable() {
            // All of the disk, though only this is asked for: `sync_file_range` would write this part out, but neither what the file
            // system must know to find it again, nor the drive's own cache.
            self.disk.flush()?;
        }
        output.append(&Reply::done(cookie));
        Ok(())
    }
}
