//! Responses of the server, and the elements of a changefeed in them.

use super::error::Error;
use super::feed_end::FeedEnd;
use super::server_error::{ErrorKind, ServerError, shown};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

const MALFORMED: Error = Error::Protocol { what: "a response" };
const UNKNOWN: Error = Error::Protocol { what: "an element of a changefeed" };

/// A response, whose elements are not read yet.
#[derive(Debug)]
pub(super) struct Response<'b> {
    /// Whether more follows on request (`SUCCESS_PARTIAL`).
    pub(super) is_partial: bool,
    /// The elements, as JSON.
    pub(super) elements: Vec<&'b RawValue>,
}

/// More follows on request (`SUCCESS_PARTIAL`).
const PARTIAL: u8 = 3;

#[derive(Deserialize)]
struct Raw<E> {
    t: u8,
    r: Vec<E>,
    #[serde(default)]
    e: Option<u32>,
}

impl<'b> Response<'b> {
    /// Reads the body of a frame. An error of the server becomes an error.
    pub(super) fn parse(body: &'b [u8]) -> Result<Result<Self, ServerError>, Error> {
        let raw: Raw<&'b RawValue> = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
        if let Some(kind) = ErrorKind::of(raw.t, raw.e) {
            let text = raw.r.first().and_then(|text| serde_json::from_str::<Cow<'_, str>>(text.get()).ok()).unwrap_or_default();
            return Ok(Err(ServerError::new(kind, &text)));
        }
        match raw.t {
            1 | 2 | 5 => Ok(Ok(Self { is_partial: false, elements: raw.r })),
            PARTIAL => Ok(Ok(Self { is_partial: true, elements: raw.r })),
            _ => Err(MALFORMED),
        }
    }
}

/// What a feed says. Documents are JSON as the server wrote it; `D` is a text, or its place in the frame's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element<D> {
    /// A document that is there (`initial`).
    Initial(D),
    /// A document was added.
    Add(D),
    /// A document changed.
    Change {
        /// As it was.
        old: D,
        /// As it is.
        new: D,
    },
    /// A document was removed (`remove`, `uninitial`).
    Remove(D),
    /// The feed begins with the documents that are there.
    Initializing,
    /// All documents that were there have been sent.
    Ready,
    /// The server threw its queue away: changes are missing.
    Overflow {
        /// The server's text.
        text: String,
    },
}

#[derive(Deserialize)]
struct RawElement<'e> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'e, str>>,
    #[serde(borrow, default)]
    state: Option<Cow<'e, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'e, str>>,
    #[serde(borrow, default)]
    new_val: Option<&'e RawValue>,
    #[serde(borrow, default)]
    old_val: Option<&'e RawValue>,
}

impl<'e> Element<&'e str> {
    /// Reads an element of a feed with `include_types` and `include_states`. An element that this version does not know is refused: it could
    /// be a change.
    fn read(element: RawElement<'e>) -> Result<Self, Error> {
        let RawElement { kind, state, error, new_val, old_val } = element;
        if let Some(error) = error {
            return Ok(Self::Overflow { text: shown(&error) });
        }
        let (old, new) = (old_val.map(RawValue::get), new_val.map(RawValue::get));
        match (kind.as_deref().unwrap_or_default(), state.as_deref(), old, new) {
            ("state", Some("initializing"), None, None) => Ok(Self::Initializing),
            ("state", Some("ready"), None, None) => Ok(Self::Ready),
            ("initial", None, None, Some(new)) => Ok(Self::Initial(new)),
            ("add", None, None, Some(new)) => Ok(Self::Add(new)),
            ("change", None, Some(old), Some(new)) => Ok(Self::Change { old, new }),
            ("remove" | "uninitial", None, Some(old), None) => Ok(Self::Remove(old)),
            _ => Err(UNKNOWN),
        }
    }

    fn placed(self, within: &str) -> Element<Range<usize>> {
        let place = |text: &str| {
            let start = text.as_ptr().addr() - within.as_ptr().addr();
            start..start + text.len()
        };
        match self {
            Self::Initial(new) => Element::Initial(place(new)),
            Self::Add(new) => Element::Add(place(new)),
            Self::Change { old, new } => Element::Change { old: place(old), new: place(new) },
            Self::Remove(old) => Element::Remove(place(old)),
            Self::Initializing => Element::Initializing,
            Self::Ready => Element::Ready,
            Self::Overflow { text } => Element::Overflow { text },
        }
    }
}

/// The elements of one frame of a feed, with the frame's own copy of its bytes.
#[derive(Debug)]
pub(super) struct FeedBatch {
    body: String,
    elements: Vec<Element<Range<usize>>>,
}

