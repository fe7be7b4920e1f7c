//! A connection of the HTTP service.
//!
//! ```text
//!            head read                 body read
//!   Head ────────────▶ Upload ──────────────▶ Wait ▶ Reply ──▶ Head      keep-alive
//!     │  └───────────▶ Skip (a body nobody wants) ──▶  │ └───▶ Linger    close: our side ended, theirs read to its end
//!     └────────▶ Wait (for the disk) ──────────────────┘
//! ```
//! Requests are answered one after the other, in order, each when its answer fits the send buffer; requests sent ahead wait
//! in the receive buffer.

use smoltcp::socket::tcp::Socket;

use crate::{
    answer::Answer,
    http::{self, Method, ParseError, Request},
    pending::{Pending, refusal},
    perform::{Performed, perform},
    pool::{Session, Turn},
    reply::{Reply, Route, Status},
    service::{Context, State},
    store::{Upload, VALUE_LIMIT},
};

/// The port of the HTTP service.
pub const HTTP_PORT: u16 = 80;
/// Requests answered before other connections get their turn.
const REQUESTS_PER_TURN: usize = 16;
/// After our side was closed: how long we wait for the peer to close its own, and how much we still read from it.
const LINGER_LIMIT_NS: u64 = 5_000_000_000;
const LINGER_LIMIT_BYTES: usize = 1 << 20;
/// What a client that asked is told before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection of the HTTP service.
#[derive(Default)]
pub struct Http {
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    /// Waiting for a head.
    #[default]
    Head,
    /// Taking in a value, for the store or for that offset of the raw area.
    Upload {
        upload: Upload,
        raw_offset: Option<u64>,
        keep_alive: bool,
    },
    /// Waiting for the disk, with a body of so many bytes to skip after that.
    Wait {
        pending: Pending,
        body_bytes: u64,
        keep_alive: bool,
        head_only: bool,
    },
    /// Reading a body that nobody wants, before the answer.
    Skip { left: u64, answer: Answer },
    /// Sending an answer.
    Reply(Answer),
    /// Closed on our side.
    Linger { until_ns: u64, read_bytes: usize },
}

/// What came of one step.
enum Step {
    /// To another phase, or a request further.
    Next(Phase),
    /// Nothing more can be done before the peer acts.
    Wait(Phase),
}

impl Session for Http {
    fn serve(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>) -> Turn {
        let before = (socket.recv_queue(), socket.send_queue());
        let mut again = true;
        let mut requests = 0;
        while requests < REQUESTS_PER_TURN {
            let step = match core::mem::take(&mut self.phase) {
                Phase::Head => read_head(socket, context),
                Phase::Upload {
                    upload,
                    raw_offset,
                    keep_alive,
                } => read_upload(upload, raw_offset, keep_alive, socket, context),
                Phase::Wait {
                    pending,
                    body_bytes,
                    keep_alive,
                    head_only,
                } => wait(pending, body_bytes, keep_alive, head_only, context.state),
                Phase::Skip { left, answer } => skip(left, answer, socket),
                Phase::Reply(answer) => {
                    requests += 1;
                    send(answer, socket, context)
                }
                Phase::Linger {
                    until_ns,
                    read_bytes,
                } => linger(until_ns, read_bytes, socket, context),
            };
            match step {
                Step::Next(phase) => self.phase = phase,
                Step::Wait(phase) => {
                    self.phase = phase;
                    again = false;
                    break;
                }
            }
        }
        let deadline_ns = match self.phase {
            Phase::Linger { until_ns, .. } => Some(until_ns),
            _ => None,
        };
        Turn {
            again,
            progress: before != (socket.recv_queue(), socket.send_queue()),
            deadline_ns,
        }
    }
}

