//! The machine, tried with guest programs of a few instructions. Needs no privilege.

mod dirty;
mod disk;
mod failing_disk;
mod lifecycle;
mod programs;
mod rings;
mod state;
mod support;
