use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The most lines that are kept: with the longest lines of plain text 1 MiB.
const MAX_LINES: usize = 256;
/// The longest line, in bytes; longer ones are broken.
const MAX_LINE_BYTES: usize = 4096;

/// The guest's console: what it wrote, line by line, the oldest lines forgotten.
#[derive(Default)]
pub(crate) struct Console {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lines: VecDeque<String>,
    unfinished: Vec<u8>,
}

impl Console {
    /// Takes what the guest wrote, and logs the lines that it finishes under the target `guest`.
    pub(crate) fn write(&self, name: &str, text: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in text {
            if byte != b'\n' {
                inner.unfinished.push(byte);
            }
            if byte == b'\n' || inner.unfinished.len() == MAX_LINE_BYTES {
                inner.finish_line(name);
            }
        }
    }

    /// The lines so far, the unfinished one included.
    pub(crate) fn lines(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<String> = inner.lines.iter().cloned().collect();
        if !inner.unfinished.is_empty() {
            lines.push(printable(&inner.unfinished));
        }
        lines
    }
}

impl Inner {
    fn finish_line(&mut self, name: &str) {
        let line = printable(&self.unfinished);
        self.unfinished.clear();
        tracing::info!(target: "guest", domain = name, "{line}");
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// The guest's text may be anything; on its way to a terminal it must not steer it.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|char| if char.is_control() && char != '\t' { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_nothing_that_steers_a_terminal() {
        let console = Console::default();
        console.write("test", b"hel");
        assert_eq!(console.lines(), ["hel"]);
        console.write("test", b"lo\n\x1b[2Jbye\n\xff");
        assert_eq!(console.lines(), ["hello", "\u{fffd}[2Jbye", "\u{fffd}"]);
        for _ in 0..2 * MAX_LINES {
            console.write("test", &[b'x'; MAX_LINE_BYTES + 1]);
            console.write("test", b"\n");
        }
        let lines = console.lines();
        assert_eq!(lines.len(), MAX_LINES);
        assert!(lines.iter().all(|line| line == "x" || line.len() == MAX_LINE_BYTES));
    }
}
