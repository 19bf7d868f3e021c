//! The queries that feedline asks, in the JSON of the driver protocol (RethinkDB 2.4, `ql2.proto`, `Term.TermType`).

/// The next batch of a feed.
pub(super) const CONTINUE: &str = "[2]";
/// Which server this is. It is answered while a feed waits on the same connection.
pub(super) const SERVER_INFO: &str = "[5]";

const DATABASE: u8 = 14;
const TABLE: u8 = 15;
const TABLE_LIST: u8 = 62;
const INFO: u8 = 79;
const IS_EMPTY: u8 = 86;
const CHANGES: u8 = 152;

/// The names of a database's tables.
pub(super) fn table_list(database: &str) -> String {
    format!("[1,[{TABLE_LIST},[[{DATABASE},[{}]]]],{{}}]", quoted(database))
}

/// What a table is: its UUID and its database's, its primary key, an estimate of its documents.
pub(super) fn table_info(database: &str, table: &str) -> String {
    format!("[1,[{INFO},[{}]],{{}}]", table_term(database, table))
}

/// Whether a table has no documents. It reads one at most, and so needs the permission to read.
pub(super) fn is_empty(database: &str, table: &str) -> String {
    format!("[1,[{IS_EMPTY},[{}]],{{}}]", table_term(database, table))
}

/// A table's changefeed: its documents, then its changes, each of them (`squash` off).
pub(super) fn changes(database: &str, table: &str, queue_size: u32) -> String {
    let options = "\"include_initial\":true,\"include_states\":true,\"include_types\":true,\"squash\":false";
    format!("[1,[{CHANGES},[{}],{{{options},\"changefeed_queue_size\":{queue_size}}}],{{}}]", table_term(database, table))
}

fn table_term(database: &str, table: &str) -> String {
    format!("[{TABLE},[[{DATABASE},[{}]],{}]]", quoted(database), quoted(table))
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{changes, table_info};
    use serde_json::Value;

    #[test]
    fn a_feed_is_asked_for_as_a_recorded_client_did() {
        let recorded = include_bytes!("../../../tests/golden/rethinkdb/t5.c2s.bin");
        // Behind the handshake: the first frame, with its token and length.
        let start = recorded.windows(4).position(|window| window == b"[1, ").unwrap();
        let length = u32::from_le_bytes(recorded[start - 4..start].try_into().unwrap()) as usize;
        let recorded: Value = serde_json::from_slice(&recorded[start..start + length]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&changes("test", "t5", 100_000)).unwrap(), recorded);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(table_info("a\"b", "t"), r#"[1,[79,[[15,[[14,["a\"b"]],"t"]]]],{}]"#);
    }
}
