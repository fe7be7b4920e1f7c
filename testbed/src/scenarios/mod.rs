//! The scenarios, one a file, and the table of them.

mod boot;
mod check;
mod ci;
mod deaths;
mod disk;
mod disk_alone;
mod disk_shared;
mod endings;
mod failover;
mod guests;
mod inspect_agrees;
mod losses;
mod overlay;
mod port_history;
mod probe;
mod protect;
mod remus_baseline;
mod restore_fails;
mod save_fails;
mod save_restore;
mod shapes;
mod side_by_side;
mod speed;
mod three_hosts;
mod two_hosts;

use crate::context::Context;
use anyhow::Result;
use std::time::Duration;

/// Something that is tried on real Xen.
pub(crate) struct Scenario {
    /// How it is asked for.
    pub(crate) name: &'static str,
    /// What it is about, in a line.
    pub(crate) about: &'static str,
    /// How long it may take, on a machine that has other things to do.
    pub(crate) limit: Duration,
    /// Whether it makes networks, which only root may.
    pub(crate) needs_root: bool,
    /// Runs it.
    pub(crate) run: fn(&Context) -> Result<()>,
}

/// All, in the order in which `all` runs them: what others build on comes first.
pub(crate) const SCENARIOS: &[Scenario] = &[
    boot::SCENARIO,
    ci::SCENARIO,
    guests::SCENARIO,
    probe::SCENARIO,
    save_restore::SCENARIO,
    shapes::SCENARIO,
    inspect_agrees::SCENARIO,
    save_fails::SCENARIO,
    restore_fails::SCENARIO,
    speed::SCENARIO,
    overlay::SCENARIO,
    disk_alone::SCENARIO,
    two_hosts::SCENARIO,
    three_hosts::SCENARIO,
    remus_baseline::SCENARIO,
    protect::SCENARIO,
    side_by_side::SCENARIO,
    port_history::SCENARIO,
    failover::SCENARIO,
    disk::SCENARIO,
    disk::TWICE,
    disk_shared::SCENARIO,
    disk_shared::CUT,
    endings::SCENARIO,
    losses::SECONDARY,
    losses::LINK,
    losses::HELD,
    losses::AGAIN,
    check::SCENARIO,
];
