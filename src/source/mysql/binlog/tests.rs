//! Decodes logs that were recorded from real servers: complete, cut at every byte, and damaged.
//!
//! The logs are in `tests/golden/binlog`, with the statements that made them; `GOLDEN_WRITE=1` writes what is expected of them.

use super::{
    Change, Checksum, DECIMAL_LENGTH_MAX, Event, Image, Malformed, Message, RowChange, Rows, Table, Text, Value, apply_json_diff, decode,
    write_json,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The recorded logs.
pub(in crate::source::mysql) const LOGS: [&str; 3] = ["mariadb-10.11", "mariadb-11.4", "mysql-9.7"];

/// A file beside a recorded log.
pub(in crate::source::mysql) fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/binlog").join(format!("{name}.{extension}"))
}

/// The events of a log's file, which follow four bytes that say what it is.
pub(in crate::source::mysql) fn events(name: &str) -> Vec<Vec<u8>> {
    let log = std::fs::read(path(name, "binlog")).unwrap();
    let mut rest = log.strip_prefix(b"\xFEbin").unwrap();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        let (event, after) = rest.split_at(length);
        events.push(event.to_vec());
        rest = after;
    }
    events
}

/// What a reader of a log keeps.
#[derive(Default)]
struct Log {
    tables: HashMap<u64, (String, Table)>,
    shown: String,
}

impl Log {
    fn show(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(self.shown, "{text}").unwrap();
        match decode(event)? {
            Message::Rotate(rotate) => line(format_args!("rotate {} {}", rotate.file, rotate.position)),
            Message::FormatDescription(format) => line(format_args!("format {} {:?}", format.server_version, format.checksum)),
            Message::Heartbeat(_) => line(format_args!("heartbeat")),
            Message::MariaGtid(begin) => {
                let at = begin.gtid;
                line(format_args!(
                    "gtid {}-{}-N {:?} transactional={} {:?}",
                    at.domain, at.server, begin.ends, begin.is_transactional, begin.xa
                ));
            }
            Message::MariaGtidList(list) => line(format_args!("gtids {}", list.iter().count())),
            Message::MySqlGtid(begin) => {
                let tag = begin.gtid.map(|gtid| gtid.tag);
                line(format_args!("gtid tag={tag:?} time={}", begin.committed_at.is_some()));
            }
            Message::Query(query) => {
                let mut space = Vec::new();
                let sql = String::from_utf8_lossy(query.sql.unpack(&mut space)?).replace('\n', " ");
                line(format_args!("query {sql}"));
            }
            Message::Xid(_) => line(format_args!("commit")),
            Message::XaPrepare(xa) => line(format_args!("prepare {:?}", (xa.is_one_phase, xa.format, xa.global, xa.branch))),
            Message::TableMap(map) => {
                let table = map.read()?;
                line(format_args!("table {}.{} key {:?}", map.schema, map.name, table.primary_key));
                self.tables.insert(map.id, (map.name.to_owned(), table));
            }
            Message::Rows(rows) => self.rows(&rows)?,
            Message::Payload(payload) => {
                line(format_args!("compressed transaction"));
                let (mut events, mut inner) = (payload.events()?, Vec::new());
                while events.next(&mut inner)? {
                    self.show(&Event::read_inner(&inner)?)?;
                }
            }
            Message::LoadedFile => line(format_args!("file")),
            Message::Incident => line(format_args!("incident")),
            Message::Nothing => {}
        }
        Ok(())
    }

    fn rows(&mut self, rows: &Rows<'_>) -> Result<(), Malformed> {
        let (name, table) = self.tables.get(&rows.table).ok_or(Malformed("definition of a table"))?;
        let mut space = Vec::new();
        let unpacked = rows.rows.unpack(&mut space)?;
        let mut changes = rows.changes(&table.columns, unpacked)?;
        while let Some(RowChange { old, new }) = changes.next_row()? {
            let change = match rows.change {
                Change::Insert => "insert",
                Change::Update => "update",
                Change::Delete => "delete",
            };
            writeln!(self.shown, "{change} {name}").unwrap();
            for (label, image) in [("old", old), ("new", new)] {
                if let Some(image) = image {
                    writeln!(self.shown, "  {label}{}", row(&image, old.as_ref())?).unwrap();
                }
            }
        }
        Ok(())
    }
}

