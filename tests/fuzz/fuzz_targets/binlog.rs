//! No bytes make the decoder of the binary log panic, and what it accepts can be walked to its end.
#![no_main]

use feedline::source::mysql::binlog::{
    Checksum, DECIMAL_LENGTH_MAX, Event, Malformed, Message, Table, Value, apply_json_diff, decode, write_json,
};

/// The events of a log, one behind the other.
fn read(bytes: &[u8], table: &mut Option<Table>) -> Result<(), Malformed> {
    let mut rest = bytes;
    while let Some(length) = rest.get(9..13).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes) {
        let Some((event, after)) = rest.split_at_checked(length as usize) else { break };
        show(&Event::read(event, Checksum::None)?, table)?;
        rest = after;
        if length == 0 {
            break;
        }
    }
    Ok(())
}

fn show(event: &Event<'_>, table: &mut Option<Table>) -> Result<(), Malformed> {
    let mut space = Vec::new();
    match decode(event)? {
        Message::TableMap(map) => *table = Some(map.read()?),
        Message::Query(query) => {
            query.sql.unpack(&mut space)?;
        }
        Message::MariaGtidList(list) => assert!(list.iter().count() <= event.body.len()),
        Message::Rows(rows) => {
            let Some(table) = table else { return Ok(()) };
            let unpacked = rows.rows.unpack(&mut space)?;
            let mut changes = rows.changes(&table.columns, unpacked)?;
            while let Some(change) = changes.next_row()? {
                for image in [change.old, change.new].into_iter().flatten() {
                    assert_eq!(image.values().count(), table.columns.len());
                    image.values().try_for_each(|value| value.and_then(walk))?;
                }
            }
        }
        Message::Payload(payload) => {
            let mut events = payload.events()?;
            while events.next(&mut space)? {
                if !matches!(decode(&Event::read_inner(&space)?)?, Message::Payload(_)) {
                    show(&Event::read_inner(&space)?, table)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn walk(value: Value<'_>) -> Result<(), Malformed> {
    let mut text = String::new();
    match value {
        Value::Decimal(number) => text.push_str(number.write(&mut [0; DECIMAL_LENGTH_MAX])),
        Value::Json(document) => write_json(document, &mut text)?,
        Value::JsonDiff(changes) => apply_json_diff(r#"{"a":[1]}"#, changes, &mut text)?,
        Value::Compressed(value) => {
            value.unpack(&mut Vec::new())?;
        }
        _ => {}
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _malformed: Result<(), Malformed> = read(bytes, &mut None);
});
