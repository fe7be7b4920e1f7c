//! `colo why`: what differed at each miscompare of a recording.
//!
//! What a damaged file has before it ends in disorder is told; then one line on stderr says where and what, and the exit code is 1.

use crate::args::WhyArgs;
use crate::source::{open, wrote};
use anyhow::{Context, Result};
use colo_core::record::{Difference, Explanation, Miscompare, RecordReader, explain};
use serde_json::{Value, json};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn run(args: &WhyArgs, json: bool) -> Result<ExitCode> {
    let name = args.file.display().to_string();
    let mut out = BufWriter::new(io::stdout().lock());
    let told = open(&args.file).and_then(|source| tell_all(BufReader::new(source), json, &name, &mut out));
    // What came before a fault is printed before it.
    let flushed = out.flush();
    told.context(name)?;
    wrote(flushed)?;
    Ok(ExitCode::SUCCESS)
}

fn tell_all(source: impl Read, json: bool, name: &str, out: &mut impl Write) -> Result<()> {
    let mut reader = RecordReader::new(source);
    let mut count = 0;
    while let Some(miscompare) = reader.next_miscompare()? {
        count += 1;
        let explanation = explain(&miscompare);
        let written = match json {
            true => writeln!(out, "{}", as_json(&miscompare, &explanation)),
            false => write_text(out, &miscompare, &explanation),
        };
        if !wrote(written)? {
            return Ok(());
        }
    }
    if count == 0 && !json {
        wrote(writeln!(out, "{name}: no miscompares"))?;
    }
    Ok(())
}

/// The heading, what was said of it then, and what differs.
fn write_text(out: &mut impl Write, miscompare: &Miscompare, explanation: &Explanation) -> io::Result<()> {
    write!(out, "miscompare {}, {} UTC", miscompare.number, Utc::of(miscompare.time).text(' '))?;
    if let Some(epoch) = miscompare.epoch {
        write!(out, ", {epoch}")?;
    }
    writeln!(out, "\n  {}", printable(&miscompare.what))?;
    let here = frames_here(miscompare);
    if here < miscompare.frames {
        writeln!(out, "  only {here} of its {} frames are in the file", miscompare.frames)?;
    }
    for line in explanation.to_string().lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

fn as_json(miscompare: &Miscompare, explanation: &Explanation) -> Value {
    json!({
        "miscompare": miscompare.number,
        "time": Utc::of(miscompare.time).text('T') + "Z",
        "epoch": miscompare.epoch.map(|epoch| epoch.0),
        "what": miscompare.what,
        "frames": miscompare.frames,
        "frames_in_file": frames_here(miscompare),
        "differences": explanation.differences.iter().map(difference_json).collect::<Vec<_>>(),
        "text": explanation.to_string(),
    })
}

fn difference_json(difference: &Difference) -> Value {
    let place = difference.place;
    let side = |frame: Option<usize>, offset: Option<usize>, value: &Option<String>, index: usize| {
        let around = difference.excerpts.as_ref().map(|excerpts| excerpts[index].to_string());
        json!({"value": value, "frame": frame, "offset": offset, "around": around})
    };
    json!({
        "protocol": difference.protocol,
        "field": difference.field,
        "payload_offset": place.payload_offset,
        "sequence_number": place.sequence_number.map(|number| number.0),
        "primary": side(place.primary_frame, place.primary_offset, &difference.primary, 0),
        "secondary": side(place.secondary_frame, place.secondary_offset, &difference.secondary, 1),
    })
}

fn frames_here(miscompare: &Miscompare) -> usize {
    miscompare.primary.len() + miscompare.secondary.len()
}

/// The text is the file's own, and a terminal obeys what it gets.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A moment as people count it.
struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
    nanos: u32,
}

impl Utc {
    const DAY: u64 = 24 * 3600;

    fn of(time: SystemTime) -> Utc {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (mut days, second) = (since.as_secs() / Self::DAY, since.as_secs() % Self::DAY);
        let mut year = 1970;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        Utc { year, month, day: days + 1, second, nanos: since.subsec_nanos() }
    }

    fn text(&self, separator: char) -> String {
        let Utc { year, month, day, second, nanos } = self;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}.{nanos:09}")
    }
}

fn days_of_year(year: u64) -> u64 {
    (1..=12).map(|month| days_of_month(year, month)).sum()
}

fn days_of_month(year: u64, month: u64) -> u64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_told_as_people_count_them() {
        // As `date -u -d @N` says.
        let moments = [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (18_446_744_073, "2554-07-21 23:34:33"),
        ];
        for (seconds, text) in moments {
            let time = UNIX_EPOCH + Duration::new(seconds, 12);
            assert_eq!(Utc::of(time).text(' '), format!("{text}.000000012"));
        }
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(printable("payload \u{1b}[2J\ndiffers"), "payload \u{fffd}[2J\u{fffd}differs");
    }
}
