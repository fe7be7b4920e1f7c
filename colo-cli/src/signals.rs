//! Ctrl-C and its kin, handed to a thread that may wait.

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// SIGINT and SIGTERM from here on, in the order in which they come.
pub(crate) fn stop_signals() -> Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals")?;
    let (sender, receiver) = bounded(4);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // Four unread signals say the same as five.
            let _ = sender.try_send(signal);
        }
    });
    Ok(receiver)
}
