//! A client with one connection to the guest's ledger: one entry after the other, as fast as they are answered. What was answered is in
//! the database and in the log when all is over, and nothing else; and the database's own check finds nothing.

use super::record::Record;
use super::{Client, PATIENCE, Stop, explain};
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::{bytes, ports};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

pub(super) const NAME: &str = "ledger";

/// The longest answer: all entries of a long run.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Bytes of a text, of which each is two digits. An entry fills blocks of its own then, in the database and in the log, and no later one
/// writes them again: what is lost of it stays lost, and is found.
const TEXT_BYTES: usize = 1500;

pub(super) struct Keeper;

impl Client for Keeper {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let mut connection = Connection::open(guest)?;
        // What another client has left there must still be there in the end, too.
        let mut entries = connection.ask("rows")?;
        for (number, there) in (1..).zip(&entries) {
            ensure!(*there == entry(number), "entry {number} is {there:.40?} when this client begins");
        }
        while !stop.is_set() {
            let entry = entry(entries.len() as u64 + 1);
            let asked = Instant::now();
            record.ask(asked);
            let answer = connection.ask(&format!("put {entry}"))?;
            ensure!(answer.is_empty(), "put: the answer is {answer:?}");
            record.answer(asked, Instant::now());
            entries.push(entry);
            record.remark(format!("{} entries", entries.len()));
        }
        record.fall_silent(Instant::now());
        ensure_same(&entries, &connection.ask("rows")?).context("the database")?;
        ensure_same(&entries, &connection.ask("log")?).context("the log")?;
        let check = connection.ask("check")?;
        ensure!(check == ["ok"], "the database's own check says {}", check.join("; "));
        Ok(())
    }
}

/// The entry with this number, and its text, which follows from that.
fn entry(number: u64) -> String {
    let mut text = [0; TEXT_BYTES];
    bytes::fill(number * TEXT_BYTES as u64, &mut text);
    text.iter().fold(format!("{number} "), |entry, byte| format!("{entry}{byte:02x}"))
}

/// Whether there is what was acknowledged, and nothing else: while there is one entry after the other, none is on its way when all are
/// asked for.
fn ensure_same(acknowledged: &[String], there: &[String]) -> Result<()> {
    let first = acknowledged.iter().zip(there).position(|(ours, theirs)| ours != theirs);
    let at = first.unwrap_or(acknowledged.len().min(there.len()));
    // They are long.
    let short = |entry: Option<&String>| entry.map(|entry| entry.chars().take(20).collect::<String>());
    ensure!(
        acknowledged == there,
        "{} entries were acknowledged and {} are there; from entry {} on they differ: {:?} was acknowledged, and {:?} is there",
        acknowledged.len(),
        there.len(),
        at + 1,
        short(acknowledged.get(at)),
        short(there.get(at))
    );
    Ok(())
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(guest: Ipv4Addr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&(guest, ports::LEDGER).into(), PATIENCE).map_err(explain)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Asks for something, and returns the answer's lines.
    fn ask(&mut self, request: &str) -> Result<Vec<String>> {
        let what = || request.split_whitespace().next().unwrap_or_default().to_owned();
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).map_err(explain).with_context(what)?;
        read_answer(&mut self.0).with_context(what)
    }
}

/// The lines up to the one that says that all is done.
fn read_answer(from: &mut impl BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut from = from.take(MAX_ANSWER_BYTES);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).map_err(explain)?;
        match line.strip_suffix('\n') {
            Some("done") => return Ok(lines),
            Some(line) if line.starts_with("failed: ") || line == "what?" => bail!("the guest says {line:?}"),
            Some(line) => lines.push(line.to_owned()),
            None if line.is_empty() => bail!("the connection was closed"),
            None => bail!("{line:?} does not end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_differ_and_can_be_put() {
        let (first, second) = (entry(1), entry(2));
        assert!(first.starts_with("1 ") && second.starts_with("2 "));
        assert_eq!(first.len(), 2 + 2 * TEXT_BYTES);
        assert_ne!(first[2..], second[2..]);
        assert!(first[2..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(first, entry(1));
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let why = |text: &str| read_answer(&mut text.as_bytes()).unwrap_err().to_string();
        assert_eq!(read_answer(&mut "done\nmore".as_bytes()).unwrap(), Vec::<String>::new());
        assert_eq!(read_answer(&mut "1 x\n2 y\ndone\n".as_bytes()).unwrap(), ["1 x", "2 y"]);
        assert_eq!(why("1 x\n"), "the connection was closed");
        assert_eq!(why("1 x\ndo"), "\"do\" does not end");
        assert_eq!(why("failed: the disk is full\n"), "the guest says \"failed: the disk is full\"");
    }

    #[test]
    fn what_is_lost_too_much_or_changed_is_found() {
        let all: Vec<String> = (1..=3).map(entry).collect();
        ensure_same(&all, &all).unwrap();
        let why = |there: &[String]| ensure_same(&all, there).unwrap_err().to_string();
        assert!(
            why(&all[..2])
                .starts_with("3 entries were acknowledged and 2 are there; from entry 3 on they differ: Some(")
        );
        assert!(why(&all[1..]).contains("from entry 1 on"));
        assert!(why(&[&all[..], &[entry(4)]].concat()).contains("and 4 are there; from entry 4 on"));
        assert!(why(&[entry(1), entry(9), entry(3)]).contains("from entry 2 on"));
    }
}
