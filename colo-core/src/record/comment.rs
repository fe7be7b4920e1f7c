//! The comment on each frame of a recording: what Wireshark shows beside it, and how its miscompare is found again.

use crate::ids::Epoch;
use std::fmt;

/// What stands beside a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Comment {
    /// Of the miscompare.
    pub(super) number: u64,
    pub(super) epoch: Option<Epoch>,
    /// Which of its frames this is, from 1, and how many there are.
    pub(super) frame: usize,
    pub(super) frames: usize,
    /// The divergence's words.
    pub(super) what: String,
}

impl Comment {
    /// `None` when it is the comment of somebody else.
    pub(super) fn parse(text: &str) -> Option<Comment> {
        let (head, what) = text.strip_prefix("miscompare ")?.split_once(": ")?;
        let (head, place) = head.split_once(", frame ")?;
        let (frame, frames) = place.split_once(" of ")?;
        let (number, epoch) = match head.split_once(" (epoch ") {
            Some((number, epoch)) => (number, Some(Epoch(epoch.strip_suffix(')')?.parse().ok()?))),
            None => (head, None),
        };
        Some(Comment {
            number: number.parse().ok()?,
            epoch,
            frame: frame.parse().ok()?,
            frames: frames.parse().ok()?,
            what: what.to_owned(),
        })
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "miscompare {}", self.number)?;
        if let Some(epoch) = self.epoch {
            write!(f, " (epoch {})", epoch.0)?;
        }
        write!(f, ", frame {} of {}: {}", self.frame, self.frames, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, epoch: Option<u64>, frame: usize, frames: usize, what in "\\PC{0,60}") {
            let comment = Comment { number, epoch: epoch.map(Epoch), frame, frames, what };
            prop_assert_eq!(Comment::parse(&comment.to_string()), Some(comment));
        }

        #[test]
        fn other_comments_are_no_danger(text in "(miscompare )?[0-9]{0,3}( \\(epoch )?[0-9)]{0,3}(, frame )?[0-9]?( of )?.{0,9}") {
            if let Some(comment) = Comment::parse(&text) {
                prop_assert_eq!(Comment::parse(&comment.to_string()), Some(comment));
            }
        }
    }

    #[test]
    fn looks_so() {
        let comment = Comment {
            number: 3,
            epoch: Some(Epoch(7)),
            frame: 2,
            frames: 5,
            what: "TCP 10.0.0.1:80 > 10.0.0.2:4000 (nic 0): payload differs at 46".into(),
        };
        let text =
            "miscompare 3 (epoch 7), frame 2 of 5: TCP 10.0.0.1:80 > 10.0.0.2:4000 (nic 0): payload differs at 46";
        assert_eq!(comment.to_string(), text);
        assert_eq!(Comment::parse("a user's own comment"), None);
    }
}
