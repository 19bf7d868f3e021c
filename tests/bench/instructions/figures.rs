//! The recorded figures, and whether they still hold.

use super::callgrind::Taken;
use std::{fmt::Write as _, fs, process::Command, process::ExitCode};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/instructions.txt");
/// By how much a figure may differ, in either direction. A lower figure must be recorded too: otherwise a later rise would not be noticed.
const TOLERATED: f64 = 0.03;
/// Batches and the start allocate too, less than this for each event; an event that allocates does so at least once.
const ALLOCATIONS_MAX: f64 = 0.5;
const HEAD: &str = "# Instructions an event, counted by callgrind. Written by: BENCH_WRITE=1 make instructions\n";

/// Prints the allocations. Returns whether an event makes any.
pub(crate) fn allocates(taken: &[(String, Taken)]) -> bool {
    for (name, taken) in taken {
        println!("{name}: {:.3} allocations", taken.allocations);
    }
    taken.iter().any(|(_, taken)| ALLOCATIONS_MAX < taken.allocations)
}

/// Figures, with the versions of the compiler and of callgrind.
pub(crate) struct Figures {
    by: String,
    /// Instructions.
    counted: Vec<(String, f64)>,
}

impl Figures {
    /// Those of this run.
    pub(crate) fn new(taken: &[(String, Taken)]) -> Self {
        let counted = taken.iter().map(|(name, taken)| (name.clone(), taken.instructions)).collect();
        let versions = [("rustc", "--version"), ("cc", "--version"), ("ldd", "--version"), ("valgrind", "--version")];
        let versions = versions.map(|(program, argument)| first_line(program, argument));
        Self { by: format!("{}; {}", std::env::consts::ARCH, versions.join("; ")), counted }
    }

    /// The recorded ones.
    fn kept() -> Self {
        let text = fs::read_to_string(KEPT).unwrap_or_default();
        let mut kept = Self { by: String::new(), counted: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(": ") {
                Some(("by", by)) => by.clone_into(&mut kept.by),
                Some((name, figure)) => kept.counted.push((name.to_owned(), figure.parse().unwrap())),
                None => panic!("{KEPT}: {line}"),
            }
        }
        kept
    }

    fn write(&self) {
        let mut text = format!("{HEAD}by: {}\n", self.by);
        for (name, figure) in &self.counted {
            writeln!(text, "{name}: {figure:.0}").unwrap();
        }
        fs::write(KEPT, text).unwrap();
        println!("written to {KEPT}");
    }

    /// Prints the figures beside the recorded ones, and fails if they differ. With another compiler or library the program is another one:
    /// then nothing is compared, and this is printed.
    pub(crate) fn judge(&self) -> ExitCode {
        let kept = Self::kept();
        let mut has_changed = false;
        for (name, figure) in &self.counted {
            let known = kept.counted.iter().find(|(known, _)| known == name).map(|(_, figure)| *figure);
            let change = known.map_or(f64::INFINITY, |known| figure / known - 1.0);
            has_changed |= TOLERATED < change.abs();
            println!("{name}: {figure:.0}, {}", known.map_or("new".to_owned(), |known| format!("{:+.1} % of {known:.0}", change * 100.0)));
        }
        if std::env::var_os("BENCH_WRITE").is_some() {
            self.write();
            return ExitCode::SUCCESS;
        }
        if kept.counted.is_empty() {
            println!("not compared: none are kept; BENCH_WRITE=1 make instructions keeps these");
            return ExitCode::SUCCESS;
        }
        if self.by != kept.by {
            println!("not compared: these are by  {}\nthose that are kept are by {}", self.by, kept.by);
            return ExitCode::SUCCESS;
        }
        if has_changed {
            println!(
                "differs by more than {} %: change it back, or keep the figures with BENCH_WRITE=1 make instructions",
                TOLERATED * 100.0
            );
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

/// The version that a program prints.
fn first_line(program: &str, argument: &str) -> String {
    let said = Command::new(program).arg(argument).output().unwrap_or_else(|error| panic!("run {program}: {error}"));
    String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned()
}
