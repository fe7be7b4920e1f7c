//! What a scenario is run with: the images, a folder for what the run leaves behind, its limits, its figures.

use crate::guest::GuestType;
use crate::image;
use crate::packages::Packages;
use crate::process::Stopper;
use crate::programs;
use crate::protect::{Mode, Tool};
use crate::random::Random;
use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What may be chosen for a run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Guests of these types only, separated by commas
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<GuestType>,
    /// Where packages, images and runs are kept [default: `testbed` in cargo's target directory]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// A folder with `colo`, `dom0-agent` and `guest-init`, instead of building them
    #[arg(long, value_name = "FOLDER")]
    pub(crate) programs: Option<PathBuf>,
    /// End a scenario after so many seconds, instead of after what is usual for it
    #[arg(long = "limit", value_name = "SECONDS")]
    pub(crate) limit_s: Option<u64>,
    /// The seed of all that a scenario leaves to chance, as a run has printed it [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// How long a guest is protected, in scenarios that protect one
    #[arg(long = "seconds", value_name = "SECONDS", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// What protects it
    #[arg(long, value_enum, default_value_t = Tool::Colo)]
    pub(crate) protector: Tool,
    /// How it is protected
    #[arg(long, value_enum, default_value_t = Mode::Colo)]
    pub(crate) mode: Mode,
    /// Between two checkpoints, at the latest [default: what is usual for what protects it; 200 for xl]
    #[arg(long = "interval", value_name = "MS")]
    pub(crate) interval_ms: Option<u64>,
    /// Between two heartbeats of colo's; five missed are a death [default: what is usual; a busy machine needs more]
    #[arg(long = "heartbeat", value_name = "MS")]
    pub(crate) heartbeat_ms: Option<u64>,
    /// How many vCPUs a guest has that is protected
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) vcpus: u32,
    /// Compare the memory on both hosts after each checkpoint
    #[arg(long)]
    pub(crate) verify: bool,
    /// How often its host is killed, in `failover`
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub(crate) times: u32,
    /// Keep what the run leaves behind (logs, consoles, the folder shared with dom0), though it succeeds
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How folders of sockets are called.
const SOCKETS: &str = "colo-testbed-run-";

/// A run of one scenario.
pub(crate) struct Context {
    options: Options,
    stopper: Stopper,
    packages: Packages,
    run_folder: PathBuf,
    /// Paths of sockets must be short.
    sockets: PathBuf,
    begun: Instant,
    is_good: bool,
}

impl Context {
    /// Fetches and builds what is missing, and makes a folder for this run.
    pub(crate) fn prepare(scenario: &str, options: &Options, stopper: &Stopper) -> Result<Context> {
        let cache = match &options.cache {
            Some(cache) => cache.clone(),
            None => programs::target_folder(stopper)?.join("testbed"),
        };
        fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        let cache = cache.canonicalize()?;
        // Another testbed may want to make the same.
        let lock = File::create(cache.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let packages = Packages::fetch(&cache, stopper)?;
        let programs = match &options.programs {
            Some(folder) => folder.clone(),
            None => {
                let folder = cache.join("programs");
                programs::build(cache.parent().context("the cache lies nowhere")?, &folder, stopper)?;
                folder
            }
        };
        let images = cache.join("images");
        image::make(&images, &packages, &programs.join(programs::GUEST_INIT), stopper)?;
        let runs = cache.join("runs");
        fs::create_dir_all(&runs)?;
        // So the last failure can be looked at until the next run.
        remove_ended(&runs, "")?;
        remove_ended(&std::env::temp_dir(), SOCKETS)?;
        let run_folder = runs.join(format!("{scenario}-{}", std::process::id()));
        let own_images = run_folder.join("images");
        fs::create_dir_all(&own_images)?;
        for file in image::FILES {
            fs::hard_link(images.join(file), own_images.join(file))?;
        }
        for program in [programs::COLO, programs::AGENT] {
            fs::copy(programs.join(program), own_images.join(program)).with_context(|| program.to_owned())?;
        }
        let sockets = std::env::temp_dir().join(format!("{SOCKETS}{scenario}-{}", std::process::id()));
        fs::create_dir(&sockets).with_context(|| sockets.display().to_string())?;
        Ok(Context {
            options: options.clone(),
            stopper: stopper.clone(),
            packages,
            run_folder,
            sockets,
            begun: Instant::now(),
            is_good: false,
        })
    }

    /// The types of guests that are asked for: all, if none is.
    pub(crate) fn guest_types(&self) -> Vec<GuestType> {
        if self.options.types.is_empty() { GuestType::ALL.to_vec() } else { self.options.types.clone() }
    }

    /// What may be chosen, and was.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Chance; its seed is printed, so that it can be had again.
    pub(crate) fn random(&self) -> Random {
        let seed = self.options.seed.unwrap_or_else(Random::any_seed);
        println!("{:<48} {seed:8}", "seed");
        Random::new(seed)
    }

    /// The `colo` of this run, for this machine.
    pub(crate) fn colo(&self) -> PathBuf {
        self.images().join(programs::COLO)
    }

    /// What ends the run's processes.
    pub(crate) fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// The packages, unpacked.
    pub(crate) fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Where this run's logs are.
    pub(crate) fn run_folder(&self) -> &Path {
        &self.run_folder
    }

    /// The images as this run sees them, whatever others make of them meanwhile.
    pub(crate) fn images(&self) -> PathBuf {
        self.run_folder.join("images")
    }

    /// A path for a socket: short, and this run's own.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(name)
    }

    /// Says what happens, for whoever waits.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("testbed: {:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// How long the run has gone on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Prints a figure.
    pub(crate) fn figure(&self, name: &str, value: Duration) {
        println!("{name:<48} {:8.2} s", value.as_secs_f64());
    }

    /// Prints figures of one thing.
    pub(crate) fn figures(&self, name: &str, values: &[(&str, Duration)]) {
        let values = values.iter().map(|(what, value)| format!("{what} {:6.2} s", value.as_secs_f64()));
        println!("{name:<64} {}", values.collect::<Vec<_>>().join("  "));
    }

    /// Prints a figure that is no time.
    pub(crate) fn figure_of(&self, name: &str, value: u64, unit: &str) {
        println!("{name:<48} {value:8} {unit}");
    }

    /// The run has succeeded.
    pub(crate) fn set_good(&mut self) {
        self.is_good = true;
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.sockets);
        if self.is_good && !self.options.keep {
            let _ = fs::remove_dir_all(&self.run_folder);
        } else {
            // Large, and the same for all runs.
            let _ = fs::remove_dir_all(self.images());
            eprintln!("testbed: logs are in {}", self.run_folder.display());
        }
    }
}

/// Removes what runs have left behind whose process is gone.
fn remove_ended(folder: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(prefix)?.rsplit_once('-'));
        let pid: Option<u32> = name.and_then(|(_, pid)| pid.parse().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // It may belong to another user, or be gone by now.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
