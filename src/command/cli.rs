//! Parses the command line and runs the command.

#[cfg(feature = "demo")]
use super::demo;
use super::process::{LINES, print};
use super::{check, checkpoint, config, dead_letters, detach, metrics, run, tail};
use crate::fault::Exit;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  feedline demo                                  run a complete pipeline on this machine, without a server
  feedline check -c feedline.toml                check that source and sink are ready
  feedline run -c feedline.toml                  run the pipeline
  feedline run -c feedline.toml --set log.level=debug
  feedline config schema --format toml           print every setting with its default
  feedline tail -c feedline.toml                 print events as they arrive at the broker
  feedline checkpoint show -c feedline.toml      print where the pipeline would resume

Exit status:
  0 drained and stopped       2 configuration          3 stopped with unconfirmed records (sent at the next start)
  70 gap or foreign source    71 operator must act     75 another instance holds the pipeline    1 defect of feedline";

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
    /// Run the pipeline until Ctrl-C or SIGTERM
    Run(run::Arguments),
    /// Check configuration, source and sink, without changing anything
    Check(check::Arguments),
    /// Run a demonstration: SQLite to a Kafka broker, both in this process
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Show the checkpoint, or change where the pipeline resumes
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Show the events that their destinations rejected
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Print events as they arrive at the broker, until Ctrl-C
    Tail(tail::Arguments),
    /// Remove what feedline created in the source (triggers, slot, publication)
    Detach(detach::Arguments),
    /// Print the settings in force, or all settings
    #[command(subcommand)]
    Config(config::Command),
    /// List all metrics
    Metrics(metrics::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Configuration } else { Exit::Clean };
            // A failure to print cannot be reported.
            let _unprinted = error.print();
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
