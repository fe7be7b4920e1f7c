//! `colo disk verify`.

use crate::args::DiskControlArgs;
use crate::output::{FAILED, UNPROTECTED, print_json};
use crate::progress::Progress;
use anyhow::{Context, Result};
use colo_core::disk::control::{Comparing, ControlError, Observer};
use colo_core::disk::{Compared, Difference, Rate};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn run(args: &DiskControlArgs, as_json: bool) -> Result<ExitCode> {
    let path = args.control.display().to_string();
    let mut observer = Observer::connect(&args.control)?;
    let (mut rate, mut progress) = (Rate::default(), Progress::default());
    let compared = observer.verify(|comparing| {
        rate.observe(Instant::now(), comparing.done_bytes);
        tell_progress(&mut progress, comparing, &rate, as_json);
    });
    progress.end();
    let compared = match compared {
        Err(ControlError::NotProtected(why)) => {
            eprintln!("colo: {path}: {why}");
            return Ok(ExitCode::from(UNPROTECTED));
        }
        compared => compared.context(path)?,
    };
    if as_json {
        print_json(&compared_json(&compared));
    } else {
        // Nobody who does not listen any more is bothered.
        let _ = io::stdout().lock().write_all(told(&compared).as_bytes());
    }
    Ok(if compared.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn tell_progress(progress: &mut Progress, comparing: Comparing, rate: &Rate, as_json: bool) {
    let Comparing { done_bytes, all_bytes, differing_parts } = comparing;
    let pace = rate.pace(all_bytes);
    let rest = pace.map_or(String::new(), |pace| pace.to_string());
    let [done, all] = [done_bytes, all_bytes].map(|bytes| bytes >> 20);
    let differ = if differing_parts == 1 { "part differs" } else { "parts differ" };
    let mut text = format!("comparing disks: {done} of {all} MiB, {differing_parts} {differ}");
    if !rest.is_empty() {
        text = format!("{text}; {rest}");
    }
    if !as_json {
        return progress.tell("comparing", done_bytes, all_bytes, &text, &rest);
    }
    print_json(&json!({"event": "verifying", "done_bytes": done_bytes, "all_bytes": all_bytes,
        "differing_parts": differing_parts, "bytes_per_second": pace.map(|pace| pace.bytes_per_second),
        "left_s": pace.and_then(|pace| pace.left).map(|left| left.as_secs()), "text": text}));
}

/// What was found, and what to do about it.
fn told(compared: &Compared) -> String {
    let bytes = compared.compared_bytes;
    if compared.is_equal() {
        return format!("both hosts have the same: {bytes} bytes were compared\n");
    }
    let mut text: String = compared.differences.iter().map(|difference| line(difference) + "\n").collect();
    let parts = compared.differing_parts;
    if compared.differences.len() == Compared::MAX_DIFFERENCES {
        text += "(no more are told)\n";
    }
    text + &format!(
        "{parts} of {} parts differ, in {bytes} bytes. Nothing was changed: to put it right end protection, and begin anew, which copies \
         what differs\n",
        bytes.div_ceil(PART_BYTES)
    )
}

/// What is compared at a time.
const PART_BYTES: u64 = colo_core::peer::HASHED_BYTES as u64;

fn line(Difference { disk, range, is_unreadable }: &Difference) -> String {
    let what = if *is_unreadable { "cannot be read on the secondary" } else { "differs" };
    format!("disk {disk} {what} at byte {}, for {} bytes", range.start, range.end - range.start)
}

fn compared_json(compared: &Compared) -> Value {
    let difference = |Difference { disk, range, is_unreadable }: &Difference| json!({"disk": disk, "offset": range.start, "length": range.end - range.start, "is_unreadable": is_unreadable});
    let differences: Vec<_> = compared.differences.iter().map(difference).collect();
    json!({"event": "verified", "is_equal": compared.is_equal(), "compared_bytes": compared.compared_bytes,
        "differing_parts": compared.differing_parts, "differences": differences, "text": told(compared).trim_end()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_with_what_to_do() {
        let difference = |disk, range, is_unreadable| Difference { disk, range, is_unreadable };
        let differences = vec![difference(0, 65_536..196_608, false), difference(1, 0..4096, true)];
        let text = told(&Compared { compared_bytes: 200_704, differing_parts: 3, differences });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "disk 0 differs at byte 65536, for 131072 bytes");
        assert_eq!(lines[1], "disk 1 cannot be read on the secondary at byte 0, for 4096 bytes");
        assert!(lines[2].starts_with("3 of 4 parts differ") && lines.len() == 3, "{text}");
        let many = vec![difference(0, 0..1, false); Compared::MAX_DIFFERENCES];
        let text = told(&Compared { compared_bytes: 1, differing_parts: 99, differences: many });
        assert!(text.contains("(no more are told)"));
    }
}
