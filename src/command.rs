//! The command line. Standard output carries what a command is asked for and nothing else; all else goes to standard error.

use crate::config::{Inputs, Loaded, load};
use crate::fault::Exit;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use stderr::{LINES, Weight};

mod check;
mod checkpoint;
mod config;
mod dead_letters;
#[cfg(feature = "demo")]
mod demo;
mod detach;
mod log;
mod metrics;
mod run;
mod signals;
mod stderr;
mod tail;

const EXAMPLES: &str = "\
Examples:
  feedline demo                                  a whole pipeline on this machine, no server needed
  feedline check -c feedline.toml                look whether source and sink are ready for it
  feedline run -c feedline.toml                  run it
  feedline run -c feedline.toml --set log.level=debug
  feedline config schema --format toml           every setting with its default
  feedline tail -c feedline.toml                 what arrives at the broker
  feedline checkpoint show -c feedline.toml      where it would resume

Exit status:
  0 drained and stopped       2 configuration         3 stopped with records unconfirmed (they follow)
  70 gap or foreign source    71 a person must act    75 another instance holds the pipeline    1 a defect";

/// Carries a database's changefeed, existing rows first, to Kafka topics or a RabbitMQ exchange.
#[derive(Debug, Parser)]
#[command(name = "feedline", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FEEDLINE_REVISION"), ", rustc ", env!("FEEDLINE_RUSTC"), ")");

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pipeline until it is told to stop (Ctrl-C or SIGTERM)
    Run(run::Arguments),
    /// Look whether configuration, source and sink are in order, changing nothing
    Check(check::Arguments),
    /// Show a whole pipeline at work: SQLite to a Kafka broker, both in this process
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Look at the checkpoint, or change where the pipeline resumes
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Look at the events that their destinations did not take
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Print events as they arrive at the broker, until Ctrl-C
    Tail(tail::Arguments),
    /// Remove from the source what feedline made there (triggers, slot, publication)
    Detach(detach::Arguments),
    /// Print the configuration that holds, or every setting that there is
    #[command(subcommand)]
    Config(config::Command),
    /// List every metric
    Metrics(metrics::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct Configured {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one setting, over file and environment (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Configured {
    /// Reads and checks it; what is wrong is printed.
    fn load(&self) -> Result<Loaded, Exit> {
        let inputs = self.inputs();
        load(&inputs).map_err(|problems| {
            say(&format!("{problems}\n"));
            self.say_unnamed();
            Exit::Configuration
        })
    }

    /// Why all is missing, where nobody named a configuration.
    fn say_unnamed(&self) {
        if self.config.is_none() && self.settings.is_empty() {
            say("no configuration file was named: use -c FILE; `feedline config schema --format toml` writes one to start from\n");
        }
    }

    fn inputs(&self) -> Inputs {
        Inputs::of_process(self.config.clone(), self.settings.clone())
    }
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Configuration } else { Exit::Clean };
            // Where nobody reads it, nothing is left to say.
            let _unread = error.print();
            return ExitCode::from(exit as u8);
        }
    };
    let exit = std::panic::catch_unwind(|| dispatch(cli.command)).unwrap_or(Exit::Crash);
    LINES.finish();
    ExitCode::from(exit as u8)
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Checkpoint(command) => checkpoint::run(&command),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "feedline", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// The runtime of a command: one thread.
///
/// Both halves together need a fraction of a core, and what is heavy has threads of its own (the broker's client, a change
/// log's reader, disks). A second thread would only be woken by the first, and by every packet while that one gathers.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the system grants threads and timers");
    let output = runtime.block_on(future);
    // Blocking calls that never return do not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    output
}

/// Writes what was asked for. A reader that has gone away has read enough.
fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(visible(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            say(&format!("write standard output: {error}\n"));
            Exit::Repair
        }
        _ => Exit::Clean,
    }
}

/// Writes to the person at the terminal, in the order of the log.
fn say(text: &str) {
    LINES.push(Weight::LastWord, visible(text).as_bytes());
}

/// The text with whatever steers a terminal written out: names, errors and records are made by others.
fn visible(text: &str) -> Cow<'_, str> {
    // What turns the direction of the text around is no control character.
    let steers =
        |sign: char| sign.is_control() && !matches!(sign, '\n' | '\t') || matches!(sign, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let write = |sign: char| if steers(sign) { format!("\\u{:04x}", u32::from(sign)) } else { sign.to_string() };
    Cow::Owned(text.chars().map(write).collect())
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(visible("a\tb\nü 😀"), "a\tb\nü 😀");
        assert_eq!(visible("\u{1b}[2Jgone\r\u{9b}31m\u{7}\u{202e}x"), "\\u001b[2Jgone\\u000d\\u009b31m\\u0007\\u202ex");
    }
}
