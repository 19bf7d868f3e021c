//! The attributes of CloudEvents, as far as they are the same for many events.

use crate::event::Operation;
use crate::format::envelope::Envelope;
use std::fmt::Write as _;
use std::sync::Arc;

/// The value of `specversion`.
pub(in crate::format) const SPEC_VERSION: &str = "1.0";

/// The media type of a body that holds the attributes too.
pub(in crate::format) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Stands between table and key in `subject`.
pub(in crate::format) const SUBJECT_SEPARATOR: u8 = b'/';

/// Where the attributes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In headers.
    Binary,
    /// In the body, around the data.
    Structured,
}

/// The value of `source`: `/feedline/{name}/{database}`, a URI reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(Arc<str>);

impl Source {
    pub(in crate::format) fn of(envelope: &Envelope) -> Self {
        let mut uri = "/feedline".to_owned();
        for segment in [&envelope.name, &envelope.database] {
            uri.push('/');
            for byte in segment.bytes() {
                // RFC 3986, 2.3: all but the unreserved characters are percent-encoded.
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    uri.push(char::from(byte));
                } else {
                    write!(uri, "%{byte:02X}").expect("a string takes all");
                }
            }
        }
        Self(uri.into())
    }

    pub(in crate::format) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The value of `type`: `feedline.` and the operation.
pub(in crate::format) const fn type_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "feedline.insert",
        Operation::Update => "feedline.update",
        Operation::Delete => "feedline.delete",
        Operation::Read => "feedline.read",
        Operation::Truncate => "feedline.truncate",
        Operation::Reset => "feedline.reset",
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, type_of};
    use crate::event::Operation;
    use crate::format::Envelope;

    #[test]
    fn a_type_names_its_operation() {
        for operation in Operation::ALL {
            assert_eq!(type_of(operation), format!("feedline.{operation}"));
        }
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        let envelope = Envelope { name: "shop".into(), backend: "sqlite", database: "my shop/ä%.db".into(), tombstones: true };
        assert_eq!(Source::of(&envelope).as_bytes(), b"/feedline/shop/my%20shop%2F%C3%A4%25.db");
    }
}
