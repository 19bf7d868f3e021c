//! Writes events in structured mode: the attributes, then the data.

use super::attributes::{SUBJECT_SEPARATOR, Source, type_of};
use super::{attribute, recognise::EVENT_BEGINS};
use crate::batch::{BatchWriter, RecordWriter};
use crate::event::{Event, Relation, Row, RowError, Seen};
use crate::feed::feed_name;
use crate::format::envelope::Envelope;
use crate::format::error::Error;
use crate::format::json::{self, rfc3339, write_text};
use std::sync::Arc;

/// Encodes the events of one relation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encoder {
    data: json::Encoder,
    texts: Arc<Texts>,
}

/// What is the same for all events of a relation.
#[derive(Debug)]
struct Texts {
    /// `","source":"/feedline/shop/shop","type":"`
    source: Box<[u8]>,
    /// `","subject":"public.orders`
    subject: Box<[u8]>,
}

impl Encoder {
    /// Prepares the encoder of a relation.
    ///
    /// # Errors
    /// If the table's names are too long.
    pub fn new(envelope: &Envelope, relation: &Relation) -> Result<Self, Error> {
        let source = [br#"","source":""#, Source::of(envelope).as_bytes(), br#"","type":""#].concat();
        let mut subject = br#"","subject":"#.to_vec();
        write_text(&String::from_utf8_lossy(&attribute::of(&feed_name(&relation.schema, &relation.table))), &mut subject);
        // The key follows.
        subject.pop();
        let texts = Texts { source: source.into(), subject: subject.into() };
        Ok(Self { data: json::Encoder::new(envelope, relation)?, texts: Arc::new(texts) })
    }

    /// Appends the records of one event. An event with a transaction stays open until [`close`].
    ///
    /// # Errors
    /// If the row does not fit the relation. The batch is then unchanged.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        let mut record = self.data.begin(event, out)?;
        self.attributes(event, &mut record);
        self.data.body(event, &mut record)?;
        if !matches!(event.seen, Seen::In(_)) {
            record.arena().push(b'}');
        }
        self.data.end(event, record)
    }

    fn attributes<R>(&self, event: &Event<'_, R>, record: &mut RecordWriter<'_>) {
        let (id, key) = (record.id(), record.key());
        let is_keyed = !event.operation.is_table_wide();
        let out = record.arena();
        out.extend_from_slice(EVENT_BEGINS.as_bytes());
        out.extend_from_within(id);
        out.extend_from_slice(&self.texts.source);
        out.extend_from_slice(type_of(event.operation).as_bytes());
        out.extend_from_slice(&self.texts.subject);
        if is_keyed {
            out.push(SUBJECT_SEPARATOR);
            attribute::repeat_in_json(key.clone(), out);
        }
        if let Some(time) = rfc3339(event.timestamp).filter(|_| !event.operation.is_prefeed()) {
            out.extend_from_slice(br#"","time":""#);
            out.extend_from_slice(&time);
        }
        if is_keyed {
            out.extend_from_slice(br#"","partitionkey":""#);
            attribute::repeat_in_json(key, out);
        }
        out.extend_from_slice(br#"","datacontenttype":"application/json","data":"#);
    }
}

/// Completes the open event, if there is one. `last` says whether it is the last of its transaction.
pub fn close(out: &mut BatchWriter, last: bool) {
    out.close(|body| {
        json::complete(body, last);
        body.append(b"}");
    });
}
