//! Boots real Xen hosts in QEMU, without hardware virtualisation, and tries `colo` on them. `README.md` says how.

mod client;
mod console;
mod context;
mod control;
mod cpio;
mod disk;
mod elf;
mod examine;
mod guest;
mod host;
mod image;
mod interrupt;
mod kernel;
mod logs;
mod lun;
mod modules;
mod net;
mod packages;
mod process;
mod programs;
mod protect;
mod qemu;
mod random;
mod records;
mod residue;
mod scenarios;
mod transfer;
mod verify;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use context::{Context, Options};
use host::{Host, HostConfig};
use process::{Reason, Stopper};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use scenarios::{SCENARIOS, Scenario};
use std::process::ExitCode;
use std::time::Duration;

/// Boots real Xen hosts in QEMU and tries colo on them
#[derive(Parser)]
#[command(bin_name = "testbed/run")]
struct Cli {
    /// Scenarios by their names; or `list`, which shows them; or `all`; or `shell`, which is one host with a shell in its dom0 on
    /// this terminal
    #[arg(required = true)]
    what: Vec<String>,
    /// With `shell`: run this in dom0 instead, and switch the host off
    #[arg(long, short = 'c', value_name = "COMMAND")]
    command: Option<String>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let words: Vec<&str> = cli.what.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["list"] => {
            list();
            Ok(())
        }
        ["shell"] => shell(cli.command.as_deref(), &cli.options),
        ["all"] => run_all(&SCENARIOS.iter().collect::<Vec<_>>(), &cli.options),
        _ => find(&words).and_then(|scenarios| run_all(&scenarios, &cli.options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    for scenario in SCENARIOS {
        let about = if scenario.needs_root { format!("{} (root)", scenario.about) } else { scenario.about.into() };
        println!("{:<18} {about}", scenario.name);
    }
}

fn find(names: &[&str]) -> Result<Vec<&'static Scenario>> {
    let find = |name: &&str| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == *name);
        found.with_context(|| format!("there is no scenario {name}: `testbed/run list` shows them"))
    };
    names.iter().map(find).collect()
}

/// Runs them all, also if one fails; but not if somebody wants an end.
fn run_all(scenarios: &[&Scenario], options: &Options) -> Result<()> {
    let mut failed = Vec::new();
    for scenario in scenarios {
        println!("== {}", scenario.name);
        let stopper = Stopper::default();
        if let Err(error) = run(scenario, options, &stopper) {
            eprintln!("testbed: {}: {error:#}", scenario.name);
            failed.push(scenario.name);
        }
        if matches!(stopper.reason(), Some(Reason::Signal(_))) {
            bail!("interrupted");
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn run(scenario: &Scenario, options: &Options, stopper: &Stopper) -> Result<()> {
    if scenario.needs_root && !rustix::process::geteuid().is_root() {
        bail!("two hosts need a network between them, which only root can make");
    }
    let limit = options.limit_s.map_or(scenario.limit, Duration::from_secs);
    within(scenario.name, options, stopper, Some(limit), |context| {
        (scenario.run)(context)?;
        context.figure("in all", context.elapsed());
        Ok(())
    })
}

/// Prepares a run, and bounds it.
fn within(
    name: &str,
    options: &Options,
    stopper: &Stopper,
    limit: Option<Duration>,
    run: impl FnOnce(&Context) -> Result<()>,
) -> Result<()> {
    let attempt = || {
        // Downloads and builds have limits of their own.
        let watchdog = stopper.watch(None)?;
        let mut context = Context::prepare(name, options, stopper)?;
        drop(watchdog);
        let _watchdog = stopper.watch(limit)?;
        run(&context)?;
        context.set_good();
        Ok(())
    };
    let result = attempt();
    match stopper.reason() {
        // What fails then is but what was stopped.
        Some(reason @ Reason::Signal(_)) => bail!("{reason}"),
        Some(reason) => result.context(reason),
        None => result,
    }
}

fn shell(command: Option<&str>, options: &Options) -> Result<()> {
    let stopper = Stopper::default();
    if let Some(command) = command {
        return within("shell", options, &stopper, None, |context| {
            let host = Host::boot(context, HostConfig::alone())?;
            let done = host.try_sh(command, SHELL_LIMIT)?;
            print!("{}", done.stdout);
            eprint!("{}", done.stderr);
            host.stop()?;
            ensure!(done.is_good(), "{:?}", done.outcome);
            Ok(())
        });
    }
    let terminal = tcgetattr(std::io::stdin()).context("a shell needs a terminal; see --command")?;
    let _restored = RestoredTerminal(terminal);
    within("shell", options, &stopper, None, |context| {
        let config = HostConfig { has_shell: true, ..HostConfig::alone() };
        let mut host = Host::boot(context, config)?;
        host.wait_end(SHELL_LIMIT)
    })
}

/// As long as a working day.
const SHELL_LIMIT: Duration = Duration::from_secs(8 * 3600);

/// QEMU changes the terminal, and does not change it back when it is killed.
struct RestoredTerminal(Termios);

impl Drop for RestoredTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
