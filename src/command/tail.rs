//! `feedline tail`.

use super::configured::Configured;
use super::process::{block_on, log, print, say};
use crate::assemble::{ConsumeError, Subscription, consume};
use crate::config::Plan;
use crate::config::plan::SinkPlan;
use crate::fault::Exit;
use crate::pipeline::Failure;
use crate::sink::Consumed;
use clap::Args;
use std::ops::ControlFlow;
use std::sync::Arc;

#[cfg(feature = "kafka")]
mod topics;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Topics (Kafka) or binding keys (RabbitMQ) [default: all of the pipeline]
    #[arg(value_name = "TOPIC|KEY")]
    destinations: Vec<Arc<str>>,
    /// Begin with the oldest stored event (Kafka)
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this number of events
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Print the destination of each event before it: topic, partition and offset, or routing key
    #[arg(long)]
    with_destination: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let plan = match arguments.configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    log::start(&plan.log);
    block_on(async {
        let destinations = match destinations(&plan, &arguments.destinations).await {
            Ok(destinations) => destinations,
            Err(failure) => return say_consume_error(&ConsumeError::Failed(failure)),
        };
        let mut left = arguments.count.unwrap_or(u64::MAX);
        let mut printed = Exit::Clean;
        let mut on_consumed = |event: Consumed| {
            printed = print(&line(&event, arguments.with_destination));
            left = left.saturating_sub(1);
            if printed == Exit::Clean && left != 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let subscription = Subscription::Events { destinations, from_beginning: arguments.from_beginning };
        tokio::select! {
            consumed = consume(&plan, subscription, &mut on_consumed) => match consumed {
                Ok(()) => printed,
                Err(error) => say_consume_error(&error),
            },
            _ = tokio::signal::ctrl_c() => Exit::Clean,
        }
    })
}

/// Prints why events cannot be consumed.
pub(super) fn say_consume_error(error: &ConsumeError) -> Exit {
    match error {
        ConsumeError::Failed(failure) => {
            say(&format!("{failure}\n"));
            failure.code.exit()
        }
        ConsumeError::Unsupported(reason) => {
            say(&format!("{reason}\n"));
            Exit::Configuration
        }
    }
}

/// The event as the broker stores it, on one line. A tombstone is its key and `null`. Of a body that is not text only size and type are
/// shown.
fn line(event: &Consumed, with_destination: bool) -> String {
    let place = if with_destination { format!("{} ", event.address) } else { String::new() };
    match &event.body {
        Some(body) if !event.is_text() => {
            format!("{place}{} bytes of {}\n", body.len(), event.content_type.as_deref().unwrap_or_default())
        }
        Some(body) => format!("{place}{}\n", String::from_utf8_lossy(body)),
        None => format!("{place}{} null\n", event.key.as_deref().unwrap_or("null")),
    }
}

/// The topics or binding keys to consume: those named, or all of the pipeline.
#[cfg_attr(not(feature = "kafka"), expect(clippy::unused_async, reason = "only topics are resolved"))]
async fn destinations(plan: &Plan, named: &[Arc<str>]) -> Result<Vec<Arc<str>>, Failure> {
    match &plan.sink {
        _ if !named.is_empty() => Ok(named.to_vec()),
        #[cfg(feature = "kafka")]
        SinkPlan::Kafka(_) => topics::resolve_topics(plan).await,
        #[cfg(feature = "amqp")]
        SinkPlan::Amqp(_) => Ok(vec![Arc::from("#")]),
        SinkPlan::Stdout(_) => Ok(Vec::new()),
    }
}
