//! Writers in their own processes: `tests/checker/write.py`.

use super::checker::python;
use super::documents::{self, Shop};
use crate::children::ended;
use std::{
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

const LAST: &str = "INSERT INTO ledger (id, ver, changes) VALUES ('last', 1, 1)";

/// Where the shop's tables are.
pub(crate) enum Database {
    Sqlite(PathBuf),
    /// `psql` with all options but the statements.
    Postgres(Command),
    /// `mariadb` with all options but the statements.
    MySql(Command),
    /// MongoDB or RethinkDB.
    Documents(Shop),
}

impl Database {
    /// What the scripts are told.
    pub(crate) fn arguments(&self) -> [String; 2] {
        match self {
            Self::Sqlite(path) => ["--sqlite".to_owned(), path.display().to_string()],
            Self::Postgres(client) => ["--psql".to_owned(), words(client).join(" ")],
            Self::MySql(client) => ["--mysql".to_owned(), words(client).join(" ")],
            Self::Documents(shop) => ["--rows".to_owned(), shop.written_down().display().to_string()],
        }
    }

    /// Makes the tables and the first rows.
    pub(crate) fn create(&self, rows: u32, seed: u64) {
        if let Self::Documents(shop) = self {
            return shop.create(rows, seed);
        }
        let made = self.script().args(["--create", &rows.to_string(), "--seed", &seed.to_string()]).status();
        assert!(made.expect("run write.py").success(), "the tables are not made");
    }

    /// Writes the change by which the end is known.
    pub(crate) fn write_last(&self) {
        let written = match self {
            Self::Sqlite(path) => {
                let insert = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], timeout=60); d.execute(sys.argv[2]); d.commit()";
                Command::new("python3").args(["-c", insert]).arg(path).arg(LAST).status()
            }
            Self::Postgres(client) => Command::new(client.get_program()).args(client.get_args()).args(["-c", LAST]).status(),
            Self::MySql(client) => Command::new(client.get_program()).args(client.get_args()).args(["-e", LAST]).status(),
            Self::Documents(shop) => return shop.write_last(),
        };
        assert!(written.expect("write the last change").success(), "the last change is not written");
    }

    fn script(&self) -> Command {
        let mut command = python("write.py");
        command.args(self.arguments()).stdout(Stdio::null());
        command
    }
}

/// The words of a command line.
fn words(command: &Command) -> Vec<String> {
    [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A writer with this number.
fn writer(database: &Database, number: u32, rate: u32, seed: u64) -> Command {
    let mut command = database.script();
    command.args(["--writer", &number.to_string(), "--rate", &rate.to_string(), "--seed", &seed.to_string()]);
    command
}

/// Running writers.
pub(crate) enum Writers {
    /// `write.py`.
    Processes(Vec<Child>),
    /// Those of documents.
    Threads(documents::Writers),
}

impl Writers {
    /// Starts so many, each of so many transactions a second, which own disjoint keys, and between them most of the rows that are there before.
    pub(crate) fn start(database: &Database, count: u32, rate: u32, rows_before: u32, seed: u64) -> Self {
        if let Database::Documents(shop) = database {
            return Self::Threads(documents::Writers::start(shop, count, rate, rows_before, seed));
        }
        let start = |number: u32| {
            let mut command = writer(database, number, rate, seed);
            // One share is nobody's: rows that are only read.
            command.args(["--adopt", &rows_before.to_string(), &(number - 1).to_string(), &(count + 1).to_string()]);
            command.stdin(Stdio::piped()).spawn().expect("start write.py")
        };
        // The first number made the rows that were there before.
        Self::Processes((2..count + 2).map(start).collect())
    }

    /// Starts so many, with numbers from `first` on, which own only what they write.
    pub(crate) fn fresh(database: &Database, first: u32, count: u32, rate: u32, seed: u64) -> Self {
        let start = |number| writer(database, number, rate, seed).stdin(Stdio::piped()).spawn().expect("start write.py");
        Self::Processes((first..first + count).map(start).collect())
    }

    /// The processes. Threads end with their value.
    fn processes(&mut self) -> &mut [Child] {
        match self {
            Self::Processes(writers) => writers,
            Self::Threads(_) => &mut [],
        }
    }

    /// Ends them after the server that they write to.
    pub(crate) fn abandon(mut self) {
        for writer in self.processes() {
            drop(writer.stdin.take());
            ended(writer);
        }
    }

    /// Has them write at a tenth of their rate, or at all of it again.
    pub(crate) fn slow_down(&mut self, is_slow: bool) {
        if let Self::Threads(writers) = self {
            writers.slow_down(is_slow);
        }
        for writer in self.processes() {
            let stdin = writer.stdin.as_mut().expect("it has not ended");
            stdin.write_all(if is_slow { b"s" } else { b"f" }).expect("tell a writer");
        }
    }

    /// Lets each end its transaction.
    pub(crate) fn stop(mut self) {
        if let Self::Threads(writers) = &mut self {
            writers.stop();
        }
        for writer in self.processes() {
            drop(writer.stdin.take());
        }
        for writer in self.processes() {
            let status = ended(writer);
            assert!(status.success(), "a writer failed: {status}");
        }
    }
}

impl Drop for Writers {
    /// Writers end with their standard input, whether or not the test has come to its end.
    fn drop(&mut self) {
        for writer in self.processes() {
            drop(writer.stdin.take());
            if let Err(error) = writer.wait() {
                eprintln!("wait for a writer: {error}");
            }
        }
    }
}
