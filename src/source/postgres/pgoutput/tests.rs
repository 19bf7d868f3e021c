//! Decodes messages that were recorded from PostgreSQL 15: complete, cut at every byte, and damaged.

use super::{Identity, Message, Old, Relation, Tuple, Value, decode};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::Path;

/// Files in `tests/golden/pgoutput`, and their content.
const GOLDEN: &[(&str, &str)] = &[
    ("insert", "insert R: 1 new 10.50 <3000>"),
    ("update_unchanged_toast", "update R: 1 ~ 10.50 unchanged"),
    ("update_key", "update R identity 1 ~ ~ ~: 2 ~ 10.50 short"),
    ("delete_key", "delete R identity 2 ~ ~ ~"),
    ("update_full", "update R full 1 sad: 1 ok"),
    ("delete_full", "delete R full 1 ok"),
    ("update_index", "update R identity 1 7 ~: 1 8 ~"),
    ("relation_default", "relation public.orders Default *id:23 status:25 total:1700 note:25"),
    ("relation_full", "relation public.whole Full *id:23 *feeling:enum"),
    ("relation_index", "relation public.seats Index *id:23 *hall:23 taken:16"),
    ("truncate", "truncate 2"),
    ("type", "type"),
    ("origin", "origin"),
    ("logical", "logical"),
];

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pgoutput").join(name).with_extension("bin");
    std::fs::read(path).unwrap()
}

fn tuple(tuple: &Tuple<'_>) -> String {
    let shown = tuple.values().map(|value| match value {
        Value::Null => "~".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) if 20 < text.len() => format!("<{}>", text.len()),
        Value::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn old(old: &Old<'_>) -> String {
    match old {
        Old::Identity(row) => format!("identity {}", tuple(row)),
        Old::Full(row) => format!("full {}", tuple(row)),
    }
}

fn relation(relation: &Relation<'_>) -> String {
    let mut shown = format!("relation {}.{} {:?}", relation.schema, relation.name, relation.identity);
    for column in &relation.columns {
        let kind = if column.type_oid < 16_384 { column.type_oid.to_string() } else { "enum".to_owned() };
        write!(shown, " {}{}:{kind}", if column.identity { "*" } else { "" }, column.name).unwrap();
    }
    shown
}

fn show(message: &Message<'_>) -> String {
    match message {
        Message::Begin(_) => "begin".to_owned(),
        Message::Commit { .. } => "commit".to_owned(),
        Message::Relation(described) => relation(described),
        Message::Insert { new, .. } => format!("insert R: {}", tuple(new)),
        Message::Update { old: None, new, .. } => format!("update R: {}", tuple(new)),
        Message::Update { old: Some(before), new, .. } => format!("update R {}: {}", old(before), tuple(new)),
        Message::Delete { old: before, .. } => format!("delete R {}", old(before)),
        Message::Truncate(relations) => format!("truncate {}", relations.ids().len()),
        Message::Type => "type".to_owned(),
        Message::Origin => "origin".to_owned(),
        Message::Logical => "logical".to_owned(),
    }
}

#[test]
fn recorded_messages_are_decoded() {
    for (name, expected) in GOLDEN {
        assert_eq!(show(&decode(&golden(name)).unwrap()), *expected, "{name}");
    }
}

#[test]
fn a_commit_is_identified_by_the_start_of_its_record() {
    let (begin, commit) = (golden("begin"), golden("commit"));
    let Ok(Message::Begin(begin)) = decode(&begin) else { panic!("no begin") };
    let Ok(Message::Commit { commit_lsn, end_lsn }) = decode(&commit) else { panic!("no commit") };
    assert_eq!(begin.commit_lsn, commit_lsn);
    assert!(commit_lsn < end_lsn && 0 < begin.xid && 0 < begin.committed_at);
}

#[test]
fn a_row_belongs_to_the_relation_before_it() {
    let (described, row) = (golden("relation_default"), golden("insert"));
    let (Ok(Message::Relation(described)), Ok(Message::Insert { relation, new })) = (decode(&described), decode(&row)) else {
        panic!("a relation and a row")
    };
    assert_eq!((described.id, described.columns.len()), (relation, usize::from(new.columns())));
    assert_eq!(described.identity, Identity::Default);
}

#[test]
fn a_message_that_is_cut_or_too_long_is_refused() {
    let names = GOLDEN.iter().map(|(name, _)| *name).chain(["begin", "commit"]);
    for name in names {
        let mut bytes = golden(name);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{name} cut to {length} of {}", bytes.len());
        }
        bytes.push(0);
        assert!(decode(&bytes).is_err(), "{name} with one byte more");
    }
}

/// Reads all rows of a message that was accepted: each has as many values as it says.
fn walk(bytes: &[u8]) {
    let rows = match decode(bytes) {
        Ok(Message::Insert { new, .. } | Message::Update { old: None, new, .. }) => vec![new],
        Ok(Message::Update { old: Some(Old::Identity(old) | Old::Full(old)), new, .. }) => vec![old, new],
        Ok(Message::Delete { old: Old::Identity(old) | Old::Full(old), .. }) => vec![old],
        _ => Vec::new(),
    };
    for row in rows {
        assert_eq!(row.values().count(), usize::from(row.columns()));
    }
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(kind in prop::sample::select(b"BCRIUDTYOM".to_vec()), rest in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        walk(&bytes);
    }

    #[test]
    fn no_damage_causes_a_panic(which in 0..GOLDEN.len(), damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut bytes = golden(GOLDEN[which].0);
        for (at, byte) in damage {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        walk(&bytes);
    }
}
