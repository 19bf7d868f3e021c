//! Logs, on standard error.

use super::stderr::{LINES, Weight};
use super::visible;
use crate::config::plan::{LogFormat, LogPlan};
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The target of what is said at every level: why the process ends that was to run.
pub(super) const LAST_WORD: &str = "feedline::last_word";
/// The target of what is said at every level: how many lines standard error did not take.
pub(super) const DROPPED: &str = "feedline::dropped";

/// Starts logging. A second call changes nothing.
pub(super) fn start(plan: &LogPlan) {
    let terminal = std::io::stderr().is_terminal();
    let json = match plan.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(ToStderr { is_json: json })
        // It would say so on standard error, and panic where that fails.
        .log_internal_errors(false)
        .with_env_filter(filter(&plan.level))
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none());
    let started = if json {
        let builder = builder.json().flatten_event(true).with_current_span(true).with_span_list(false);
        builder.finish().with(filter_fn(may_be_written)).try_init()
    } else {
        builder.compact().fmt_fields(format::debug_fn(write_field).delimited(" ")).finish().with(filter_fn(may_be_written)).try_init()
    };
    // Only a second start of logging is refused, and then there are logs.
    if let Err(error) = started {
        tracing::debug!(error = %error, "logs are written already");
    }
}

/// A field of a line that people read: names, errors and records in it are made by others. Colours are the line's own.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let name = if field.name() == "message" { String::new() } else { format!("{field}=") };
    write!(writer, "{name}{}", visible(&text))
}

/// Hands each line over; it comes whole, in one write.
struct ToStderr {
    is_json: bool,
}

/// A line of a weight.
struct Line {
    weight: Weight,
    is_json: bool,
}

impl<'w> MakeWriter<'w> for ToStderr {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line { weight: Weight::Ordinary, is_json: self.is_json }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Line {
        let weight = match metadata.target() {
            LAST_WORD => Weight::LastWord,
            DROPPED => Weight::Dropped,
            _ => Weight::Ordinary,
        };
        Line { weight, is_json: self.is_json }
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // JSON leaves some of what steers a terminal as it is.
        match std::str::from_utf8(line) {
            Ok(text) if self.is_json => LINES.push(self.weight, visible(text).as_bytes()),
            _ => LINES.push(self.weight, line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directives as they are given. What RabbitMQ's client calls an error is an answer to a question of ours, and what
/// follows from it is said by us: it speaks only where somebody asks for it by name.
fn filter(level: &str) -> EnvFilter {
    let client = if level.contains("lapin") { "" } else { ",lapin=off" };
    EnvFilter::new(format!("{level}{client},{LAST_WORD}=error,{DROPPED}=warn"))
}

/// Whatever level is asked for: RabbitMQ's client traces the frames that it sends, the password's among them, and warns of returned
/// events with their bytes.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    is_harmless(metadata.target(), *metadata.level())
}

fn is_harmless(target: &str, level: Level) -> bool {
    let within = |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let is_of_client = within("lapin") || within("amq_protocol") || target.starts_with("amq_protocol_");
    !(is_of_client && level == Level::TRACE || within("lapin::returned_messages"))
}

/// Whether anything panicked, and whom to tell.
#[derive(Debug, Default)]
pub(super) struct Panics(AtomicBool);

impl Panics {
    /// From now on a panic on any thread is logged with its message and stops the pipeline.
    pub(super) fn watch(stop: CancellationToken) -> &'static Self {
        static PANICS: Panics = Panics(AtomicBool::new(false));
        std::panic::set_hook(Box::new(move |panic| {
            let message = panic.payload_as_str().unwrap_or("a panic without a message");
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(target: LAST_WORD, panic = message, place, "a defect of feedline: please report it");
            PANICS.0.store(true, Ordering::Release);
            stop.cancel();
        }));
        &PANICS
    }

    /// Whether there was one.
    pub(super) fn seen(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::is_harmless;
    use tracing::Level;

    #[test]
    fn what_shows_a_password_or_an_event_is_not_written_at_any_level() {
        for (target, level) in [
            ("lapin", Level::TRACE),
            ("lapin::channel", Level::TRACE),
            ("amq_protocol_uri", Level::TRACE),
            ("lapin::returned_messages", Level::WARN),
        ] {
            assert!(!is_harmless(target, level), "{target} {level}");
        }
        for (target, level) in
            [("lapin", Level::DEBUG), ("lapin::channel", Level::WARN), ("feedline::sink", Level::TRACE), ("lapins", Level::TRACE)]
        {
            assert!(is_harmless(target, level), "{target} {level}");
        }
    }
}
