//! Recognises the events of a pipeline among the lines of a file.

use serde::Deserialize;
use std::borrow::Cow;

/// What every event begins with.
pub const EVENT_BEGINS: &str = "{\"v\":1,\"op\":\"";

/// Whether a line is an event of the pipeline of this name.
#[must_use]
pub fn is_event_of(line: &[u8], pipeline: &str) -> bool {
    name_in(line).is_some_and(|name| name == pipeline)
}

#[derive(Deserialize)]
struct Written<'l> {
    v: u64,
    #[serde(borrow)]
    source: Source<'l>,
}

#[derive(Deserialize)]
struct Source<'l> {
    #[serde(borrow)]
    name: Cow<'l, str>,
}

/// The name of the pipeline that wrote the event; `None` where it is no event.
fn name_in(event: &[u8]) -> Option<Cow<'_, str>> {
    let written: Written<'_> = serde_json::from_slice(event).ok()?;
    (written.v == 1).then_some(written.source.name)
}

#[cfg(test)]
mod tests {
    use super::name_in;

    #[test]
    fn an_event_says_whose_it_is_and_nothing_else_does() {
        let event = br#"{"v":1,"op":"insert","key":{"id":1},"after":{"source":{"name":"x"}},"source":{"backend":"sqlite","name":"shop"}}"#;
        assert_eq!(name_in(event).as_deref(), Some("shop"));
        for other in
            ["", "1", "{}", r#"{"v":2,"source":{"name":"shop"}}"#, r#"{"v":1,"source":"shop"}"#, r#"{"v":1,"source":{"name":"shop"}"#]
        {
            assert_eq!(name_in(other.as_bytes()), None, "{other}");
        }
    }
}
