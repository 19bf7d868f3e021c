//! BSON (specification 1.1, bsonspec.org): documents read in place, and commands written.

mod document;
mod writer;

pub(super) use document::{Document, Element, Elements, Malformed, Value};
pub(super) use writer::Writer;
