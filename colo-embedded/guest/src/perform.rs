//! What requests without a body do.

use crate::{
    http::Method,
    pending::Pending,
    reply::{BYTES_LIMIT, Content, Reply, Route, Status},
    service::State,
    store::VALUE_LIMIT,
};

/// What a machine with a disk can do beyond the others.
const ABOUT_DISK: &str = "DELETE /kv/KEY   removes a value\n\
    GET  /kv-check   reads the store's log from the disk, and compares it with memory\n\
                          GET  /disk/size  bytes of the disk's other half\n\
                          GET  /disk/read/OFFSET/N  N bytes of it\n\
                          PUT  /disk/write/OFFSET   writes there\n";

/// What comes of a request.
pub enum Performed {
    /// This answer.
    Now(Reply),
    /// This one, when the disk has come so far.
    Later(Pending),
}

/// Does what a request without a body asks; `None` if that must wait.
pub fn perform(
    method: Method,
    route: &Route<'_>,
    state: &mut State,
    clock: fn() -> u64,
) -> Option<Performed> {
    let read = |result: Result<Pending, Status>| match result {
        Ok(pending) => Performed::Later(pending),
        Err(status) => Performed::Now(Reply::status(status)),
    };
    Some(Performed::Now(match *route {
        Route::About => about(state, clock()),
        Route::Key(key) => return Some(Performed::Later(perform_key(method, key, state))),
        Route::Bytes(length) => Reply::content(Content::Pattern(length)),
        Route::Time => Reply::text(format_args!("{}\n", clock())),
        Route::Dirty(pages) => match state.arena.dirty(pages) {
            Ok(()) => Reply::text(format_args!("{pages}\n")),
            Err(_) => Reply {
                status: Status::BadRequest,
                ..Reply::text(format_args!("There are {} pages.\n", state.arena.pages()))
            },
        },
        Route::Sum => Reply::text(format_args!("{:016x}\n", state.sum())),
        Route::Check => return Pending::check(state).map(Performed::Later),
        Route::DiskSize => {
            let raw_bytes = state.area().map_or(0, |area| area.raw_bytes);
            Reply::text(format_args!("{raw_bytes}\n"))
        }
        Route::DiskRead(offset, bytes) => return Some(read(Pending::read(state, offset, bytes))),
        // It has a body, and does not come here.
        Route::DiskWrite(_) => Reply::status(Status::BadRequest),
    }))
}

fn perform_key(method: Method, key: &[u8], state: &mut State) -> Pending {
    if method == Method::Delete {
        let (was_there, ticket) = state.kv.delete(key);
        let status = if was_there {
            Status::NoContent
        } else {
            Status::NotFound
        };
        return Pending::settled(Reply::status(status), ticket);
    }
    let (value, ticket) = state.kv.get(key);
    let reply = match value {
        Some(value) => Reply::content(Content::Value(value)),
        None => Reply::status(Status::NotFound),
    };
    Pending::settled(reply, ticket)
}

fn about(state: &State, now_ns: u64) -> Reply {
    let (used, limit) = state.kv.store().usage_bytes();
    Reply::text(format_args!(
        "The guest program of colo's embedded hypervisor.\n\n\
         GET  /           this text\n\
         GET  /kv/KEY     a stored value\n\
         PUT  /kv/KEY     stores a value of at most {VALUE_LIMIT} bytes\n\
         GET  /bytes/N    N reproducible bytes, at most {}\n\
         GET  /time       the machine's clock, in ns\n\
         POST /dirty/N    writes N pages of memory, at most {}\n\
         GET  /sum        a checksum over the stored values and those pages\n{}\n\
         up {} s, {} keys, {used} of {limit} bytes used\n",
        BYTES_LIMIT,
        state.arena.pages(),
        if state.disk.is_some() { ABOUT_DISK } else { "" },
        now_ns.saturating_sub(state.boot_ns) / 1_000_000_000,
        state.kv.store().len(),
    ))
}
