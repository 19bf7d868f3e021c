//! Prints events as lines of at most 100 characters, in columns.

use super::subscriber::{Columns, Event};
use crate::event::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;

const WIDTH: usize = 100;
const TOPIC: usize = 19;
const KEY: usize = 13;
/// Width of everything before the last column.
const INDENT: usize = 2 + 12 + 2 + 6 + 2 + TOPIC + 2 + KEY + 2 + 7 + 2;

/// Formats events. Keeps each row as a subscriber would (upsert by key, remove on delete), to show what an update changed.
pub(super) struct Printer {
    colour: bool,
    rows: HashMap<(String, String), Columns>,
}

impl Printer {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, rows: HashMap::new() }
    }

    /// Colours the text, if colours are on. The codes are those of ECMA-48, Select Graphic Rendition.
    pub(super) fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The header of the columns.
    pub(super) fn header(&self) -> String {
        let line = format!("  {:<12}  {:<6}  {:<TOPIC$}  {:<KEY$}  {:>7}  what changed", "time (UTC)", "event", "topic", "key", "after");
        self.paint("2", &line) + "\n"
    }

    /// A line that separates two parts.
    pub(super) fn rule(&self, text: &str) -> String {
        let dashes = WIDTH.saturating_sub(text.chars().count() + 6);
        self.paint("2", &format!("  ── {text} {}", "─".repeat(dashes))) + "\n"
    }

    /// Formats one event.
    pub(super) fn event(&mut self, event: &Event, now: Timestamp) -> String {
        let key = event.key.as_ref().map(short).unwrap_or_default();
        let row_id = (event.topic.clone(), key.clone());
        let before = match &event.after {
            Some(after) => self.rows.insert(row_id, after.clone()),
            None => self.rows.remove(&row_id),
        };
        let changed = match (&event.after, &before) {
            (Some(after), Some(before)) if event.operation == "update" => difference(before, after),
            (Some(after), _) => listing(after, event.key.as_ref()),
            (None, Some(before)) => listing(before, event.key.as_ref()),
            (None, None) => String::new(),
        };
        let age = match event.timestamp {
            Some(millis) if event.operation != "read" => format!("{} ms", (now.millis() - millis).max(0)),
            _ => String::new(),
        };
        let code = match event.operation.as_str() {
            "insert" => "1;32",
            "update" => "1;33",
            "delete" => "1;31",
            _ => "1;36",
        };
        let changed = cut(&changed, WIDTH - INDENT);
        let changed = if event.operation == "delete" { self.paint("2;9", &changed) } else { changed };
        let line = format!(
            "  {}  {}  {:<TOPIC$}  {:<KEY$}  {}  {changed}",
            self.paint("2", &clock(now)),
            self.paint(code, &format!("{:<6}", event.operation)),
            cut(&event.topic, TOPIC),
            cut(&key, KEY),
            self.paint("2", &format!("{age:>7}")),
        );
        line.trim_end().to_owned() + "\n"
    }
}

/// Formats a time as `HH:MM:SS.mmm`, UTC.
fn clock(at: Timestamp) -> String {
    let millis = at.millis().rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}", millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Formats a key: `7`, or `a=1 b=2` for several columns.
fn short(key: &Columns) -> String {
    match key.0.as_slice() {
        [(_, value)] => plain(value),
        several => several.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" "),
    }
}

/// Lists the values of all columns except the key's.
fn listing(row: &Columns, key: Option<&Columns>) -> String {
    let in_key = |name: &str| key.is_some_and(|key| key.0.iter().any(|(column, _)| column == name));
    row.0.iter().filter(|(name, _)| !in_key(name)).map(|(_, value)| plain(value)).collect::<Vec<_>>().join(", ")
}

/// Lists the columns that differ, with old and new value.
fn difference(before: &Columns, after: &Columns) -> String {
    let mut out = String::new();
    for (name, value) in &after.0 {
        let old = before.0.iter().find(|(column, _)| column == name).map(|(_, value)| value);
        if old != Some(value) {
            let separator = if out.is_empty() { "" } else { ", " };
            let old = old.map(plain).unwrap_or_default();
            write!(out, "{separator}{name} {old} → {}", plain(value)).expect("a string takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Printer, WIDTH};
    use crate::demo::subscriber::Event;
    use crate::event::Timestamp;

    fn event(operation: &str, after: &str) -> Event {
        let text = format!(r#"{{"op":"{operation}","key":{{"id":7}},"after":{after},"source":{{"position":"1"}}}}"#);
        let mut event: Event = serde_json::from_str(&text).unwrap();
        event.topic = "demo.main.orders".to_owned();
        event.timestamp = Some(1_000);
        event
    }

    #[test]
    fn an_update_shows_what_changed_and_every_line_fits() {
        let mut printer = Printer::new(false);
        let now = Timestamp(1_009_000);
        let line = printer.event(&event("insert", r#"{"id":7,"status":"new","total":"9.50"}"#), now);
        assert_eq!(line, "  00:00:01.009  insert  demo.main.orders     7                 9 ms  new, 9.50\n");
        let line = printer.event(&event("update", r#"{"id":7,"status":"paid","total":"9.50"}"#), now);
        assert!(line.ends_with("status new → paid\n"), "{line}");
        let long = format!(r#"{{"id":7,"status":"{}"}}"#, "x".repeat(300));
        assert_eq!(printer.event(&event("update", &long), now).trim_end().chars().count(), WIDTH);
        // Every byte before it is ASCII, so byte offsets are columns.
        assert_eq!(printer.header().find("what changed"), line.find("status new"), "the header stands over its column");
        assert!(!printer.event(&event("delete", "null"), now).contains('\u{1b}'));
        assert!(printer.rows.is_empty());
    }
}
