//! Settings of every session. They keep the settings of the server, the database and the role from changing what feedline sees, how values
//! are printed, and how long statements may take.
//!
//! A parameter of the start-up message overrides `ALTER DATABASE ... SET` and `ALTER ROLE ... SET`. Parameters that only a superuser may set,
//! or that not every version knows, cannot stand there.

use crate::source::postgres::options::Options;
use crate::source::postgres::version::Version;
use crate::source::postgres::wire::{Wire, put_text};

/// The kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For queries.
    Ordinary,
    /// For replication commands, the log, and queries by the simple query protocol.
    Replication,
}

const ALWAYS: [(&str, &str); 23] = [
    // How values are printed.
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    // Shortest digits that round-trip.
    ("extra_float_digits", "1"),
    // How names and types are printed, and how statements are parsed.
    ("search_path", "pg_catalog"),
    // How `money` is printed.
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("xmloption", "content"),
    // Warnings are sent even if the role is set to receive only errors.
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // Exists since version 14; an older server refuses it by name.
    ("idle_session_timeout", "0"),
    ("lock_timeout", "0"),
    // A policy that would hide rows causes an error instead of missing rows.
    ("row_security", "off"),
    // A role that is read-only by default may still create a publication. Each query is a transaction of its own.
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // An absent standby does not delay these sessions.
    ("synchronous_commit", "local"),
];

/// Further settings of replication sessions. The right to replicate belongs to the login role, not to a role that its settings change to
/// (`ALTER ROLE ... SET role`). With less memory the server writes large transactions to disk, at 1.8 times the cost.
const REPLICATION: [(&str, &str); 3] = [("replication", "database"), ("role", "none"), ("options", "-c logical_decoding_work_mem=256MB")];

/// Queues the start-up message.
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

/// The SQL expression with the settings that depend on the server's version. `client_connection_check_interval` ends a session soon after its
/// client is gone, whatever it waits for. A server on Windows does not support it, and refuses it.
pub(super) fn afterwards(version: Version) -> String {
    let set = |name: &str, value: &str| format!("pg_catalog.set_config('{name}', '{value}', false)");
    let transaction_timeout = if version.has_transaction_timeout() { set("transaction_timeout", "0") } else { "NULL".to_owned() };
    let connection_check = set("client_connection_check_interval", "1s");
    format!("{transaction_timeout}, CASE WHEN pg_catalog.version() !~* 'windows|visual c|mingw' THEN {connection_check} END")
}
