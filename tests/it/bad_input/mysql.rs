//! Errors of MySQL and MariaDB that `feedline check` finds.

use super::{Input, Line, ORDERS, Program, STDOUT, assert_named, line};
use crate::servers::mysql::{MySql, Options};
use crate::servers::port;
use std::fmt::Write as _;

/// A source on this server, with these lines.
fn source(server: &MySql, database: &str, lines: &str) -> String {
    let mut source = String::from("kind = \"mysql\"\nhost = \"127.0.0.1\"\n");
    let port = server.port().to_string();
    for (key, value) in [("port", port.as_str()), ("user", "\"root\""), ("database", &format!("\"{database}\"")), ("tls", "\"disable\"")] {
        if !lines.contains(&format!("{key} =")) {
            writeln!(source, "{key} = {value}").unwrap();
        }
    }
    source + lines
}

fn lines(server: &MySql, database: &str, weak: &str, bad: &MySql) -> Vec<Line> {
    let free = port::free();
    let of = |lines: &str| Input::new(source(server, database, lines), ORDERS, STDOUT);
    let table = |feed: &str| Input::new(source(server, database, ""), &format!("[[feeds]]\n{feed}"), STDOUT);
    // The first login on MySQL shows the password itself.
    let user = |password: &str| of(&format!("user = \"{weak}\"\npassword_env = \"{password}\"\nrequire_auth = \"password\""));
    let unfit = || Input::new(source(bad, "shop", ""), ORDERS, STDOUT);
    let address = format!("127.0.0.1:{}", server.port());
    let (unknown, gone) = (format!("`{database}.none`"), format!("`{database}.seen`"));
    vec![
        line(
            "MySQL that is not there",
            of(&format!("port = {free}")),
            "FL2001",
            71,
            format!("127.0.0.1:{free}"),
            "check source.host and source.port",
        ),
        line("a wrong password", user("WRONG"), "FL2002", 71, weak, "source.password_file"),
        line("an authority that is not trusted", of("tls = \"verify_full\""), "FL2003", 71, &address, "set source.ca_file"),
        line("a user that may not read the log", user("SECRET"), "FL2004", 71, weak, "run: GRANT REPLICATION SLAVE ON *.* TO"),
        line("a setting of PostgreSQL", of("slot = \"a\""), "FL1005", 2, "source.slot", "leave it out"),
        line("a number that is no server's", of("server_id = 0"), "FL1003", 2, "source.server_id = 0", "from 1 to 4294967295"),
        line("a table that is not there", table(&format!("tables = [\"{database}.none\"]")), "FL1011", 2, unknown, "matches no table"),
        line("a view", table(&format!("tables = [\"{database}.seen\"]")), "FL1011", 2, gone, "is a view"),
        line("a table without a key", table("tables = [\"keyless\"]"), "FL2009", 71, "keyless", "ADD PRIMARY KEY"),
        line("a key that is not unique", table("tables = [\"keyless\"]\nkey = [\"a\"]"), "FL2009", 71, "`a`", "NOT NULL"),
        line("an engine without snapshots", table("tables = [\"plain\"]"), "FL2302", 71, "MyISAM", "ENGINE = InnoDB"),
        line("a character set that nobody else has", table("tables = [\"old\"]"), "FL2302", 71, "sjis", "CONVERT TO CHARACTER SET utf8mb4"),
        line(
            "a query that writes",
            table("tables = [\"orders\"]\nprefeed = { query = \"DELETE FROM orders\" }"),
            "FL5004",
            71,
            format!("{database}.orders"),
            "one SELECT that writes nothing",
        ),
        line("a log that is not of rows", unfit(), "FL2300", 71, "binlog_format", "SET GLOBAL binlog_format = 'ROW'"),
        line("a log without names", unfit(), "FL2300", 71, "binlog_row_metadata", "SET GLOBAL binlog_row_metadata = 'FULL'"),
    ]
}

#[test]
fn every_bad_input_of_mysql_is_named_with_its_remedy() {
    let (program, server) = (Program::new("mysql"), MySql::shared());
    let database = server.create_database("bad_input");
    server.sql(
        &database,
        "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE keyless (a int); CREATE TABLE plain (id int PRIMARY KEY) ENGINE = MyISAM; \
         CREATE TABLE old (id int PRIMARY KEY, t text CHARACTER SET sjis); CREATE VIEW seen AS SELECT 1",
    );
    let weak = server.create_user("weak", "secret", "SELECT");
    let bad =
        MySql::start(&Options { settings: vec![("binlog_format", "MIXED"), ("binlog_row_metadata", "MINIMAL")], ..Options::default() });
    bad.sql("", "CREATE DATABASE shop; CREATE TABLE shop.orders (id int PRIMARY KEY)");
    assert_named(lines(server, &database, &weak, &bad), |input| program.check(input));
    std::fs::remove_dir_all(&program.directory).unwrap();
}
