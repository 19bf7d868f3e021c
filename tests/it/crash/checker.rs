//! Runs `tests/checker/check.py`.

use super::workload::Database;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The bugs that `check.py --plant` knows.
pub(crate) const PLANTS: [&str; 11] = [
    "dropped",
    "swapped",
    "early-ack",
    "ghost",
    "phantom",
    "lost-key-change-delete",
    "lost-tombstone",
    "rewritten",
    "torn",
    "wrong-value",
    KEPT_IN_PART,
];

/// What a broker may do that is killed.
pub(crate) const KEPT_IN_PART: &str = "kept-in-part";

/// What the checker prints if the records contain none on which this bug can be planted.
pub(crate) const NOTHING_TO_PLANT: &str = "nothing to plant this bug on";

/// What the checker looks at.
pub(crate) enum Source<'a> {
    /// Topics by prefix, and tables; a copy of what was read is kept in `save`.
    Live { bootstrap: String, topics: String, database: &'a Database, save: PathBuf },
    /// A queue of RabbitMQ, which is empty afterwards, and tables; a copy of what was read is kept in `save`.
    Queue { url: String, queue: String, database: &'a Database, save: PathBuf },
    /// What was kept.
    Saved(PathBuf),
}

/// One question to the checker.
pub(crate) struct Checker<'a> {
    pub(crate) source: Source<'a>,
    /// How often it may have gone back.
    pub(crate) restarts: u64,
    /// How much may have come again in all.
    pub(crate) repeated_bytes_max: u64,
    /// Whether the broker was killed and kept in part what it had not confirmed.
    pub(crate) holes: bool,
    /// Whether changes that nobody received are told by their last state alone.
    pub(crate) scans: bool,
    /// Whether a row that is read may be newer than its place in the log: the server's snapshots are not exact.
    pub(crate) late_reads: bool,
    /// Rules that the run does not promise.
    pub(crate) excepted: &'static [&'static str],
}

impl Checker<'_> {
    /// The checker's report, as an error where a promise is broken.
    pub(crate) fn check(&self) -> Result<String, String> {
        self.check_with(None)
    }

    /// The same of what a bug would have made of it; [`NOTHING_TO_PLANT`] where it cannot have befallen any record.
    pub(crate) fn check_with(&self, plant: Option<&str>) -> Result<String, String> {
        let mut command = python("check.py");
        match &self.source {
            Source::Live { bootstrap, topics, database, save } => {
                command.args(["--bootstrap", bootstrap, "--topics", topics]);
                command.args(database.arguments()).arg("--save").arg(save);
            }
            Source::Queue { url, queue, database, save } => {
                command.args(["--amqp", url, "--queue", queue]).args(database.arguments()).arg("--save").arg(save);
            }
            Source::Saved(directory) => {
                command.arg("--records").arg(directory.join("records.jsonl"));
                command.arg("--rows").arg(directory.join("rows.json"));
            }
        }
        command.args(["--restarts", &self.restarts.to_string()]);
        command.args(["--repeated-bytes-max", &self.repeated_bytes_max.to_string()]);
        if self.holes {
            command.arg("--holes");
        }
        if self.scans {
            command.arg("--scans");
        }
        if self.late_reads {
            command.arg("--late-reads");
        }
        command.args(self.excepted.iter().flat_map(|rule| ["--except", rule]));
        if let Some(plant) = plant {
            command.args(["--plant", plant]);
        }
        let output = run(&mut command);
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Ok(report),
            Some(1) if !report.is_empty() => Err(report),
            Some(3) => Err(NOTHING_TO_PLANT.to_owned()),
            _ => panic!("the checker could not look: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

/// Makes a small honest example there.
pub(crate) fn sample(directory: &Path) {
    let output = run(python("sample.py").arg(directory));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A script of the checker's.
pub(crate) fn python(script: &str) -> Command {
    // The system's, whose packages `tests/setup` installs.
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker").join(script));
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("run python3: run tests/setup")
}
