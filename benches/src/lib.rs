//! What the benches under `benches/` share: [`Samples`], the [`Wire`] of a machine that nothing protects, [`hosts`] that are
//! processes, [`comparators`] and servers of [`disks`] that are, too, and [`CpuTime`] as a measure.

pub mod comparators;
mod cpu_time;
pub mod disks;
pub mod hosts;
mod samples;
mod wire;

pub use cpu_time::CpuTime;
pub use samples::{Samples, millis};
pub use wire::Wire;
