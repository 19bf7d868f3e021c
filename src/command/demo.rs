//! `feedline demo`.

use super::process::{Signals, block_on, log, say};
use super::run::log_ending;
use crate::config::plan::{LogFormat, LogPlan};
use crate::config::units;
use crate::demo::{self, Error, Options};
use crate::fault::{Classify, Exit};
use clap::Args;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long to run, such as 10s or 2min [default: until Ctrl-C]
    #[arg(long = "for", value_name = "PERIOD", value_parser = period)]
    length: Option<Duration>,
    /// Row changes per second
    #[arg(long, value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Print without colours
    #[arg(long)]
    no_color: bool,
    /// Address for metrics [default: port 9464 of this machine, or a free port]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

fn period(text: &str) -> Result<Duration, String> {
    units::parse_period(text).ok_or_else(|| "expected a period with a unit, such as 10s".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    log::start(&LogPlan { format: LogFormat::Auto, level: "error".to_owned() });
    let stop = CancellationToken::new();
    let panics = log::Panics::watch(stop.clone());
    let options = Options {
        length: arguments.length,
        rate: arguments.rate,
        colour: !arguments.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal(),
        listen: arguments.metrics_listen,
    };
    let exit = log::span(demo::NAME).in_scope(|| {
        block_on(async {
            match Signals::catch() {
                Ok(signals) => exit_of(signals.during(&stop, Box::pin(demo::run(options, stop.clone()))).await),
                Err(error) => exit_of(Err(error.into())),
            }
        })
    });
    if panics.occurred() { Exit::Crash } else { exit }
}

fn exit_of(outcome: Result<crate::pipeline::Ending, Error>) -> Exit {
    match outcome {
        Ok(ending) => {
            log_ending(&ending);
            ending.exit()
        }
        // The reader has closed the output.
        Err(Error::System(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => {
            say(&format!("{error}\n"));
            match error {
                Error::Admin(error) => error.code().exit(),
                _ => Exit::Repair,
            }
        }
    }
}
