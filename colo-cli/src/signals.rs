//! Ctrl-C and its kin, handed to a thread that may wait.

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Whether SIGINT or SIGTERM has come since, for work that looks up now and then.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).context("signals")?;
    }
    Ok(flag)
}

/// Can be read once SIGINT or SIGTERM has come, for a thread that waits for something else, too. A [`stop_flag`] that was asked for
/// before is set by then.
pub(crate) fn stop_descriptor() -> Result<OwnedFd> {
    Ok(descriptor(&[SIGINT, SIGTERM])?.into())
}

/// Can be read once one of the signals has come: some bytes, which say no more than that.
pub(crate) fn descriptor(signals: &[i32]) -> Result<UnixStream> {
    let (descriptor, sender) = UnixStream::pair().context("signals")?;
    for signal in signals {
        let sender = sender.try_clone().context("signals")?;
        signal_hook::low_level::pipe::register(*signal, sender).context("signals")?;
    }
    Ok(descriptor)
}

/// SIGINT and SIGTERM from here on, in the order in which they come.
pub(crate) fn stop_signals() -> Result<Receiver<i32>> {
    signals(&[SIGINT, SIGTERM])
}

/// These signals from here on, in the order in which they come.
pub(crate) fn signals(signals: &[i32]) -> Result<Receiver<i32>> {
    let mut signals = Signals::new(signals).context("signals")?;
    let (sender, receiver) = bounded(4);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // Four unread signals say the same as five.
            let _ = sender.try_send(signal);
        }
    });
    Ok(receiver)
}
