//! Formats: how events are encoded. A format maps the values of a row and adds an envelope.

mod encoder;
mod encoders;
mod envelope;
pub mod json;

pub use encoder::{Encoder, Format};
pub use encoders::Encoders;
pub use envelope::Envelope;
pub use json::{EVENT_BEGINS, is_event_of};
