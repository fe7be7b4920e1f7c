//! What the benches under `benches/` share: [`Samples`], the [`Wire`] of a machine that nothing protects, [`hosts`] that are
//! processes, and [`comparators`].

pub mod comparators;
pub mod hosts;
mod samples;
mod wire;

pub use samples::{Samples, millis};
pub use wire::Wire;
