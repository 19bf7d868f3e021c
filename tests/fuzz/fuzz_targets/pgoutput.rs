//! No bytes make the decoder panic, and what it accepts can be walked to its end.
#![no_main]

use feedline::source::postgres::pgoutput::{Message, Old, Tuple, decode};

fn walk(tuple: Tuple<'_>) {
    assert_eq!(tuple.values().count(), usize::from(tuple.columns()));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(Message::Insert { new, .. }) => walk(new),
        Ok(Message::Update { old, new, .. }) => {
            if let Some(Old::Identity(old) | Old::Full(old)) = old {
                walk(old);
            }
            walk(new);
        }
        Ok(Message::Delete { old: Old::Identity(old) | Old::Full(old), .. }) => walk(old),
        Ok(Message::Truncate(relations)) => assert!(relations.ids().len() <= bytes.len()),
        Ok(_) | Err(_) => {}
    }
});
