use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that is another each time. It need not be hard to guess, only unlikely to come twice.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
