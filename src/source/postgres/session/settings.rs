//! What every session is told of how to behave: the one place that keeps the server's, the database's and the role's own settings
//! from changing what we see, what is printed, or how long we may take.
//!
//! A parameter of the start-up message wins over `ALTER DATABASE ... SET` and `ALTER ROLE ... SET`. Parameters that only a
//! superuser may set, or that not every version knows, cannot stand there.

use crate::source::postgres::options::Options;
use crate::source::postgres::version::Version;
use crate::source::postgres::wire::{Wire, put_text};

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Queries.
    Ordinary,
    /// Replication commands, the log, and plain queries by the simple protocol.
    Replication,
}

const ALWAYS: [(&str, &str); 23] = [
    // How values print, whatever the database, the role or the server prefers.
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    // Shortest digits that round-trip.
    ("extra_float_digits", "1"),
    // How names and types are printed, and what we write is read.
    ("search_path", "pg_catalog"),
    // How `money` is printed.
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("xmloption", "content"),
    // Warnings are heard even where a role is told to hear errors alone.
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // Known from version 14 on; an earlier server refuses it by name.
    ("idle_session_timeout", "0"),
    ("lock_timeout", "0"),
    // A policy that hides rows from us is an error, and never a row that is missing.
    ("row_security", "off"),
    // A role that is read-only by default may still be given a publication to make; each look is a transaction of its own.
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A standby that is away holds nothing of ours up.
    ("synchronous_commit", "local"),
];

/// What a session that replicates is told beside that. Replicating is a privilege of the role that logs in, not of one that its
/// settings turn it into (`ALTER ROLE ... SET role`). Below this much memory the server spills large transactions to its disk,
/// at 1.8 times the cost.
const REPLICATION: [(&str, &str); 3] = [("replication", "database"), ("role", "none"), ("options", "-c logical_decoding_work_mem=256MB")];

/// Writes the start-up message.
pub(super) fn start_up(wire: &mut Wire, options: &Options, mode: Mode) {
    let application_name = format!("feedline/{}", options.pipeline);
    let ours = [("user", options.user.as_str()), ("database", options.database.as_str()), ("application_name", &application_name)];
    let of_mode: &[(&str, &str)] = if mode == Mode::Replication { &REPLICATION } else { &[] };
    wire.push(None, |out| {
        // Protocol 3.0.
        out.extend_from_slice(&196_608_u32.to_be_bytes());
        for (name, value) in ours.iter().chain(&ALWAYS).chain(of_mode) {
            put_text(out, name);
            put_text(out, value);
        }
        out.push(0);
    });
}

/// What is set once the server's version is known, as an expression. A session ends by itself when we are gone, whatever it waits
/// for; a server on Windows cannot see that, and refuses the setting.
pub(super) fn afterwards(version: Version) -> String {
    let set = |name: &str, value: &str| format!("pg_catalog.set_config('{name}', '{value}', false)");
    let whole = if version.has_transaction_timeout() { set("transaction_timeout", "0") } else { "NULL".to_owned() };
    let gone = set("client_connection_check_interval", "1s");
    format!("{whole}, CASE WHEN pg_catalog.version() !~* 'windows|visual c|mingw' THEN {gone} END")
}
