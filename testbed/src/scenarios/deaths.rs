//! What the scenarios share in which a guest's host dies at chance moments, again and again.

use super::protect::types;
use crate::context::Context;
use crate::examine::examined;
use crate::guest::GuestType;
use crate::host::Host;
use crate::net::Network;
use anyhow::{Context as _, Result};
use std::time::Duration;

/// One of the deaths that the options ask for.
pub(super) struct Death {
    pub(super) kind: GuestType,
    /// How long after the guest is protected.
    pub(super) moment: Duration,
    /// For whoever reads along.
    pub(super) name: String,
}

/// Each death that the options ask for, within this time after the guest is protected, on two hosts: `once` kills the first of them.
pub(super) fn each_death(
    context: &Context,
    network: &Network,
    [a, b]: [Host; 2],
    within: Duration,
    mut once: impl FnMut([&Host; 2], &Death) -> Result<()>,
) -> Result<()> {
    let (mut random, times) = (context.random(), context.options().times);
    let mut first = Some(a);
    for kind in types(context) {
        for (number, moment) in random.moments(times, within).into_iter().enumerate() {
            let a = match first.take() {
                Some(host) => host,
                None => network.start(context, 0)?.wait()?,
            };
            let (kind_name, number, seconds) = (kind.name(), number + 1, moment.as_secs_f64());
            let name = format!("{kind_name}, {number} of {times}, {seconds:.2} s after it is protected");
            context.say(&name);
            let death = Death { kind, moment, name };
            examined(&[&a, &b], once([&a, &b], &death)).with_context(|| death.name.clone())?;
        }
    }
    Ok(())
}
