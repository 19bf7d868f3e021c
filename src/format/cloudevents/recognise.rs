//! Recognises events in structured mode, and the pipeline that wrote them.

use serde::Deserialize;
use std::borrow::Cow;

/// The first bytes of every event in structured mode.
pub const EVENT_BEGINS: &str = "{\"specversion\":\"1.0\",\"id\":\"";

#[derive(Deserialize)]
struct Event<'l> {
    #[serde(borrow)]
    specversion: Cow<'l, str>,
    #[serde(borrow)]
    id: Cow<'l, str>,
}

/// Whether a line is an event of the pipeline with this name.
#[must_use]
pub fn is_event_of(line: &[u8], pipeline: &str) -> bool {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else { return false };
    event.specversion == super::SPEC_VERSION && event.id.strip_prefix(pipeline).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::is_event_of;

    #[test]
    fn an_id_names_its_pipeline() {
        let event = br#"{"specversion":"1.0","id":"shop/0001","data":{"v":1}}"#;
        assert!(is_event_of(event, "shop"));
        assert!(!is_event_of(event, "sho") && !is_event_of(event, "shops"));
        for other in [
            "",
            "{}",
            r#"{"specversion":"0.3","id":"shop/1"}"#,
            r#"{"specversion":"1.0","id":"shop"}"#,
            r#"{"specversion":"1.0","id":"shop/1""#,
        ] {
            assert!(!is_event_of(other.as_bytes(), "shop"), "{other}");
        }
    }
}
