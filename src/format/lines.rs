//! Recognises the lines of a file as events, and the pipeline that wrote them, whatever the format.

use crate::format::{cloudevents, json};

/// How the lines of a file begin, by format.
pub const LINE_BEGINS: [&str; 2] = [json::EVENT_BEGINS, cloudevents::EVENT_BEGINS];

/// Whether a line is an event of the pipeline with this name.
#[must_use]
pub fn is_line_of(line: &[u8], pipeline: &str) -> bool {
    json::is_event_of(line, pipeline) || cloudevents::is_event_of(line, pipeline)
}
