//! What the benches under `benches/` share: [`Samples`], the [`Wire`] of a machine that nothing protects, and [`hosts`] that are
//! processes; [`CpuTime`] as a measure.

mod cpu_time;
pub mod hosts;
mod samples;
mod wire;

pub use cpu_time::CpuTime;
pub use samples::{Samples, millis};
pub use wire::Wire;
