//! CloudEvents 1.0.2. The data of each event is feedline's own JSON event, version 1.
//!
//! In binary mode the body is the data alone, and the attributes are headers ([`super::Headers`]); the encoder is then that of JSON. In
//! structured mode the body is one JSON object with the attributes and the data (JSON event format).

pub(super) mod attribute;
mod attributes;
mod recognise;
mod structured;

pub(super) use attributes::{CONTENT_TYPE, SPEC_VERSION, SUBJECT_SEPARATOR, type_of};
pub use attributes::{Mode, Source};
pub use recognise::{EVENT_BEGINS, is_event_of};
pub use structured::{Encoder, close};
