//! Formats: how events are encoded, and what their messages carry beside the body.
//!
//! A format decides four things: the bytes of key and body ([`Encoder`]), the content type, the headers ([`Headers`]), and how the lines of
//! a file begin ([`LINE_BEGINS`]). Sources and sinks name none of them.

pub mod cloudevents;
mod encoder;
mod encoders;
mod envelope;
mod error;
mod headers;
pub mod json;
mod lines;

pub use encoder::{Encoder, Format};
pub use encoders::Encoders;
pub use envelope::Envelope;
pub use error::Error;
pub use headers::{CONTENT_TYPE, Headers, Part, Protocol, carried};
pub use lines::{LINE_BEGINS, is_line_of};
