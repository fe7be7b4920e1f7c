//! Places inside of the engines' work at which a process can die, or an operation fail. They are counted; one of them may be
//! the one.

use std::cell::Cell;
use std::rc::Rc;

/// What happens at the chosen place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mishap {
    /// The process is killed.
    Death,
    /// The operation fails, and the process lives on.
    Failure,
}

#[derive(Default)]
struct Inner {
    reached: Cell<u64>,
    chosen: Cell<Option<(u64, Mishap)>>,
    is_dead: Cell<bool>,
    /// The name of the place where it happened.
    happened: Cell<Option<&'static str>>,
}

/// Counts the places of one host. A handle.
#[derive(Clone, Default)]
pub struct Points(Rc<Inner>);

impl Points {
    /// From here on, the `after`th place that is reached is the one.
    pub fn choose(&self, after: u64, mishap: Mishap) {
        self.0.chosen.set(Some((self.0.reached.get() + after, mishap)));
    }

    /// Whether the process was killed at one.
    pub fn is_dead(&self) -> bool {
        self.0.is_dead.get()
    }

    /// Where it happened, if it has.
    pub fn happened(&self) -> Option<&'static str> {
        self.0.happened.get()
    }

    /// A place is reached.
    pub fn reach(&self, place: &'static str) -> Result<(), &'static str> {
        self.0.reached.set(self.0.reached.get() + 1);
        match self.0.chosen.get() {
            Some((at, mishap)) if self.0.reached.get() == at => {
                self.0.happened.set(Some(place));
                self.0.is_dead.set(mishap == Mishap::Death);
                Err(place)
            }
            _ if self.is_dead() => Err(place),
            _ => Ok(()),
        }
    }
}
