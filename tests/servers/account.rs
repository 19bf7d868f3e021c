//! The user that a server runs as: most servers refuse root.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::port;

/// A user of the machine, as whom a server and its tools run where the tests are root; else they run as who runs the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account(&'static str);

impl Account {
    /// The user with this name.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self(name)
    }

    /// The user to change to.
    fn user(self) -> Option<&'static str> {
        rustix::process::geteuid().is_root().then_some(self.0)
    }

    /// The beginning of a command line that runs a program as this user.
    pub(crate) fn words(self) -> Vec<String> {
        port::as_user(self.user())
    }

    /// A command that runs a program as this user.
    pub(crate) fn command(self, program: &Path) -> Command {
        let words = self.words();
        let Some((first, rest)) = words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// Makes a directory for one server, which belongs to this user.
    pub(crate) fn run_directory(self, server: &str) -> PathBuf {
        let directory = port::run_directory(server, self.user()).expect("make a run directory");
        self.own(&directory);
        directory
    }

    /// Gives a file to this user.
    pub(crate) fn own(self, path: &Path) {
        if let Some(user) = self.user() {
            let changed = run(Command::new("chown").arg(user).arg(path));
            assert!(changed.status.success(), "chown {user}: {}", String::from_utf8_lossy(&changed.stderr));
        }
    }
}

/// Runs a program to its end, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/setup"))
}
