//! Answers that wait for the disk.

use alloc::{rc::Rc, vec::Vec};

use crate::{
    disk::{DiskFailed, Outcome, Request},
    kv::Ticket,
    log::CheckReport,
    receipt::Receipt,
    reply::{Content, Reply, Status},
    service::State,
    store::{Charge, StoreError, Upload, Value},
};

/// An answer that may not be given yet.
pub struct Pending(What);

enum What {
    /// This one, when that is durable.
    Settled(Reply, Ticket),
    /// What is read.
    Read(Receipt<Outcome>, Charge),
    /// That it is written, and durable.
    Written {
        receipts: Vec<Receipt<Outcome>>,
        /// For the buffer, which the disk has.
        _charge: Charge,
    },
    /// What the check says.
    Checked(Receipt<CheckReport>),
}

impl Pending {
    /// `reply`, when what comes with the ticket is durable.
    pub fn settled(reply: Reply, ticket: Ticket) -> Self {
        Self(What::Settled(reply, ticket))
    }

    /// What the raw area has there.
    ///
    /// # Errors
    /// The status to answer with, when it is not there or there is no memory for it.
    pub fn read(state: &mut State, offset: u64, bytes: u64) -> Result<Self, Status> {
        let at = place(state, offset, bytes)?;
        let charge = state.kv.store().charge(bytes as usize).map_err(refusal)?;
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(bytes as usize)
            .map_err(|_| Status::InsufficientStorage)?;
        buffer.resize(bytes as usize, 0);
        let disk = state.disk.as_mut().ok_or(Status::NotFound)?;
        let receipt = disk.submit(Request::read(at, buffer));
        Ok(Self(What::Read(receipt, charge)))
    }

    /// The raw area is given what was uploaded, which is made durable.
    ///
    /// # Errors
    /// As for [`Pending::read`].
    pub fn write(state: &mut State, offset: u64, upload: Upload) -> Result<Self, Status> {
        let at = place(state, offset, upload.bytes() as u64)?;
        let (bytes, charge) = upload.into_parts();
        let disk = state.disk.as_mut().ok_or(Status::NotFound)?;
        let receipts = [Request::write(at, bytes), Request::flush()]
            .into_iter()
            .map(|request| disk.submit(request));
        Ok(Self(What::Written {
            receipts: receipts.collect(),
            _charge: charge,
        }))
    }

    /// What the store's check says; `None` while another is under way.
    pub fn check(state: &mut State) -> Option<Self> {
        Some(Self(What::Checked(state.kv.begin_check()?)))
    }

    /// The answer, or itself if it must still wait.
    pub fn poll(mut self, state: &State) -> Result<Reply, Self> {
        let failed = || Ok(Reply::status(Status::InternalServerError));
        match self.0 {
            What::Settled(reply, ticket) => match state.kv.settled(ticket) {
                None => Err(Self(What::Settled(reply, ticket))),
                Some(Ok(())) => Ok(reply),
                Some(Err(DiskFailed)) => failed(),
            },
            What::Read(receipt, charge) => match receipt.take() {
                None => Err(Self(What::Read(receipt, charge))),
                Some(Ok(bytes)) => {
                    let value = Rc::new(Value::new(bytes, charge));
                    Ok(Reply::content(Content::Value(value)))
                }
                Some(Err(DiskFailed)) => failed(),
            },
            What::Written {
                ref mut receipts, ..
            } => {
                while let Some(receipt) = receipts.last() {
                    // The flush, which is last, is done when the write is.
                    match receipt.take() {
                        None => return Err(self),
                        Some(Ok(_)) => receipts.pop(),
                        Some(Err(DiskFailed)) => return failed(),
                    };
                }
                Ok(Reply::status(Status::NoContent))
            }
            What::Checked(receipt) => match receipt.take() {
                None => Err(Self(What::Checked(receipt))),
                Some(Ok(keys)) => Ok(Reply::text(format_args!("ok {keys} keys\n"))),
                Some(Err(reason)) => Ok(Reply {
                    status: Status::InternalServerError,
                    ..Reply::text(format_args!("{reason}\n"))
                }),
            },
        }
    }
}

/// Where on the disk that part of the raw area is.
fn place(state: &State, offset: u64, bytes: u64) -> Result<u64, Status> {
    let area = state.area().ok_or(Status::NotFound)?;
    let fits = bytes > 0
        && offset
            .checked_add(bytes)
            .is_some_and(|end| end <= area.raw_bytes);
    if fits {
        Ok(area.raw_offset + offset)
    } else {
        Err(Status::BadRequest)
    }
}

/// The status that says so.
pub fn refusal(error: StoreError) -> Status {
    match error {
        StoreError::TooLarge => Status::ContentTooLarge,
        StoreError::Full => Status::InsufficientStorage,
    }
}
