//! Rows of a MariaDB server.

use super::{Shape, run};
use feedline::{
    net::{RequireAuth, TlsMode, Trust},
    source::mysql::{Connector, Options, SameServer},
    status::metrics::Metrics,
};
use std::process::Command;
use tokio::runtime::Runtime;

const TABLE: &str = "CREATE TABLE event (id bigint PRIMARY KEY, customer int, status varchar(20), amount decimal(12,2), note varchar(200), \
     sent_us bigint)";

pub(crate) fn carry(runtime: &Runtime, port: u16, shape: Shape) -> u64 {
    let Shape { transactions, rows } = shape;
    let database = format!("rows_{rows}");
    sql(port, "", &format!("CREATE DATABASE {database}"));
    sql(port, &database, TABLE);
    let write = format!(
        "FOR t IN 0..{transactions} - 1 DO INSERT INTO event \
         SELECT t * {rows} + seq, seq % 1000, 'paid', (seq % 10000) / 100.0, repeat(md5(seq), 5), 0 FROM seq_0_to_{}; END FOR",
        rows - 1
    );
    super::carry(runtime, connector(port, &database), ("mysql", &database), shape, || sql(port, &database, &write))
}

fn connector(port: u16, database: &str) -> Connector {
    let options = Options {
        host: "127.0.0.1".to_owned(),
        port,
        user: "root".to_owned(),
        password: None,
        database: database.to_owned(),
        trust: Trust { mode: TlsMode::Disable, section: "source", ..Trust::default() },
        require_auth: RequireAuth::Scram,
        server_id: fastrand::u32(1 << 30..),
        prefeed_readers: 1,
        pipeline: "bench".into(),
        server: SameServer::default(),
    };
    Connector::new(options, Metrics::new("bench").source)
}

/// One statement, or a compound one.
fn sql(port: u16, database: &str, statement: &str) {
    let (port, database) = (format!("--port={port}"), format!("--database={database}"));
    run(Command::new("mariadb")
        .args(["--no-defaults", "--skip-ssl", "--delimiter=//", "--host=127.0.0.1", "--user=root"])
        .args([&port, &database, "-e", statement]));
}
