//! What the benches under `benches/` share: [`Samples`] and the [`Wire`] of a machine that nothing protects.

mod samples;
mod wire;

pub use samples::{Samples, millis};
pub use wire::Wire;
