//! Frames that are compared one by one, the first of the one machine with the first of the other.

use super::fields::{Class, Field, fields};
use super::hint::Hint;
use super::{Difference, Excerpt, Place, byte};
use crate::net::Frame;

/// How far ahead a frame is looked for that the other machine has sent already.
const LOOK_AHEAD: usize = 16;

pub(super) fn differences(primary: &[Frame], secondary: &[Frame], hint: Hint) -> Vec<Difference> {
    let pairs = primary.len().min(secondary.len());
    let pair = |index: usize| Pair::new(index, &primary[index], &secondary[index]);
    let alone = alone(primary, secondary, pairs);
    if hint == Hint::Alone && alone.is_some() {
        return alone.into_iter().collect();
    }
    let hinted = match hint {
        Hint::Place(place) => {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            (0..pairs).map(pair).find(|pair| pair.differs_at(place)).map(|pair| pair.differences(Some(place)))
        }
        Hint::Alone | Hint::Nothing => None,
    };
    let first = || (0..pairs).map(|index| (index, pair(index).differences(None))).find(|(_, found)| !found.is_empty());
    let mut found = match hinted {
        Some(found) => found,
        None => match first() {
            Some((_, found)) => found,
            None => return alone.into_iter().collect(),
        },
    };
    // Perhaps one of them has left something out, and then went on as the other.
    if let Some(index) = found[0].place.primary_frame {
        found.extend(left_out(primary, secondary, index));
    }
    found
}

/// A frame to which there is none of the other machine.
fn alone(primary: &[Frame], secondary: &[Frame], pairs: usize) -> Option<Difference> {
    match (primary.get(pairs), secondary.get(pairs)) {
        (Some(frame), _) => Some(Difference::frame(Some((pairs, frame)), None)),
        (None, Some(frame)) => Some(Difference::frame(None, Some((pairs, frame)))),
        (None, None) => None,
    }
}

/// The frame in this place, if the other machine sends in it what comes after that.
fn left_out(primary: &[Frame], secondary: &[Frame], index: usize) -> Option<Difference> {
    let repeats = |frame: &Frame, others: &[Frame]| {
        others
            .iter()
            .skip(index + 1)
            .take(LOOK_AHEAD)
            .any(|other| Pair::new(index, frame, other).differences(None).is_empty())
    };
    if repeats(&secondary[index], primary) {
        Some(Difference::frame(Some((index, &primary[index])), None))
    } else if repeats(&primary[index], secondary) {
        Some(Difference::frame(None, Some((index, &secondary[index]))))
    } else {
        None
    }
}

/// Two frames that are compared with each other.
struct Pair<'a> {
    index: usize,
    frames: [&'a [u8]; 2],
    /// Their fields; a field that only one of them has ends the list.
    fields: Vec<[Field; 2]>,
    /// What the primary's frame has from there on.
    parted: Vec<Field>,
}

impl<'a> Pair<'a> {
    fn new(index: usize, primary: &'a [u8], secondary: &'a [u8]) -> Self {
        let (mut ours, theirs) = (fields(primary), fields(secondary));
        let same = |(ours, theirs): &(&Field, &Field)| ours.protocol == theirs.protocol && ours.name == theirs.name;
        let common = ours.iter().zip(&theirs).take_while(same).count();
        let parted = ours.split_off(common);
        let fields = ours.into_iter().zip(theirs).map(|(ours, theirs)| [ours, theirs]).collect();
        Pair { index, frames: [primary, secondary], fields, parted }
    }

    /// Whether the byte at this place of the primary's frame is in a field that differs, and differs itself if it is one of many.
    fn differs_at(&self, place: usize) -> bool {
        let mut here = self.fields.iter().filter(|[ours, _]| ours.covers(place));
        here.any(|both| self.differs(both) && self.byte_differs(both, place))
    }

    fn byte_differs(&self, [ours, theirs]: &[Field; 2], place: usize) -> bool {
        let at = place - ours.at();
        !ours.is_bytes() || ours.bytes(self.frames[0]).get(at) != theirs.bytes(self.frames[1]).get(at)
    }

    fn differs(&self, [ours, theirs]: &[Field; 2]) -> bool {
        match ours.is_bytes() {
            true => ours.bytes(self.frames[0]) != theirs.bytes(self.frames[1]),
            false => ours.number(self.frames[0]) != theirs.number(self.frames[1]),
        }
    }

    /// All that differs, beginning with what is at this place of the primary's frame if that is a reason.
    fn differences(&self, place: Option<usize>) -> Vec<Difference> {
        let of_class = |class: Class| {
            let fields = self.fields.iter().filter(move |both| both[0].class == class && self.differs(both));
            let mut found: Vec<&[Field; 2]> = fields.collect();
            // The order stays, but for the one in that place.
            found.sort_by_key(|both| place.is_none_or(|place| !both[0].covers(place)));
            found.into_iter().map(|both| self.difference(both, place)).collect::<Vec<_>>()
        };
        let compared = of_class(Class::Compared);
        if compared.is_empty() { [of_class(Class::Derived), self.parting()].concat() } else { compared }
    }

    /// What differs behind the place from where on the two frames are not even of one kind.
    fn parting(&self) -> Vec<Difference> {
        let theirs = self.frames[1];
        let counts = |field: &&Field| field.class != Class::Ignored && field.fits(theirs);
        let fields = self.parted.iter().filter(counts).map(|field| [field.clone(), field.clone()]);
        let found = fields.into_iter().find(|both| self.differs(both)).map(|both| self.difference(&both, None));
        let lengths = || {
            let [primary, secondary] = self.frames.map(|frame| Some(format!("{} bytes", frame.len())));
            let place =
                Place { primary_frame: Some(self.index), secondary_frame: Some(self.index), ..Place::default() };
            Difference {
                protocol: "Ethernet",
                field: "frame's length".into(),
                place,
                primary,
                secondary,
                excerpts: None,
            }
        };
        let has_parted = !self.parted.is_empty();
        found.or_else(|| has_parted.then(lengths)).into_iter().collect()
    }

    fn difference(&self, both @ [ours, theirs]: &[Field; 2], place: Option<usize>) -> Difference {
        let (in_primary, in_secondary) = (ours.at(), theirs.at());
        let mut difference = Difference {
            protocol: ours.protocol,
            field: ours.name.into(),
            place: Place {
                primary_frame: Some(self.index),
                secondary_frame: Some(self.index),
                primary_offset: Some(in_primary),
                secondary_offset: Some(in_secondary),
                ..Place::default()
            },
            primary: Some(ours.value(self.frames[0])),
            secondary: Some(theirs.value(self.frames[1])),
            excerpts: None,
        };
        if ours.is_bytes() {
            let (primary, secondary) = (ours.bytes(self.frames[0]), theirs.bytes(self.frames[1]));
            let wanted = place.filter(|place| ours.covers(*place) && self.byte_differs(both, *place));
            let at = match wanted {
                Some(place) => place - in_primary,
                None => primary.iter().zip(secondary).take_while(|(ours, theirs)| ours == theirs).count(),
            };
            difference.place.payload_offset = Some(at as u64);
            difference.place.primary_offset = Some(in_primary + at);
            difference.place.secondary_offset = Some(in_secondary + at);
            difference.primary = primary.get(at).copied().map(byte);
            difference.secondary = secondary.get(at).copied().map(byte);
            difference.excerpts = Some([Excerpt::around(primary, at), Excerpt::around(secondary, at)]);
        }
        difference
    }
}
