//! One event of the change stream (MongoDB manual, "Change Events").

use super::bson::{Document, Element, Malformed, Value};
use super::error::Error;

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Insert,
    Update,
    Replace,
    Delete,
    Drop,
    Rename,
    /// The stream ends with it.
    Invalidate,
    /// One that changes no document of a feed.
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "insert" => Self::Insert,
            "update" => Self::Update,
            "replace" => Self::Replace,
            "delete" => Self::Delete,
            "drop" => Self::Drop,
            "rename" => Self::Rename,
            "invalidate" => Self::Invalidate,
            _ => Self::Other,
        }
    }
}

/// The transaction of an event: its session, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransactionName<'b> {
    pub(super) session: Document<'b>,
    pub(super) number: i64,
}

/// An event, borrowed from the reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeEvent<'b> {
    /// Its resume token.
    pub(super) token: Document<'b>,
    pub(super) kind: Kind,
    /// When it was committed, by the cluster's logical clock.
    pub(super) time: u64,
    /// The same by the primary's clock: milliseconds since 1970. Servers before 6.0 leave it out.
    pub(super) wall_time: Option<i64>,
    /// The collection.
    pub(super) collection: &'b str,
    /// The new name of a collection that was renamed.
    pub(super) renamed_to: Option<&'b str>,
    pub(super) key: Option<Document<'b>>,
    pub(super) before: Option<Document<'b>>,
    pub(super) after: Option<Document<'b>>,
    /// What an update changed.
    pub(super) update: Option<Document<'b>>,
    pub(super) transaction: Option<TransactionName<'b>>,
}

/// Which part of an event that was split a document is: its number from 1, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) number: i64,
    pub(super) of: i64,
}

/// The name of the element that describes a fragment.
pub(super) const SPLIT: &[u8] = b"splitEvent";

/// The fragment that an element describes.
pub(super) fn fragment(element: &Element<'_>) -> Result<Option<Fragment>, Malformed> {
    let Some(split) = element.value.document().filter(|_| element.name == SPLIT) else { return Ok(None) };
    Ok(split.number("fragment")?.zip(split.number("of")?).map(|(number, of)| Fragment { number, of }))
}

impl<'b> ChangeEvent<'b> {
    /// Reads an event of this database.
    pub(super) fn read(event: Document<'b>, database: &str) -> Result<Self, Error> {
        let (mut token, mut kind, mut time, mut session, mut number) = (None, None, None, None, None);
        let (mut namespace, mut to) = (None, None);
        let mut read = Self {
            token: Document::EMPTY,
            kind: Kind::Other,
            time: 0,
            wall_time: None,
            collection: "",
            renamed_to: None,
            key: None,
            before: None,
            after: None,
            update: None,
            transaction: None,
        };
        for element in event.elements() {
            let Element { name, value, .. } = element?;
            match name {
                b"_id" => token = value.document(),
                b"operationType" => kind = value.text(),
                b"clusterTime" => time = value.timestamp(),
                b"wallTime" => read.wall_time = if let Value::DateTime(millis) = value { Some(millis) } else { None },
                b"ns" => namespace = value.document(),
                b"to" => to = value.document(),
                b"documentKey" => read.key = value.document(),
                b"fullDocument" => read.after = value.document(),
                b"fullDocumentBeforeChange" => read.before = value.document(),
                b"updateDescription" => read.update = value.document(),
                b"lsid" => session = value.document(),
                b"txnNumber" => number = value.number(),
                _ => {}
            }
        }
        read.token = token.ok_or(Error::Event { what: "it has no resume token" })?;
        read.kind = Kind::of(kind.ok_or(Error::Event { what: "it has no operation" })?);
        read.time = time.ok_or(Error::Event { what: "it has no cluster time" })?;
        read.transaction = session.zip(number).map(|(session, number)| TransactionName { session, number });
        let in_database = |namespace: Document<'b>| -> Result<Option<&'b str>, Malformed> {
            Ok(if namespace.text("db")? == Some(database) { namespace.text("coll")? } else { None })
        };
        read.collection = namespace.map(in_database).transpose()?.flatten().unwrap_or_default();
        read.renamed_to = to.map(in_database).transpose()?.flatten();
        Ok(read)
    }

    /// When it was committed: microseconds since 1970.
    pub(super) fn committed_at(&self) -> i64 {
        match self.wall_time {
            Some(millis) => millis.saturating_mul(1000),
            None => i64::try_from(self.time >> 32).unwrap_or_default() * 1_000_000,
        }
    }
}

/// The time that a resume token tells; `None` if its form is not known. The token's text is a `KeyString` in hexadecimal digits, whose first
/// component is the cluster time: a byte 0x82 for the type, then eight bytes (MongoDB source, `src/mongo/db/pipeline/resume_token.h`). Nothing
/// else of a token is read.
pub(super) fn time_of(token: Document<'_>) -> Option<u64> {
    let digits = token.text("_data").ok()??.strip_prefix("82")?.get(..16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::{ChangeEvent, Kind, time_of};

    #[test]
    fn the_time_of_a_token_is_read_where_its_form_is_known() {
        let time = |data: &str| time_of(Document::new(&Writer::new().text("_data", data).finish()).unwrap());
        // The token of the manual's example of an update event.
        assert_eq!(time("82635019A0000000012B042C0100296E5A10"), Some(0x6350_19A0_0000_0001));
        assert_eq!(time("3700000010730006000000117400010000006fd50d6b"), None);
        assert_eq!((time("82"), time("82635019A0é0000001")), (None, None));
    }

    #[test]
    fn an_event_that_lacks_what_every_event_has_is_refused() {
        let token = Writer::new().text("_data", "82").finish();
        let namespace = Writer::new().text("db", "shop").text("coll", "orders").finish();
        let whole = Writer::new()
            .document("_id", &token)
            .text("operationType", "delete")
            .timestamp("clusterTime", 5 << 32)
            .document("ns", &namespace)
            .finish();
        let event = ChangeEvent::read(Document::new(&whole).unwrap(), "shop").unwrap();
        assert_eq!((event.kind, event.collection, event.committed_at()), (Kind::Delete, "orders", 5_000_000));
        assert_eq!(ChangeEvent::read(Document::new(&whole).unwrap(), "other").unwrap().collection, "", "of another database");
        let lacking = Writer::new().document("_id", &token).text("operationType", "delete").finish();
        assert!(ChangeEvent::read(Document::new(&lacking).unwrap(), "shop").is_err());
    }
}
