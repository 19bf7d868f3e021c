//! Recognises events, and the pipeline that wrote them.

use serde::Deserialize;
use std::borrow::Cow;

/// The first bytes of every event.
pub const EVENT_BEGINS: &str = "{\"v\":1,\"op\":\"";

/// Whether a line is an event of the pipeline with this name.
#[must_use]
pub fn is_event_of(line: &[u8], pipeline: &str) -> bool {
    name_in(line).is_some_and(|name| name == pipeline)
}

#[derive(Deserialize)]
struct Event<'l> {
    v: u64,
    #[serde(borrow)]
    source: Source<'l>,
}

#[derive(Deserialize)]
struct Source<'l> {
    #[serde(borrow)]
    name: Cow<'l, str>,
}

/// The name of the pipeline that wrote an event; `None` if the line is not an event.
fn name_in(line: &[u8]) -> Option<Cow<'_, str>> {
    let event: Event<'_> = serde_json::from_slice(line).ok()?;
    (event.v == 1).then_some(event.source.name)
}

#[cfg(test)]
mod tests {
    use super::name_in;

    #[test]
    fn only_an_event_names_its_pipeline() {
        let event = br#"{"v":1,"op":"insert","key":{"id":1},"after":{"source":{"name":"x"}},"source":{"backend":"sqlite","name":"shop"}}"#;
        assert_eq!(name_in(event).as_deref(), Some("shop"));
        for other in
            ["", "1", "{}", r#"{"v":2,"source":{"name":"shop"}}"#, r#"{"v":1,"source":"shop"}"#, r#"{"v":1,"source":{"name":"shop"}"#]
        {
            assert_eq!(name_in(other.as_bytes()), None, "{other}");
        }
    }
}