fn read_head(socket: &mut Socket<'_>, context: &mut Context<'_>) -> Step {
    let Context {
        scratch,
        state,
        clock,
        now_ns,
        ..
    } = context;
    let count = socket.peek_slice(&mut scratch[..]).unwrap_or(0);
    let request = match http::parse(&scratch[..count]) {
        Ok(Some(request)) => request,
        Ok(None) if socket.may_recv() => return Step::Wait(Phase::Head),
        // The peer ended its side, between requests or within one: there is nobody to answer.
        Ok(None) => return close(socket, *now_ns),
        Err(error) => {
            let status = match error {
                ParseError::Malformed => Status::BadRequest,
                ParseError::TooLong => Status::FieldsTooLarge,
                ParseError::Version => Status::VersionNotSupported,
            };
            return Step::Next(Phase::Reply(Answer::new(
                Reply::status(status),
                false,
                false,
            )));
        }
    };
    if socket.send_capacity() - socket.send_queue() < CONTINUE.len() && request.expects_continue {
        // Answers to earlier requests take up the send buffer.
        return Step::Wait(Phase::Head);
    }
    let Some(phase) = begin(&request, state, *clock) else {
        return Step::Wait(Phase::Head);
    };
    let wants_body = match phase {
        Phase::Upload { .. } | Phase::Skip { .. } => true,
        Phase::Wait { body_bytes, .. } => body_bytes > 0,
        _ => false,
    };
    if wants_body && request.expects_continue && socket.send_slice(CONTINUE) != Ok(CONTINUE.len()) {
        return close(socket, *now_ns);
    }
    let head_bytes = request.head_bytes;
    if socket.recv_slice(&mut scratch[..head_bytes]) != Ok(head_bytes) {
        return close(socket, *now_ns);
    }
    Step::Next(phase)
}

/// What a request leads to; `None` if it cannot be looked at yet.
fn begin(request: &Request<'_>, state: &mut State, clock: fn() -> u64) -> Option<Phase> {
    let head_only = request.method == Method::Head;
    // An answer without having read the body: the connection cannot be used further if there is one.
    let has_body =
        request.transfer_encoding || request.content_length.is_some_and(|length| length > 0);
    let refuse = |reply: Reply| {
        let keep_alive = request.keep_alive && !has_body;
        Some(Phase::Reply(Answer::new(reply, keep_alive, head_only)))
    };
    let has_disk = state.disk.is_some();
    let route = match Route::of(request.path) {
        Ok(route) if route.needs_disk() && !has_disk => {
            return refuse(Reply::status(Status::NotFound));
        }
        Ok(route) if route.takes(request.method, has_disk) => route,
        Ok(route) => {
            return refuse(Reply {
                allow: Some(route.allowed(has_disk)),
                ..Reply::status(Status::MethodNotAllowed)
            });
        }
        Err(status) => return refuse(Reply::status(status)),
    };
    if route.needs_store() && !state.kv.is_ready() {
        return None;
    }
    let is_upload = matches!(
        (request.method, route),
        (Method::Put, Route::Key(_)) | (_, Route::DiskWrite(_))
    );
    let body_bytes = match (request.transfer_encoding, request.content_length) {
        (true, _) => return refuse(Reply::status(Status::LengthRequired)),
        (false, None) if is_upload => return Some(close_with(Status::LengthRequired)),
        (false, length) => length.unwrap_or(0),
    };
    if is_upload {
        let (key, raw_offset) = match route {
            Route::Key(key) => (key, None),
            Route::DiskWrite(offset) => (&[][..], Some(offset)),
            _ => return refuse(Reply::status(Status::BadRequest)),
        };
        return match state.kv.store().begin(key, body_bytes).map_err(refusal) {
            Ok(upload) => Some(Phase::Upload {
                upload,
                raw_offset,
                keep_alive: request.keep_alive,
            }),
            Err(Status::ContentTooLarge) => Some(close_with(Status::ContentTooLarge)),
            Err(status) => refuse(Reply::status(status)),
        };
    }
    if body_bytes > VALUE_LIMIT as u64 {
        return Some(close_with(Status::ContentTooLarge));
    }
    let keep_alive = request.keep_alive;
    Some(match perform(request.method, &route, state, clock)? {
        Performed::Now(reply) => answer(reply, body_bytes, keep_alive, head_only),
        Performed::Later(pending) => Phase::Wait {
            pending,
            body_bytes,
            keep_alive,
            head_only,
        },
    })
}

