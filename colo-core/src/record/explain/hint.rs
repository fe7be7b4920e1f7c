use crate::compare::Reason;
use std::time::Duration;

/// What the words of a divergence say about where to look.
///
/// The frames alone say it, too, but for rules that have the comparator ignore some bytes: what it has found is then not the first that
/// differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hint {
    /// Bytes differ there: see [`Reason::PayloadDiffers`].
    Place(u64),
    /// Somebody waits for what the other has not sent.
    Alone,
    Nothing,
}

impl Hint {
    /// From the words of a divergence.
    pub(super) fn parse(what: &str) -> Hint {
        let marks = |reason: Reason| {
            let text = reason.to_string();
            let end = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].to_owned()
        };
        let place = marks(Reason::PayloadDiffers { offset: 0 });
        if let Some((_, rest)) = what.rsplit_once(&place) {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            return rest[..digits].parse().map_or(Hint::Nothing, Hint::Place);
        }
        let waited = Duration::ZERO;
        let alone = [Reason::Unmatched { waited }, Reason::OnlySecondary { waited }];
        if alone.into_iter().any(|reason| what.contains(&marks(reason))) { Hint::Alone } else { Hint::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Divergence, Limit};

    #[test]
    fn reasons_say_where_to_look() {
        let waited = Duration::from_millis(200);
        let hint = |reason| Hint::parse(&Divergence { flow: None, reason, evidence: None }.to_string());
        assert_eq!(hint(Reason::PayloadDiffers { offset: 46 }), Hint::Place(46));
        assert_eq!(hint(Reason::Unmatched { waited }), Hint::Alone);
        assert_eq!(hint(Reason::OnlySecondary { waited }), Hint::Alone);
        for reason in [Reason::HandshakeDiffers, Reason::FlagsDiffer, Reason::QueueFull(Limit::Flows)] {
            assert_eq!(hint(reason), Hint::Nothing);
        }
        assert_eq!(Hint::parse("payload differs at 46 (of 3 frames)"), Hint::Place(46));
        assert_eq!(Hint::parse("payload differs at "), Hint::Nothing);
    }
}
