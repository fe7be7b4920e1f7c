//! `colo check`.

use super::{Found, find};
use crate::args::{CheckArgs, ModeArg};
use crate::output::{FAILED, one_line, print_json};
use anyhow::{Context, Result};
use colo_core::disk::control::{ControlledPrimary, Witness};
use colo_core::domain::DomainSpec;
use colo_core::ids::DomId;
use colo_core::peer::Mode;
use colo_core::session::{SessionError, inquire};
use colo_core::xen::check::{
    Asked, ClockDifference, DiskServerFit, DomainFacts, Finding, HostFacts, Question, Verdict, judge,
};
use colo_core::xen::control::DomainInfo;
use colo_core::xen::toolstack::{DomainConfig, DomainUuid, LiveState, Xl};
use colo_core::xen::{Control, Xen, XenStore};
use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long another toolstack may keep us from the domain's configuration.
const CONFIG_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &CheckArgs, json: bool) -> Result<ExitCode> {
    let xen = Xen::open()?;
    let Found { control, store, info, .. } = find(xen, &args.domain)?;
    let findings = findings(args, xen, &control, &store, &info)
        .with_context(|| format!("whether {} can be protected cannot be told", args.domain))?;
    let fails = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).count();
    let mut out = io::stdout().lock();
    for finding in &findings {
        if json {
            print_json(&as_json(finding));
        } else {
            // Nobody who does not listen any more is bothered.
            let _ = writeln!(out, "{}", line(finding));
        }
    }
    Ok(if fails == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

pub(super) fn findings(
    args: &CheckArgs,
    xen: Xen,
    control: &Control,
    store: &XenStore,
    info: &DomainInfo,
) -> Result<Vec<Finding>> {
    if info.domid == DomId(0) {
        // It has no configuration that could be looked at.
        let remedy = "name a guest: `colo list` shows them";
        return Ok(vec![Finding::failure("domain", "domain 0 is the host itself", remedy)]);
    }
    let xl = Xl::find()?;
    let live = LiveState { uuid: DomainUuid(info.uuid), device_model_cpus: None, scheduler: None };
    let config = DomainConfig::current(info.domid, &live, store, &xl, Instant::now() + CONFIG_LIMIT)?;
    let domain = DomainFacts::gather(control, store, info, &config)?;
    let mut here = HostFacts::gather(xen, control, store, &xl, &Asked::about(&config)?)?;
    here.disk_server = args.disk_control.as_ref().map(|path| {
        let server = ControlledPrimary::connect(path);
        DiskServerFit::of(&config, server.as_ref().map(|server| (server.sizes(), server as &dyn Witness)))
    });
    let spec = domain.spec(&config, control.nr_gpfns(info.domid)?);
    let answer = ask(&args.peer, &spec);
    let told = answer.as_ref().ok();
    let question = Question {
        domain: &domain,
        here: &here,
        peer: told.map(|(facts, _)| facts),
        clock: told.map(|(_, clock)| *clock),
        mode: args.mode.map(|mode| match mode {
            ModeArg::Colo => Mode::Colo,
            ModeArg::Remus => Mode::Remus,
        }),
        unsafe_disk: args.unsafe_disk,
    };
    let mut findings = judge(&question);
    if let Err(no_answer) = answer {
        findings.push(no_answer);
    }
    Ok(findings)
}

/// What the peer says of itself, and how its clock goes.
fn ask(peer: &str, spec: &DomainSpec) -> Result<(HostFacts, ClockDifference), Finding> {
    let about = "peer";
    if spec.config.len() > DomainSpec::MAX_CONFIG_BYTES {
        let text = format!(
            "the domain's configuration has {} bytes: the limit is {}",
            spec.config.len(),
            DomainSpec::MAX_CONFIG_BYTES
        );
        return Err(Finding::failure(about, text, "take devices, or a CPU policy of its own, out of it"));
    }
    let answer = inquire(peer, spec).map_err(|error| {
        let remedy = match &error {
            SessionError::Greeting { .. } => {
                "it may protect a machine already, and takes in one at a time: `colo secondary --listen` there on another port"
            }
            SessionError::Refused { .. } => "put that right there",
            _ => "start `colo secondary --listen` there, the same release, and let its port through the firewall",
        };
        let remedy = format!("{remedy}; then check again: of the peer nothing is known yet");
        Finding::failure(about, one_line(&error.into()), remedy)
    })?;
    let facts = HostFacts::from_facts(&answer.facts).map_err(|error| {
        Finding::failure(
            about,
            format!("{peer} answers what is not understood: {error}"),
            "run the same release of colo on both",
        )
    })?;
    Ok((facts, ClockDifference { ahead_ns: answer.clock_ahead_ns, error: answer.clock_error }))
}

fn line(finding: &Finding) -> String {
    format!("{:<8} {}", finding.verdict, text(finding))
}

/// What was looked at, what was found, and what to do about it.
pub(super) fn text(Finding { about, text, remedy, .. }: &Finding) -> String {
    let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{about}: {text}{remedy}")
}

fn as_json(Finding { about, verdict, text, remedy }: &Finding) -> serde_json::Value {
    json!({ "about": about, "verdict": verdict.name(), "text": text, "remedy": remedy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn spec(config_bytes: usize) -> DomainSpec {
        let config = vec![b'{'; config_bytes];
        DomainSpec {
            name: "web".into(),
            hypervisor: "xen".into(),
            pfn_limit: 1,
            nics: Vec::new(),
            disks: Vec::new(),
            config,
        }
    }

    #[test]
    fn a_finding_is_a_line() {
        let good = Finding::ok("clock", "equal");
        assert_eq!(line(&good), "ok       clock: equal");
        let bad = Finding::failure("disk", "gone", "put it back");
        assert_eq!(line(&bad), "failure  disk: gone; put it back");
        let object = json!({ "about": "disk", "verdict": "failure", "text": "gone", "remedy": "put it back" });
        assert_eq!(as_json(&bad), object);
        assert_eq!(as_json(&good)["remedy"], serde_json::Value::Null);
    }

    #[test]
    fn a_peer_that_does_not_listen() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let finding = ask(&address, &spec(1)).unwrap_err();
        assert_eq!((finding.about, finding.verdict), ("peer", Verdict::Failure));
        assert!(finding.text.contains(&address), "{finding:?}");
        assert!(finding.remedy.unwrap().starts_with("start `colo secondary --listen` there"));
    }

    #[test]
    fn a_configuration_that_does_not_fit() {
        let finding = ask("127.0.0.1:1", &spec(DomainSpec::MAX_CONFIG_BYTES + 1)).unwrap_err();
        assert_eq!(finding.text, "the domain's configuration has 65537 bytes: the limit is 65536");
    }
}
