//! Sets up logging, on standard error.

use super::escape::escape_controls;
use super::stderr::{DROPPED, LINES, Priority};
use crate::config::plan::{LogFormat, LogPlan};
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tracing::field::Field;
use tracing::{Level, Metadata, Span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The target of errors that end the process. They are logged at every level.
pub(crate) const FINAL_ERROR: &str = "feedline::last_word";

/// Replaces the directives that are in force.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// The span of a pipeline's run: each line in it carries the pipeline's name, at any level of the log.
pub(crate) fn span(pipeline: &str) -> Span {
    tracing::error_span!(target: FINAL_ERROR, "run", pipeline)
}

/// Logs by these directives from now on.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let reload = RELOAD.get().ok_or("logging has not begun")?;
    // An unknown directive would be left out in silence.
    EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    reload(filter(level))
}

/// Starts logging. A second call changes nothing.
pub(crate) fn start(plan: &LogPlan) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match plan.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(StderrWriter { is_json })
        // The subscriber would write its own errors to standard error directly, and panic if that fails.
        .log_internal_errors(false)
        .with_env_filter(filter(&plan.level))
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none());
    let started = if is_json {
        let builder = builder.json().flatten_event(true).with_current_span(true).with_span_list(false).with_filter_reloading();
        let handle = builder.reload_handle();
        let reload: Reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        builder.finish().with(filter_fn(may_be_written)).try_init().map(|()| reload)
    } else {
        let builder = builder.compact().fmt_fields(format::debug_fn(write_field).delimited(" ")).with_filter_reloading();
        let handle = builder.reload_handle();
        let reload: Reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        builder.finish().with(filter_fn(may_be_written)).try_init().map(|()| reload)
    };
    match started {
        Ok(reload) => drop(RELOAD.set(reload)),
        // Only a second call fails, and then logging works already.
        Err(error) => tracing::debug!(error = %error, "logging is already set up"),
    }
}

/// Writes a field of a human-readable line. Its text may come from others, so control characters are escaped; the line's colours are not.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let name = if field.name() == "message" { String::new() } else { format!("{field}=") };
    write!(writer, "{name}{}", escape_controls(&text))
}

/// Makes the writer of each log line. The subscriber writes a line in one call.
struct StderrWriter {
    is_json: bool,
}

/// The writer of one log line.
struct LineWriter {
    priority: Priority,
    is_json: bool,
}

impl<'w> MakeWriter<'w> for StderrWriter {
    type Writer = LineWriter;

    fn make_writer(&'w self) -> LineWriter {
        LineWriter { priority: Priority::Ordinary, is_json: self.is_json }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> LineWriter {
        let priority = match metadata.target() {
            FINAL_ERROR => Priority::Kept,
            DROPPED => Priority::DropReport,
            _ => Priority::Ordinary,
        };
        LineWriter { priority, is_json: self.is_json }
    }
}

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // JSON does not escape all control characters.
        match std::str::from_utf8(line) {
            Ok(text) if self.is_json => LINES.push(self.priority, escape_controls(text).as_bytes()),
            _ => LINES.push(self.priority, line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The configured directives, with the client of RabbitMQ off unless they name it: it logs answers that feedline expects and handles as
/// errors.
fn filter(level: &str) -> EnvFilter {
    let client = if level.contains("lapin") { "" } else { ",lapin=off" };
    EnvFilter::new(format!("{level}{client},{FINAL_ERROR}=error,{DROPPED}=warn"))
}

/// Whether a line may be written at any configured level. RabbitMQ's client traces the frames that it sends, including the password, and
/// logs returned events with their bytes.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    is_harmless(metadata.target(), *metadata.level())
}

fn is_harmless(target: &str, level: Level) -> bool {
    let within = |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let is_of_client = within("lapin") || within("amq_protocol") || target.starts_with("amq_protocol_");
    !(is_of_client && level == Level::TRACE || within("lapin::returned_messages"))
}

/// Records whether a thread panicked.
#[derive(Debug, Default)]
pub(crate) struct Panics(AtomicBool);

impl Panics {
    /// From now on, a panic on any thread is logged with its message and stops the pipeline.
    pub(crate) fn watch(stop: CancellationToken) -> &'static Self {
        static PANICS: Panics = Panics(AtomicBool::new(false));
        std::panic::set_hook(Box::new(move |panic| {
            let message = panic.payload_as_str().unwrap_or("a panic without a message");
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(target: FINAL_ERROR, panic = message, location, "a defect of feedline: please report it");
            PANICS.0.store(true, Ordering::Release);
            stop.cancel();
        }));
        &PANICS
    }

    /// Whether a thread panicked.
    pub(crate) fn occurred(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::is_harmless;
    use tracing::Level;

    #[test]
    fn lines_with_passwords_or_events_are_not_written_at_any_level() {
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
