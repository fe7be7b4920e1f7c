//! What a guest has on its disk: a table in a database, and a log of the same beside it. Debian's `sqlite3` is the database, with its
//! usual settings: a rollback journal, which is made, flushed, and removed again with each transaction. So each of them needs several
//! flushes and writes in the right order, of the file system's own records too; a write-ahead log would need one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const DATABASE: &str = "ledger.db";
const LOG: &str = "log";
/// A text is not longer than that.
const MAX_TEXT_BYTES: usize = 4096;
/// What `sqlite3` says after each answer. No row is like it.
const END: &str = "end";
/// Full synchronisation is usual, too, and said all the same: it is what a client relies on. The column that is unique has an index, which
/// the database's own check compares with the table.
const MAKE: &str = "PRAGMA synchronous=FULL; \
    CREATE TABLE IF NOT EXISTS ledger (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);";

/// What can be asked of a ledger, in a line.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// `put NUMBER TEXT`: an entry, in a transaction of its own.
    Put(u64, String),
    /// `check`: the database's own check.
    Check,
    /// `rows`: all entries of the database.
    Rows,
    /// `log`: all entries of the log.
    Log,
}

impl Request {
    /// Nothing else than what is harmless in a statement is a text.
    pub(crate) fn parse(line: &str) -> Option<Request> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["put", number, text] => {
                let is_harmless = text.len() <= MAX_TEXT_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                Some(Request::Put(number.parse().ok().filter(|_| is_harmless)?, text.into()))
            }
            ["check"] => Some(Request::Check),
            ["rows"] => Some(Request::Rows),
            ["log"] => Some(Request::Log),
            _ => None,
        }
    }
}

/// A ledger that is open. What it has answered is on the disk.
pub(crate) struct Ledger {
    sqlite: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    log: File,
    log_path: PathBuf,
}

impl Ledger {
    /// Opens the ledger in a folder, or makes it.
    pub(crate) fn open(folder: &Path) -> io::Result<Ledger> {
        let mut sqlite = Command::new("/usr/bin/sqlite3");
        // It ends with the first error: what it says after that could be taken for an answer.
        sqlite.args(["-batch", "-bail", "-init", "/dev/null"]).arg(folder.join(DATABASE));
        let mut ledger = Ledger::over(sqlite, folder)?;
        ledger.ask(MAKE)?;
        Ok(ledger)
    }

    /// Over a program that is spoken to as `sqlite3` is.
    fn over(mut sqlite: Command, folder: &Path) -> io::Result<Ledger> {
        let mut sqlite = sqlite.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(to), Some(from)) = (sqlite.stdin.take(), sqlite.stdout.take()) else {
            return Err(io::Error::other("sqlite3 without its pipes"));
        };
        let log_path = folder.join(LOG);
        let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
        // A file may be on the disk, and its name not.
        File::open(folder)?.sync_all()?;
        Ok(Ledger { sqlite, to, from: BufReader::new(from), log, log_path })
    }

    /// Does what is asked for, and returns the lines of the answer.
    pub(crate) fn answer(&mut self, request: &Request) -> io::Result<Vec<String>> {
        match request {
            Request::Put(number, text) => {
                self.log.write_all(format!("{number} {text}\n").as_bytes())?;
                self.log.sync_data()?;
                self.ask(&format!("INSERT INTO ledger VALUES({number},'{text}');"))
            }
            Request::Check => self.ask("PRAGMA integrity_check;"),
            Request::Rows => self.ask("SELECT number || ' ' || text FROM ledger ORDER BY number;"),
            Request::Log => Ok(fs::read_to_string(&self.log_path)?.lines().map(str::to_owned).collect()),
        }
    }

    /// Closes it.
    pub(crate) fn close(self) -> io::Result<()> {
        let Ledger { mut sqlite, to, .. } = self;
        drop(to);
        let status = sqlite.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("sqlite3 ends with {status}"))) }
    }

    /// Has some statements done, on one line, and returns what they print.
    fn ask(&mut self, statements: &str) -> io::Result<Vec<String>> {
        // It waits for its output to be read before it reads on, so there is never more than one line on the way.
        self.to.write_all(format!("{statements} SELECT '{END}';\n").as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                // Why, it has said on the console.
                return Err(io::Error::other(format!("sqlite3 has ended at {statements:?}")));
            }
            match line.trim_end() {
                END => return Ok(lines),
                line => lines.push(line.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood() {
        assert_eq!(Request::parse("put 7 x9\r"), Some(Request::Put(7, "x9".into())));
        assert_eq!(Request::parse("check"), Some(Request::Check));
        assert_eq!(Request::parse("rows"), Some(Request::Rows));
        assert_eq!(Request::parse("log"), Some(Request::Log));
        let long = format!("put 7 {}", "x".repeat(MAX_TEXT_BYTES + 1));
        for line in ["", "put", "put 7", "put -7 x", "put 7 x y", "put 7 x');", "rows 7", &long] {
            assert_eq!(Request::parse(line), None, "{line}");
        }
    }

    /// A ledger over a shell script, in a folder of its own.
    fn scripted(name: &str, script: &str) -> (Ledger, PathBuf) {
        let folder = std::env::temp_dir().join(format!("colo-testbed-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        (Ledger::over(shell, &folder).unwrap(), folder)
    }

    #[test]
    fn an_answer_has_an_end() {
        let (mut ledger, folder) = scripted("ledger", "while read -r line; do echo \"$line\"; echo 2; echo end; done");
        let put = Request::Put(7, "x".into());
        assert_eq!(ledger.answer(&put).unwrap(), ["INSERT INTO ledger VALUES(7,'x'); SELECT 'end';", "2"]);
        assert_eq!(ledger.answer(&Request::Check).unwrap(), ["PRAGMA integrity_check; SELECT 'end';", "2"]);
        assert_eq!(ledger.answer(&Request::Log).unwrap(), ["7 x"]);
        ledger.close().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_database_that_ends_gives_no_answer() {
        let (mut ledger, folder) = scripted("ledger-ends", "read -r line; echo half; exit 3");
        let error = ledger.answer(&Request::Check).unwrap_err();
        assert_eq!(error.to_string(), "sqlite3 has ended at \"PRAGMA integrity_check;\"");
        assert!(ledger.close().unwrap_err().to_string().contains('3'));
        fs::remove_dir_all(folder).unwrap();
    }
}
