//! Compares the configuration that colo finds for a running domain with the one in an image that `xl save` has just written of it.
//! Needs a Xen host and root.
//!
//! ```text
//! xl_config DOMID UUID IMAGE [SCHEDULER WEIGHT CAP]
//! ```

use colo_core::ids::DomId;
use colo_core::xen::qmp::QmpClient;
use colo_core::xen::toolstack::{
    DomainConfig, DomainUuid, GuestType, LiveState, Scheduler, XenstoreView, Xl, emulator,
};
use serde_json::Value;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::process::Command;
use std::time::{Duration, Instant};

/// Xenstore by its command line tools.
struct Tools;

impl XenstoreView for Tools {
    fn read(&self, path: &str) -> io::Result<Option<String>> {
        let output = Command::new("xenstore-read").arg(path).output()?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let output = Command::new("xenstore-list").arg(path).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domid, uuid, image, scheduler @ ..] = &arguments[..] else { return Err("which domain, which image?".into()) };
    let (domain, uuid) = (DomId(domid.parse()?), DomainUuid::parse(uuid).ok_or("no UUID")?);
    let limit = Duration::from_secs(20);
    let scheduler = match scheduler {
        [name, weight, cap] => Some(Scheduler { name: name.clone(), weight: weight.parse()?, cap: cap.parse()? }),
        _ => None,
    };
    let stored = DomainConfig::stored(domain, uuid, Instant::now() + limit)?;
    let mut device_model_cpus = None;
    if stored.is_some_and(|config| config.guest_type() == GuestType::Hvm) {
        let mut qmp = QmpClient::connect_domain(domain, uuid, limit)?;
        device_model_cpus = Some(qmp.query_cpus()?);
        println!("device model: {:?}, {:?}", qmp.query_status()?, emulator::physmap(domain, &Tools)?);
        qmp.stop()?;
        let begun = Instant::now();
        println!("state of {} bytes in {} us", emulator::device_state(&mut qmp)?.len(), begun.elapsed().as_micros());
        qmp.cont()?;
    }
    let live = LiveState { uuid, device_model_cpus, scheduler };
    let xl = Xl::find()?;
    let ours = DomainConfig::current(domain, &live, &Tools, &xl, Instant::now() + limit)?;
    let listed = DomainConfig::parse_list(xl.configuration(domain)?.as_bytes())?;
    println!("{} {:?} {:?} {:?} {:?}", ours.name(), ours.guest_type(), ours.online_vcpus(), ours.nics(), ours.disks());

    let mut header = [0; 52];
    let mut file = File::open(image)?;
    file.read_exact(&mut header)?;
    let mut theirs = vec![0; u32::from_le_bytes(header[48..].try_into()?).min(1 << 20) as usize];
    file.read_exact(&mut theirs)?;
    let theirs: Value = serde_json::from_slice(theirs.strip_suffix(&[0]).unwrap_or(&theirs))?;
    let mine: Value = serde_json::from_slice(&ours.to_json())?;
    println!("stored or looked up as xl saves it: {}; as xl lists it: {}", mine == theirs, ours == listed);
    if mine != theirs {
        println!("ours:   {mine}\nxl's:   {theirs}");
    }
    Ok(())
}
