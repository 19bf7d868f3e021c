//! The same work, done by the server's tools.

use crate::{meter::timed, servers::postgres::Postgres};
use std::time::Duration;

/// How long the server takes to print the table, without a reader.
pub(crate) fn copy(postgres: &Postgres, database: &str) -> Duration {
    timed(|| {
        let mut psql = postgres.psql_command(database);
        let status = psql.args(["-c", "COPY event TO STDOUT"]).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "COPY: {status}");
    })
}
