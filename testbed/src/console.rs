//! What a guest says on its console, understood: see `guest-init`.

/// A console that only grows.
#[derive(Default)]
pub(crate) struct Console {
    /// What came after the last end of a line.
    begun: Vec<u8>,
    lines: Vec<String>,
    ready: bool,
    first_tick: Option<u64>,
    tick: Option<u64>,
    /// A number, and a smaller one that came after it.
    step_back: Option<(u64, u64)>,
    rounds: u64,
    bad_sums: u64,
    failure: Option<String>,
}

/// A line longer than this is cut: no guest of ours has one.
const MAX_LINE_BYTES: usize = 4096;

impl Console {
    /// Takes what was added.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).trim_end().to_owned();
                    self.line(line);
                }
                _ if self.begun.len() < MAX_LINE_BYTES => self.begun.push(*byte),
                _ => (),
            }
        }
    }

    /// Whether the guest has said that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The last number that it has counted to.
    pub(crate) fn tick(&self) -> Option<u64> {
        self.tick
    }

    /// The first number that it has counted to here.
    pub(crate) fn first_tick(&self) -> Option<u64> {
        self.first_tick
    }

    /// How often it has found its memory right, by its own count.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// What is wrong with it, if something is.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        if let Some((before, after)) = self.step_back {
            return Some(format!("it counted {after} after {before}"));
        }
        (self.bad_sums > 0).then(|| format!("it found its memory wrong {} times", self.bad_sums))
    }

    /// The last lines.
    pub(crate) fn last_lines(&self, count: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(count)..]
    }

    fn line(&mut self, line: String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["GUEST-READY", _] => self.ready = true,
            ["TICK", _, number] => self.count(number.parse().ok()),
            ["SUM", _, "ok", rounds] => self.rounds = rounds.parse().unwrap_or(self.rounds),
            ["SUM", _, "BAD"] => self.bad_sums += 1,
            ["GUEST-FAILED", ..] => self.failure = Some(line.clone()),
            _ if line.contains("Kernel panic") => self.failure = Some(line.clone()),
            _ => (),
        }
        self.lines.push(line);
    }

    fn count(&mut self, number: Option<u64>) {
        // A number that cannot be read is one of a line in which the kernel spoke, too.
        let Some(number) = number else { return };
        // The same number again is no step back: what a guest had said but Xen's daemon had not read when it was saved is said again.
        if let Some(last) = self.tick.filter(|last| number < *last) {
            self.step_back.get_or_insert((last, number));
        }
        self.first_tick.get_or_insert(number);
        self.tick = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn console(text: &str) -> Console {
        let mut console = Console::default();
        console.add(text.as_bytes());
        console
    }

    #[test]
    fn a_guest_that_does_well() {
        let console = console(
            "[    0.1] Linux\r\nGUEST-READY g\r\nTICK g 1\r\nTICK g 2\r\nTICK g 2\r\nSUM g ok 1\r\nTICK g 3\r\nTIC",
        );
        assert!(console.is_ready());
        assert_eq!((console.tick(), console.rounds(), console.fault()), (Some(3), 1, None));
        assert_eq!(console.first_tick(), Some(1));
        assert_eq!(console.last_lines(2), ["SUM g ok 1", "TICK g 3"]);
    }

    #[test]
    fn a_guest_that_does_not() {
        assert!(!console("GUEST-READ").is_ready());
        assert_eq!(console("TICK g 7\nTICK g 3\nTICK g 4\n").fault().unwrap(), "it counted 3 after 7");
        assert_eq!(console("SUM g BAD\nSUM g ok 2\n").fault().unwrap(), "it found its memory wrong 1 times");
        assert_eq!(console("GUEST-FAILED no card\n").fault().unwrap(), "GUEST-FAILED no card");
        assert_eq!(console("[1.0] Kernel panic - x\n").fault().unwrap(), "[1.0] Kernel panic - x");
        assert_eq!(console("TICK g [ 12.1] foo\n").tick(), None);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_it_is_cut(cuts in prop::collection::vec(0..60_usize, 0..6)) {
            let text = b"GUEST-READY g\nTICK g 1\nTICK g 2\nSUM g ok 1\nTICK g 3\nTICK g";
            let mut cuts = cuts;
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut console = Console::default();
            for cut in cuts.windows(2) {
                console.add(&text[cut[0].min(text.len())..cut[1].min(text.len())]);
            }
            prop_assert!(console.is_ready());
            prop_assert_eq!((console.tick(), console.rounds()), (Some(3), 1));
        }
    }
}