/// Sends that, after a body of so many bytes that nobody wants.
fn answer(reply: Reply, body_bytes: u64, keep_alive: bool, head_only: bool) -> Phase {
    let answer = Answer::new(reply, keep_alive, head_only);
    if body_bytes > 0 {
        Phase::Skip {
            left: body_bytes,
            answer,
        }
    } else {
        Phase::Reply(answer)
    }
}

fn close_with(status: Status) -> Phase {
    Phase::Reply(Answer::new(Reply::status(status), false, false))
}

fn read_upload(
    mut upload: Upload,
    raw_offset: Option<u64>,
    keep_alive: bool,
    socket: &mut Socket<'_>,
    context: &mut Context<'_>,
) -> Step {
    while upload.missing() > 0 {
        match socket.recv(|bytes| {
            let count = upload.push(bytes);
            (count, count)
        }) {
            Ok(0) => {
                return Step::Wait(Phase::Upload {
                    upload,
                    raw_offset,
                    keep_alive,
                });
            }
            Ok(_) => {}
            Err(_) => return close(socket, context.now_ns),
        }
    }
    let pending = match raw_offset {
        Some(offset) => Pending::write(context.state, offset, upload),
        None => match context.state.kv.put(upload) {
            Ok((true, ticket)) => Ok(Pending::settled(Reply::status(Status::Created), ticket)),
            Ok((false, ticket)) => Ok(Pending::settled(Reply::status(Status::NoContent), ticket)),
            Err(error) => Err(refusal(error)),
        },
    };
    Step::Next(match pending {
        Ok(pending) => Phase::Wait {
            pending,
            body_bytes: 0,
            keep_alive,
            head_only: false,
        },
        Err(status) => answer(Reply::status(status), 0, keep_alive, false),
    })
}

fn wait(
    pending: Pending,
    body_bytes: u64,
    keep_alive: bool,
    head_only: bool,
    state: &State,
) -> Step {
    match pending.poll(state) {
        Ok(reply) => Step::Next(answer(reply, body_bytes, keep_alive, head_only)),
        Err(pending) => Step::Wait(Phase::Wait {
            pending,
            body_bytes,
            keep_alive,
            head_only,
        }),
    }
}

fn skip(mut left: u64, answer: Answer, socket: &mut Socket<'_>) -> Step {
    while left > 0 {
        match socket.recv(|bytes| {
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            (count, count)
        }) {
            Ok(0) => return Step::Wait(Phase::Skip { left, answer }),
            Ok(count) => left -= count as u64,
            // The peer ended its side before the end of its body: it gets the answer, and no further.
            Err(_) => left = 0,
        }
    }
    Step::Next(Phase::Reply(answer))
}

fn send(mut answer: Answer, socket: &mut Socket<'_>, context: &mut Context<'_>) -> Step {
    while answer.sent < answer.total {
        match socket.send(|out| {
            let count = answer.read(out);
            (count, count)
        }) {
            Ok(0) => return Step::Wait(Phase::Reply(answer)),
            Ok(_) => {}
            Err(_) => return close(socket, context.now_ns),
        }
    }
    if answer.keep_alive {
        Step::Next(Phase::Head)
    } else {
        close(socket, context.now_ns)
    }
}

/// Ends our side, then goes on reading: data left unread would stop the peer from ending its own.
fn close(socket: &mut Socket<'_>, now_ns: u64) -> Step {
    socket.close();
    Step::Next(Phase::Linger {
        until_ns: now_ns.saturating_add(LINGER_LIMIT_NS),
        read_bytes: 0,
    })
}

fn linger(
    until_ns: u64,
    mut read_bytes: usize,
    socket: &mut Socket<'_>,
    context: &mut Context<'_>,
) -> Step {
    while let Ok(count @ 1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {
        read_bytes += count;
    }
    // Bytes of ours that are still on their way are worth waiting for, whoever reads slowly: the pool limits that.
    let until_ns = if socket.send_queue() > 0 {
        context.now_ns.saturating_add(LINGER_LIMIT_NS)
    } else {
        until_ns
    };
    if read_bytes > LINGER_LIMIT_BYTES || (context.now_ns >= until_ns && socket.is_open()) {
        socket.abort();
    }
    Step::Wait(Phase::Linger {
        until_ns,
        read_bytes,
    })
}
