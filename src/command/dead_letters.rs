//! `feedline dead-letters`.

use super::configured::Configured;
use super::process::{block_on, log, print, say};
use super::tail::say_consume_error;
use crate::assemble::{Subscription, consume};
use crate::fault::Exit;
use crate::format::{Part, carried};
use crate::sink::{Consumed, DESTINATION_HEADER, ERROR_HEADER};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the dead letters, one JSON object per line; they are not removed
    List(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Leave out the bodies of the events
    #[arg(long)]
    brief: bool,
}

pub(super) fn run(command: &Command) -> Exit {
    let Command::List(arguments) = command;
    let plan = match arguments.configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    log::start(&plan.log);
    let (mut printed, mut count) = (Exit::Clean, 0_u64);
    let mut on_consumed = |event: Consumed| {
        printed = print(&line(&event, arguments.brief));
        count += 1;
        if printed == Exit::Clean { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match block_on(consume(&plan, Subscription::DeadLetters, &mut on_consumed)) {
        Ok(()) => {
            say(&format!("{count} dead letters\n"));
            printed
        }
        Err(error) => {
            if 0 < count {
                say(&format!("interrupted after {count} dead letters\n"));
            }
            say_consume_error(&error)
        }
    }
}

fn line(event: &Consumed, brief: bool) -> String {
    let mut object = Map::new();
    let header = |name: &str| event.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &**value);
    let carried = |part| carried(&event.headers, part);
    let operation = carried(Part::Operation).or_else(|| carried(Part::Type)?.strip_prefix("feedline."));
    for (name, value) in [
        ("id", carried(Part::Id)),
        ("op", operation),
        ("table", carried(Part::Table)),
        ("destination", header(DESTINATION_HEADER)),
        ("error", header(ERROR_HEADER)),
    ] {
        object.insert(name.to_owned(), json!(value));
    }
    if !brief {
        let body = event.body.as_deref().unwrap_or_default();
        // A body that is not JSON is shown as a string: one that was cut, or of another content type.
        let body = serde_json::from_slice::<Value>(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)));
        object.insert("event".to_owned(), body);
    }
    format!("{}\n", Value::Object(object))
}
