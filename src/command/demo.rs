//! `feedline demo`.

use super::signals::Signals;
use super::{block_on, log, say};
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
    /// How long, such as 10s or 2min; without it until Ctrl-C
    #[arg(long = "for", value_name = "PERIOD", value_parser = period)]
    length: Option<Duration>,
    /// How many rows change a second
    #[arg(long, value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// No colours, as if the output were no terminal
    #[arg(long)]
    no_color: bool,
    /// Where metrics are served; without it port 9464 of this machine, or a free one
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

fn period(text: &str) -> Result<Duration, String> {
    units::parse_period(text).ok_or_else(|| "expected a period with its unit, such as 10s".to_owned())
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
    let exit = block_on(async {
        match Signals::catch() {
            Ok(signals) => ended(signals.during(&stop, Box::pin(demo::run(options, stop.clone()))).await),
            Err(error) => ended(Err(error.into())),
        }
    });
    if panics.seen() { Exit::Crash } else { exit }
}

fn ended(outcome: Result<crate::pipeline::Ending, Error>) -> Exit {
    match outcome {
        Ok(ending) => {
            super::run::tell(&ending);
            ending.exit()
        }
        // Whoever read it has seen enough.
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