fn row(image: &Image<'_>, old: Option<&Image<'_>>) -> Result<String, Malformed> {
    let mut shown = String::new();
    for (index, (column, value)) in image.columns().iter().zip(image.values()).enumerate() {
        let text = match value? {
            Value::Absent => continue,
            Value::JsonDiff(changes) => {
                let old = old.and_then(|old| old.values().nth(index)).transpose()?;
                match old {
                    Some(Value::Json(old)) => {
                        let (mut before, mut after) = (String::new(), String::new());
                        write_json(old, &mut before)?;
                        apply_json_diff(&before, changes, &mut after)?;
                        after
                    }
                    _ => "changes without the old value".to_owned(),
                }
            }
            value => show(&value)?,
        };
        let text = if 400 < text.len() { format!("{}...<{}>", text.chars().take(30).collect::<String>(), text.len()) } else { text };
        write!(shown, " {}={text}", column.name.as_deref().unwrap_or("?")).unwrap();
    }
    Ok(shown)
}

fn show(value: &Value<'_>) -> Result<String, Malformed> {
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
    };
    Ok(match value {
        Value::Null | Value::Absent => "NULL".to_owned(),
        Value::Signed(number) => number.to_string(),
        Value::Unsigned(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Double(number) => format!("{number:?}"),
        Value::Decimal(number) => number.write(&mut [0; DECIMAL_LENGTH_MAX]).to_owned(),
        Value::Date(date) => Text::of_date(*date).as_str().to_owned(),
        Value::Time(time, digits) => Text::of_time(*time, *digits).as_str().to_owned(),
        Value::DateTime(date, time, digits) => Text::of_date_time(*date, *time, *digits).as_str().to_owned(),
        Value::Timestamp(instant, digits) => Text::of_instant(*instant, *digits).as_str().to_owned(),
        Value::Label(number) => format!("label {number}"),
        Value::Labels(bits) => format!("labels {bits:b}"),
        Value::Characters(value) => bytes(value),
        Value::Compressed(value) => bytes(value.unpack(&mut Vec::new())?),
        Value::Json(document) => {
            let mut text = String::new();
            write_json(document, &mut text)?;
            text
        }
        Value::JsonDiff(changes) => bytes(changes),
    })
}

#[test]
fn logs_of_real_servers_are_read_to_their_end() {
    for name in LOGS {
        let mut log = Log::default();
        for event in events(name) {
            let event = Event::read(&event, Checksum::Crc32).unwrap();
            log.show(&event).unwrap_or_else(|error| panic!("{name}: {error} of kind {} after:\n{}", event.header.kind, log.shown));
        }
        let expected = path(name, "txt");
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            std::fs::write(&expected, &log.shown).unwrap();
        }
        assert_eq!(log.shown, std::fs::read_to_string(&expected).unwrap(), "{name}");
    }
}

#[test]
fn an_event_that_ends_early_is_refused_or_is_a_shorter_event() {
    for name in LOGS {
        let mut log = Log::default();
        for bytes in events(name) {
            let event = Event::read(&bytes, Checksum::Crc32).unwrap();
            for length in (0..event.body.len()).take(600) {
                let _refused: Result<(), Malformed> = log.show(&Event { body: &event.body[..length], ..event });
            }
            log.show(&event).unwrap();
            log.shown.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_events_cause_no_panic(log in 0..LOGS.len(), event in 0..300_usize, place in 0..10_000_usize, with in any::<u8>()) {
        static EVENTS: LazyLock<[Vec<Vec<u8>>; 3]> = LazyLock::new(|| LOGS.map(events));
        let events = &EVENTS[log];
        let number = event % events.len();
        let mut reader = Log::default();
        // Only its own table matters.
        if let Some(before) = number.checked_sub(1) {
            let _without_table: Result<(), Malformed> = reader.show(&Event::read(&events[before], Checksum::Crc32).unwrap());
        }
        let event = Event::read(&events[number], Checksum::Crc32).unwrap();
        let mut damaged = event.body.to_vec();
        if let Some(byte) = damaged.get_mut(place % event.body.len().max(1)) {
            *byte = with;
        }
        let _refused: Result<(), Malformed> = reader.show(&Event { body: &damaged, ..event });
    }
}
