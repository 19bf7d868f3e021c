//! Ranges of `_id`, as bounds of its index. The server compares them, across the types of BSON and by the collection's collation.

use super::super::bson::{Document, Elements, Writer};
use super::super::document::KEY;
use crate::checkpoint::ScanPosition;
use crate::source::{Key, KeyRange, KeyRanges};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What ranges of a collection are ranges of: every collection has this key.
const FINGERPRINT: &str = "_id";
/// Marks a bound that no reader has read: it is the first key of its range, and the end of the one before it.
const UNREAD: &str = "from";

/// A value of `_id`: the number of its type, and its bytes.
type RawKey<'k> = (u8, &'k [u8]);

/// The ranges that remain; `None` where the position cannot be read.
pub(super) fn resume(after: &ScanPosition) -> Option<KeyRanges> {
    let fits = |range: &KeyRange| [&range.after, &range.until].into_iter().flatten().all(|key| bound(key).is_some());
    KeyRanges::resume(after, FINGERPRINT, fits)
}

/// What remains, as a checkpoint stores it.
pub(super) fn position(ranges: &KeyRanges) -> ScanPosition {
    ranges.position(FINGERPRINT)
}

/// The ranges between these documents, which are in the order of their `_id`.
pub(super) fn between(boundaries: &[Vec<u8>]) -> Vec<KeyRange> {
    let keys = boundaries.iter().filter_map(|document| key_of(Document::new(document).ok()?));
    KeyRange::between(keys.map(|key| vec![spelled(key), UNREAD.to_owned()]).collect())
}

/// The `_id` of a document.
pub(super) fn key_of(document: Document<'_>) -> Option<RawKey<'_>> {
    document.elements().flatten().find(|element| element.name == KEY.as_bytes()).map(|element| element.raw)
}

/// A key that was read.
pub(super) fn read(key: RawKey<'_>) -> Key {
    vec![spelled(key)]
}

fn spelled((kind, value): RawKey<'_>) -> String {
    STANDARD_NO_PAD.encode([&[kind][..], value].concat())
}

/// A bound: a document with the key alone, and whether its key was read.
fn bound(key: &Key) -> Option<(Vec<u8>, bool)> {
    let bytes = STANDARD_NO_PAD.decode(key.first()?).ok()?;
    let (kind, value) = bytes.split_first()?;
    let is_read = match key.get(1) {
        None => true,
        Some(mark) if mark == UNREAD => false,
        Some(_) => return None,
    };
    let document = Writer::new().raw(KEY, (*kind, value)).finish();
    // It must be one whole value.
    let mut elements = Elements::of(Document::new(&document).ok()?.content());
    (elements.next()?.is_ok() && elements.length() == 0).then_some((document, is_read))
}

/// The bounds of a range, for a `find` that reads the index of `_id`, and the key with which the range begins if it was read already.
pub(super) fn bounded(mut find: Writer, range: &KeyRange) -> (Writer, Option<Vec<u8>>) {
    let mut first = None;
    // `min` is the first key of the range, `max` the first one behind it.
    if let Some((document, is_read)) = range.after.as_ref().and_then(bound) {
        find = find.document("min", &document);
        first = is_read.then_some(document);
    }
    if let Some((document, _)) = range.until.as_ref().and_then(bound) {
        find = find.document("max", &document);
    }
    (find, first)
}

#[cfg(test)]
mod tests {
    use super::super::super::bson::{Document, Writer};
    use super::{between, bounded, position, read, resume};
    use crate::checkpoint::ScanPosition;
    use crate::source::KeyRanges;

    #[test]
    fn ranges_meet_at_a_key_that_one_of_them_reads() {
        let boundary = Writer::new().text("_id", "m").finish();
        let ranges = between(std::slice::from_ref(&boundary));
        let (first, skipped) = bounded(Writer::new(), &ranges[0]);
        assert_eq!((first.finish(), skipped), (Writer::new().document("max", &boundary).finish(), None));
        let (second, skipped) = bounded(Writer::new(), &ranges[1]);
        assert_eq!((second.finish(), skipped), (Writer::new().document("min", &boundary).finish(), None), "nobody has read it");
    }

    #[test]
    fn a_scan_goes_on_behind_the_last_key_of_any_type() {
        for key in
            [Writer::new().int("_id", 1), Writer::new().null("_id"), Writer::new().document("_id", &Writer::new().int("a", 1).finish())]
        {
            let key = key.finish();
            let mut ranges = KeyRanges::new(between(&[]));
            ranges.start_next();
            ranges.range_mut(0).unwrap().after = Some(read(super::key_of(Document::new(&key).unwrap()).unwrap()));
            let resumed = resume(&position(&ranges)).unwrap();
            let (find, skipped) = bounded(Writer::new(), resumed.next().unwrap().1);
            assert_eq!((find.finish(), skipped), (Writer::new().document("min", &key).finish(), Some(key)));
        }
        for wrong in [
            r#"{"key":"_id","ranges":[{"after":["?"]}]}"#,
            r#"{"key":"_id","ranges":[{"after":["EAE"]}]}"#,
            r#"{"key":"x","ranges":[]}"#,
            "",
        ] {
            assert!(resume(&ScanPosition(wrong.into())).is_none(), "{wrong}");
        }
    }
}
