use std::ops::Range;

/// Which bytes of a payload are not compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::compare) struct Masks {
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) spans: Vec<Span>,
}

/// What stands between two texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) after: Text,
    pub(super) until: Text,
}

/// A text to be looked for byte by byte (Knuth, Morris, Pratt 1977).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// For each beginning of the text, how long the longest shorter beginning is that it ends with.
    fallback: Vec<usize>,
}

impl Text {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut fallback = vec![0; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[at] != bytes[matched] {
                matched = fallback[matched - 1];
            }
            matched += usize::from(bytes[at] == bytes[matched]);
            fallback[at] = matched;
        }
        Text { bytes, fallback }
    }

    /// Goes one byte on from where so many bytes matched; `None` when the text is there.
    fn step(&self, mut matched: usize, byte: u8) -> Option<usize> {
        while matched > 0 && self.bytes[matched] != byte {
            matched = self.fallback[matched - 1];
        }
        matched += usize::from(self.bytes[matched] == byte);
        (matched < self.bytes.len()).then_some(matched)
    }
}

/// Where one is in a payload that is gone through from its beginning.
#[derive(Clone, Debug, Default)]
pub(in crate::compare) struct Scan {
    /// The next byte's place in the payload; `None` when that is not known.
    place: Option<u64>,
    /// For each span whether the first text was found, and how much of the text that is looked for.
    spans: Vec<(bool, usize)>,
}

impl Scan {
    /// At this place of a payload; nothing is known of what is before.
    pub(in crate::compare) fn at(place: Option<u64>) -> Self {
        Scan { place, spans: Vec::new() }
    }

    /// Compares the next bytes of two payloads, and goes behind them; returns where they first differ in a byte that is not masked.
    pub(in crate::compare) fn first_difference(&mut self, masks: &Masks, ours: &[u8], theirs: &[u8]) -> Option<usize> {
        self.spans.resize(masks.spans.len(), (false, 0));
        let mut difference = None;
        for (at, (our, their)) in ours.iter().zip(theirs).enumerate() {
            let is_masked = self.step(masks, *our);
            if our != their && !is_masked && difference.is_none() {
                difference = Some(at);
            }
        }
        difference
    }

    /// Whether the next byte is masked.
    fn step(&mut self, masks: &Masks, byte: u8) -> bool {
        let mut is_masked = self.place.is_some_and(|place| masks.ranges.iter().any(|range| range.contains(&place)));
        self.place = self.place.map(|place| place + 1);
        for ((is_inside, matched), span) in self.spans.iter_mut().zip(&masks.spans) {
            is_masked |= *is_inside;
            let text = if *is_inside { &span.until } else { &span.after };
            match text.step(*matched, byte) {
                Some(more) => *matched = more,
                None => (*is_inside, *matched) = (!*is_inside, 0),
            }
        }
        is_masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks(ranges: &[Range<u64>], spans: &[(&[u8], &[u8])]) -> Masks {
        let text = |bytes: &[u8]| Text::new(bytes.to_vec());
        let spans = spans.iter().map(|(after, until)| Span { after: text(after), until: text(until) });
        Masks { ranges: ranges.to_vec(), spans: spans.collect() }
    }

    /// Which bytes are masked, asked for in pieces.
    fn masked(masks: &Masks, payload: &[u8], cuts: usize) -> Vec<bool> {
        let mut scan = Scan::at(Some(0));
        scan.spans.resize(masks.spans.len(), (false, 0));
        let pieces = payload.chunks(cuts);
        pieces.flat_map(|piece| piece.iter().map(|byte| scan.step(masks, *byte)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn dates_are_masked_and_nothing_else() {
        let masks = masks(&[], &[(b"Date: ", b"\r\n")]);
        let compare = |ours: &[u8], theirs: &[u8]| Scan::at(None).first_difference(&masks, ours, theirs);
        assert_eq!(compare(b"A: 1\r\nDate: 10:15\r\nB: 2\r\n", b"A: 1\r\nDate: 11:26\r\nB: 2\r\n"), None);
        assert_eq!(compare(b"Date: 10:15\r\nB: 2\r\n", b"Date: 10:15\r\nB: 3\r\n"), Some(16));
        assert_eq!(compare(b"Dat: 10", b"Dat: 11"), Some(6));
    }

    #[test]
    fn ranges_count_from_the_beginning() {
        let masks = masks(&[2..4, 6..7], &[]);
        assert_eq!(Scan::at(Some(0)).first_difference(&masks, b"abcdefg", b"abCDef!"), None);
        assert_eq!(Scan::at(Some(0)).first_difference(&masks, b"abcdefg", b"abCDEfg"), Some(4));
        assert_eq!(Scan::at(Some(1)).first_difference(&masks, b"bcdefg", b"bCDef!"), None);
        assert_eq!(
            Scan::at(None).first_difference(&masks, b"abc", b"abC"),
            Some(2),
            "a stream without a known beginning"
        );
    }

    proptest! {
        /// Against looking for the texts in the whole payload.
        #[test]
        fn spans_are_found_wherever_they_are_cut(payload in prop::collection::vec(0..3u8, 0..60), cuts in 1usize..9) {
            let (after, until): (&[u8], &[u8]) = (&[0, 1, 0], &[2, 2]);
            let mut expected = vec![false; payload.len()];
            let find = |text: &[u8], from: usize| payload[from..].windows(text.len()).position(|window| window == text).map(|at| from + at + text.len());
            let mut from = 0;
            while let Some(start) = find(after, from) {
                let end = find(until, start).unwrap_or(payload.len());
                expected[start..end].fill(true);
                from = end;
            }
            prop_assert_eq!(masked(&masks(&[], &[(after, until)]), &payload, cuts), expected);
        }
    }
}
