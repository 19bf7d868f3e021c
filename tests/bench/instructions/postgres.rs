//! Rows of a PostgreSQL server.

use super::{Shape, run};
use feedline::{
    net::{RequireAuth, TlsMode, Trust},
    source::postgres::{Connector, OnAddedDefault, Options, SameServer},
    status::metrics::Metrics,
};
use std::process::Command;
use tokio::runtime::Runtime;

const TABLE: &str =
    "CREATE TABLE event (id bigint PRIMARY KEY, customer int, status text, amount numeric(12,2), note text, sent_us bigint)";

pub(crate) fn carry(runtime: &Runtime, port: u16, shape: Shape) -> u64 {
    let Shape { transactions, rows } = shape;
    let database = format!("rows_{rows}");
    psql(port, "postgres", &format!("CREATE DATABASE {database}"));
    psql(port, &database, TABLE);
    let write = format!(
        "DO $$ BEGIN FOR t IN 0..{transactions} - 1 LOOP \
         INSERT INTO event SELECT g, g % 1000, 'paid', (g % 10000) / 100.0, repeat(md5(g::text), 5), 0 \
         FROM generate_series(t * {rows}, (t + 1) * {rows} - 1) g; COMMIT; END LOOP; END $$"
    );
    super::carry(runtime, connector(port, &database), ("postgres", "public"), shape, || psql(port, &database, &write))
}

fn connector(port: u16, database: &str) -> Connector {
    let options = Options {
        host: "127.0.0.1".to_owned(),
        port,
        user: "postgres".to_owned(),
        password: None,
        database: database.to_owned(),
        trust: Trust { mode: TlsMode::Disable, section: "source", ..Trust::default() },
        slot: database.to_owned(),
        publication: database.to_owned(),
        manage: true,
        prefeed_readers: 1,
        require_auth: RequireAuth::Scram,
        on_added_default: OnAddedDefault::Prefeed,
        pipeline: "bench".into(),
        server: SameServer::default(),
    };
    Connector::new(options, Metrics::new("bench").source)
}

fn psql(port: u16, database: &str, statements: &str) {
    let port = port.to_string();
    run(Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-d", database])
        .args(["-c", statements]));
}
