//! feedline's own JSON format, version 1.

mod compact;
mod encoder;
mod recognise;
mod text;
mod timestamp;
mod value;

pub use encoder::{Encoder, close};
pub use recognise::{EVENT_BEGINS, is_event_of};
