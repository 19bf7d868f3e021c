//! feedline's own JSON format, version 1.

mod compact;
mod encoder;
mod recognise;
mod text;
mod timestamp;
mod value;

pub(super) use encoder::complete;
pub use encoder::{CONTENT_TYPE, Encoder, close};
pub use recognise::{EVENT_BEGINS, is_event_of};
pub(super) use text::write as write_text;
pub(super) use timestamp::rfc3339;