impl FeedBatch {
    /// Reads a frame. A feed that ends is an error, whatever the reason.
    pub(super) fn parse(body: &[u8], address: &str) -> Result<Result<Self, ServerError>, Error> {
        let body = std::str::from_utf8(body).map_err(|_| MALFORMED)?;
        // Elements are read at once with their frame. What cannot be read so is an error, or the feed's end.
        let Ok(Raw { t: PARTIAL, r, .. }) = serde_json::from_str::<Raw<RawElement<'_>>>(body) else {
            return match Response::parse(body.as_bytes())? {
                Ok(response) if response.is_partial => Err(UNKNOWN),
                Ok(_) => {
                    let reason = FeedEnd::Closed { text: "the server says that it has no more changes".to_owned() };
                    Err(Error::FeedEnded { address: address.to_owned(), reason })
                }
                Err(error) => Ok(Err(error)),
            };
        };
        let elements: Vec<_> = r.into_iter().map(|element| Ok(Element::read(element)?.placed(body))).collect::<Result<_, Error>>()?;
        Ok(Ok(Self { body: body.to_owned(), elements }))
    }

    /// The elements in the server's order.
    pub(super) fn elements(&self) -> impl Iterator<Item = Element<&str>> {
        let text = |place: &Range<usize>| &self.body[place.clone()];
        self.elements.iter().map(move |element| match element {
            Element::Initial(new) => Element::Initial(text(new)),
            Element::Add(new) => Element::Add(text(new)),
            Element::Change { old, new } => Element::Change { old: text(old), new: text(new) },
            Element::Remove(old) => Element::Remove(text(old)),
            Element::Initializing => Element::Initializing,
            Element::Ready => Element::Ready,
            Element::Overflow { text } => Element::Overflow { text: text.clone() },
        })
    }

    /// Whether the feed has sent all documents that were there.
    pub(super) fn is_ready(&self) -> bool {
        self.elements.contains(&Element::Ready)
    }

    /// Bytes of the frame.
    pub(super) const fn size_bytes(&self) -> usize {
        self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Element, FeedBatch};
    use crate::source::rethinkdb::error::Error;
    use crate::source::rethinkdb::server_error::{ErrorKind, ServerError};

    /// The frames behind the handshake of a recorded connection: token and body.
    fn frames(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        for _ in 0..3 {
            bytes = &bytes[bytes.iter().position(|byte| *byte == 0).unwrap() + 1..];
        }
        let mut frames = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<12>() {
            let length = u32::from_le_bytes(header[8..].try_into().unwrap()) as usize;
            frames.push((u64::from_le_bytes(header[..8].try_into().unwrap()), &rest[..length]));
            bytes = &rest[length..];
        }
        frames
    }

    fn read(body: &[u8]) -> Result<Result<FeedBatch, ServerError>, Error> {
        FeedBatch::parse(body, "here")
    }

    macro_rules! golden {
        ($name:literal) => {
            frames(include_bytes!(concat!("../../../tests/golden/rethinkdb/", $name, ".s2c.bin")))
        };
    }

    #[test]
    fn a_recorded_feed_is_read_element_by_element() {
        let frames = golden!("t5");
        let batches: Vec<_> = frames[..7].iter().map(|(_, body)| read(body).unwrap().unwrap()).collect();
        let elements: Vec<_> = batches.iter().flat_map(FeedBatch::elements).collect();
        let expected = [
            Element::Initializing,
            Element::Initial(r#"{"id":4,"v":40}"#),
            Element::Initial(r#"{"id":5,"v":50}"#),
            Element::Initial(r#"{"id":3,"v":30}"#),
            Element::Initial(r#"{"id":2,"v":20}"#),
            Element::Initial(r#"{"id":1,"v":10}"#),
            Element::Ready,
            Element::Add(r#"{"id":6,"v":60}"#),
            Element::Change { old: r#"{"id":6,"v":60}"#, new: r#"{"id":6,"nested":{"a":[1,2,{"b":null}]},"v":61}"# },
            Element::Change { old: r#"{"id":6,"nested":{"a":[1,2,{"b":null}]},"v":61}"#, new: r#"{"id":6,"w":"x"}"# },
            Element::Remove(r#"{"id":6,"w":"x"}"#),
            Element::Add(r#"{"id":8}"#),
            Element::Add(r#"{"id":7}"#),
        ];
        assert_eq!(elements, expected);
        assert!(batches[1].is_ready() && !batches[0].is_ready());
        // The answer to SERVER_INFO, two to STOP, and one to CONTINUE after it.
        assert_eq!(frames[7].0, 2);
        assert!(matches!(read(frames[8].1), Err(Error::FeedEnded { .. })) && matches!(read(frames[9].1), Err(Error::FeedEnded { .. })));
        assert_eq!(read(frames[10].1).unwrap().unwrap_err().kind, ErrorKind::Client);
    }

    #[test]
    fn an_overflow_is_seen_although_it_has_no_type() {
        let overflow = read(golden!("overflow")[1].1).unwrap().unwrap();
        let text = "Changefeed cache over array size limit, skipped 12 elements.".to_owned();
        assert_eq!(overflow.elements().collect::<Vec<_>>(), [Element::Overflow { text }]);
    }

    #[test]
    fn a_dropped_table_aborts_its_feed() {
        let error = read(golden!("table_drop")[2].1).unwrap().unwrap_err();
        assert!(error.is_passing() && error.text == "Changefeed aborted (unavailable).", "{error:?}");
    }

    #[test]
    fn all_rows_of_several_frames_are_read() {
        let frames = golden!("multi_frame_initial");
        let batches: Vec<_> = frames[..3].iter().map(|(_, body)| read(body).unwrap().unwrap()).collect();
        let rows = batches.iter().flat_map(FeedBatch::elements).filter(|element| matches!(element, Element::Initial(_)));
        assert_eq!(rows.count(), 300);
    }

    #[test]
    fn an_unknown_element_is_refused() {
        for wrong in [r#"{"type":"moved","new_val":{"id":1}}"#, r#"{"new_val":{"id":1}}"#, "1", r#"{"type":"add","new_val":null}"#, "{}"] {
            assert!(read(format!(r#"{{"t":3,"r":[{wrong}]}}"#).as_bytes()).is_err(), "{wrong}");
        }
        for wrong in ["", "{", "[]", r#"{"t":3}"#, r#"{"t":4,"r":[]}"#, "\u{0}"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(b"{\"t\":3,\"r\":[\"\xFF\"]}").is_err(), "no UTF-8");
    }
}
