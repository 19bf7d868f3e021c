//! Problems and warnings of a server, found all at once before anything is read.

use super::options;
use crate::contract_source::{Refusal, assert_found, feed, verify};
use crate::servers::mysql::{MySql, Options as ServerOptions};
use feedline::event::Operations;
use feedline::fault::{Classify as _, Code};
use feedline::feed::{Catalogue, Feed, Feeds, PrefeedKind};
use feedline::net::TlsMode;
use feedline::preflight::Findings;
use feedline::source::SourceConnector as _;
use feedline::source::mysql::{Connector, Options};
use feedline::status::metrics::Metrics;
use std::sync::Arc;

/// A connector of this user, with these feeds selected.
fn connector(server: &MySql, user: &str, database: &str, feeds: Vec<Feed>) -> Connector {
    let password = (user != "root").then_some("secret");
    let options = Options { database: database.to_owned(), ..options(server, user, password, TlsMode::VerifyFull) };
    let mut connector = Connector::new(options, Metrics::new("shop").source);
    connector.select(Arc::new(Feeds::new(feeds)));
    connector
}

/// A feed whose rows are read.
fn reading(database: &str, table: &str, key: &[&str]) -> Feed {
    feed(database, table, key, Operations::ALL)
}

async fn refusals(server: &MySql, user: &str, database: &str, feeds: &[Feed]) -> Vec<Refusal> {
    let mut connector = connector(server, user, database, feeds.to_vec());
    // As a start does, which looks at the catalogue first.
    let _any: Result<Catalogue, _> = connector.catalogue().await;
    verify(&mut connector).await.err().unwrap_or_default()
}

async fn findings(server: &MySql, database: &str, feeds: Vec<Feed>) -> Findings {
    let mut connector = connector(server, "root", database, feeds);
    connector.catalogue().await.unwrap();
    connector.preflight().await.unwrap()
}

/// The statements that these errors print, as they stand.
fn remedies(errors: &[Refusal]) -> Vec<String> {
    let statement = |error: &Refusal| {
        error.to_string().split_once("; run: ").map(|(_, rest)| rest.split_once(", ").map_or(rest, |(s, _)| s).to_owned())
    };
    errors.iter().filter_map(statement).collect()
}

#[tokio::test]
async fn everything_that_a_user_lacks_is_named_with_its_grant() {
    let server = MySql::shared();
    let database = server.create_database("poor");
    server.sql(&database, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE `b``c` (id int PRIMARY KEY)");
    let user = server.create_user("poor", "secret", "USAGE");
    let feeds = [reading(&database, "a", &["id"]), reading(&database, "b`c", &["id"])];

    let refused = connector(server, &user, &database, Vec::new()).catalogue().await.unwrap_err();
    assert_eq!(refused.code(), Code::SourcePrivilege, "{refused}");
    server.sql("", remedies(&[Refusal::fatal(refused.code(), refused.to_string())]).first().unwrap());
    server.sql("", &format!("REVOKE SELECT ON `{database}`.* FROM {user}@'%'; GRANT SELECT (id) ON `{database}`.a TO {user}@'%'"));

    let errors = refusals(server, &user, &database, &feeds).await;
    let (a, b) = (format!("GRANT SELECT ON `{database}`.`a` TO '{user}'@'%'"), format!("GRANT SELECT ON `{database}`.`b``c` TO"));
    let end = if server.is_mariadb() { "GRANT BINLOG MONITOR ON *.*" } else { "GRANT REPLICATION CLIENT ON *.*" };
    let lock = format!("GRANT LOCK TABLES ON `{database}`.*");
    let mut expected: Vec<(Code, &[&str])> =
        vec![(Code::SourcePrivilege, &["GRANT REPLICATION SLAVE ON *.* TO"]), (Code::SourcePrivilege, &["GRANT PROCESS ON *.*"])];
    let (end, lock, a, b) = ([end], [lock.as_str()], [a.as_str()], [b.as_str()]);
    expected.push((Code::SourcePrivilege, &end));
    if !server.is_mariadb() {
        expected.push((Code::SourcePrivilege, &lock));
    }
    expected.push((Code::SourcePrivilege, &a));
    // The table that the user may not see seems to be gone.
    expected.extend([(Code::SourcePrivilege, &b[..]), (Code::TableChanged, &["b`c", "no longer exists"][..])]);
    assert_found(&errors, &expected);
    for statement in remedies(&errors) {
        server.sql("", &statement);
    }
    assert_found(&refusals(server, &user, &database, &feeds).await, &[]);
}

#[tokio::test]
async fn privileges_of_an_active_role_count() {
    let server = MySql::shared();
    let database = server.create_database("role");
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)");
    let user = server.create_user("role", "secret", "USAGE");
    let activate = if server.is_mariadb() {
        format!("SET DEFAULT ROLE reader_{user} FOR {user}@'%'")
    } else {
        format!("ALTER USER {user}@'%' DEFAULT ROLE reader_{user}")
    };
    server.sql(
        "",
        &format!(
            "CREATE ROLE reader_{user}; GRANT REPLICATION SLAVE, REPLICATION CLIENT, PROCESS ON *.* TO reader_{user}; \
             GRANT SELECT, LOCK TABLES ON `{database}`.* TO reader_{user}; GRANT reader_{user} TO {user}@'%'; {activate}"
        ),
    );
    assert_found(&refusals(server, &user, &database, &[reading(&database, "t", &["id"])]).await, &[]);
}

#[tokio::test]
async fn tables_that_cannot_be_followed_are_named_with_the_statement_that_mends_them() {
    let server = MySql::shared();
    let database = server.create_database("unfit");
    server.sql(
        &database,
        "CREATE TABLE keyless (id int); CREATE TABLE named (id int NOT NULL, UNIQUE (id)); CREATE TABLE nullable (id int, UNIQUE (id)); \
         CREATE TABLE forgets (id int PRIMARY KEY) ENGINE = MEMORY; CREATE TABLE plain (id int PRIMARY KEY) ENGINE = MyISAM; \
         CREATE TABLE old (id int PRIMARY KEY, t varchar(9) CHARACTER SET sjis, e enum('a') CHARACTER SET big5); \
         CREATE TABLE prefix (id varchar(20) PRIMARY KEY, t text, UNIQUE (t(3)))",
    );
    let keys: [(&str, &[&str]); 7] = [
        ("keyless", &[]),
        ("named", &[]),
        ("nullable", &["id"]),
        ("forgets", &["id"]),
        ("plain", &["id"]),
        ("old", &["id"]),
        ("prefix", &["id"]),
    ];
    let mut feeds: Vec<Feed> = keys.iter().map(|(table, key)| reading(&database, table, key)).collect();
    let mut expected: Vec<(Code, &[&str])> = vec![
        (Code::TableKeyless, &["keyless", "no primary key", "ADD PRIMARY KEY"]),
        (Code::TableKeyless, &["named", "no primary key", "key = [\"id\"]"]),
        (Code::TableKeyless, &["nullable", "`id` may be null"]),
        (Code::MySqlTableUnfit, &["forgets", "MEMORY", "ENGINE = InnoDB"]),
        (Code::MySqlTableUnfit, &["plain", "MyISAM", "ENGINE = InnoDB"]),
        (Code::MySqlTableUnfit, &["old", "`t` (sjis), `e` (big5)", "CONVERT TO CHARACTER SET utf8mb4"]),
    ];
    if server.is_mariadb() {
        server.sql(&database, "CREATE TABLE versions (id int PRIMARY KEY) WITH SYSTEM VERSIONING");
        feeds.push(reading(&database, "versions", &["id"]));
        expected.push((Code::MySqlTableUnfit, &["versions", "DROP SYSTEM VERSIONING"]));
    }
    let errors = refusals(server, "root", &database, &feeds).await;
    assert_found(&errors, &expected);

    for statement in remedies(&errors) {
        server.sql(&database, &statement.replace("(...)", "(id)"));
    }
    server.sql(&database, "ALTER TABLE nullable MODIFY id int NOT NULL");
    for feed in &mut feeds {
        feed.key = vec!["id".into()];
    }
    assert_found(&refusals(server, "root", &database, &feeds).await, &[]);

    // Without rows to read, such an engine is a risk only.
    server.sql(&database, "ALTER TABLE plain ENGINE = MyISAM");
    let plain = Feed { prefeed: PrefeedKind::None, ..reading(&database, "plain", &["id"]) };
    let found = findings(server, &database, vec![plain]).await;
    assert!(found.refusals.is_empty(), "{found:#?}");
    assert!(
        found.warnings.iter().any(|warning| warning.code == Code::MySqlTableUnfit && warning.message.contains("`plain` (MyISAM)")),
        "{found:#?}"
    );
}

#[tokio::test]
async fn foreign_keys_that_change_rows_unseen_are_warned_of() {
    let server = MySql::shared();
    let database = server.create_database("cascades");
    server.sql(
        &database,
        "CREATE TABLE parent (id int PRIMARY KEY); \
         CREATE TABLE strict (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id)); \
         CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
    );
    // A user that may only read sees them too.
    let user = server.create_user("cascades", "secret", "SELECT, REPLICATION SLAVE, REPLICATION CLIENT, PROCESS, LOCK TABLES");
    let feeds = ["parent", "strict", "child"].map(|table| reading(&database, table, &["id"])).to_vec();
    let mut connector = connector(server, &user, &database, feeds);
    connector.catalogue().await.unwrap();
    let found = connector.preflight().await.unwrap();
    let cascades: Vec<_> = found.warnings.iter().filter(|warning| warning.code == Code::MySqlCascades).collect();
    if !server.is_mariadb() {
        // It logs them.
        return assert!(cascades.is_empty(), "{found:#?}");
    }
    let [warning] = cascades[..] else { panic!("{found:#?}") };
    let (child, strict) = (format!("`{database}`.`child`"), format!("`{database}`.`strict`"));
    assert!(warning.message.contains(&child) && !warning.message.contains(&strict), "{warning:#?}");
}

#[tokio::test]
async fn a_log_that_leaves_something_out_is_refused_with_the_statement_that_completes_it() {
    let settings =
        [("binlog_format", "MIXED"), ("binlog_row_image", "MINIMAL"), ("binlog_row_metadata", "MINIMAL"), ("binlog_ignore_db", "ignored")];
    let server = MySql::start(&ServerOptions { settings: settings.into(), ..ServerOptions::default() });
    server.sql("", "CREATE DATABASE ignored; CREATE TABLE ignored.t (id int PRIMARY KEY)");
    let feeds = [reading("ignored", "t", &["id"])];
    let errors = refusals(&server, "root", "ignored", &feeds).await;
    assert_found(
        &errors,
        &[
            (Code::MySqlUnsuitable, &["binlog_format is MIXED", "SET GLOBAL binlog_format = 'ROW'"]),
            (Code::MySqlUnsuitable, &["binlog_row_image is MINIMAL", "SET GLOBAL binlog_row_image = 'FULL'"]),
            (Code::MySqlUnsuitable, &["binlog_row_metadata is MINIMAL", "SET GLOBAL binlog_row_metadata = 'FULL'"]),
            (Code::MySqlUnsuitable, &["`ignored`", "binlog_ignore_db"]),
        ],
    );
    for statement in remedies(&errors) {
        server.sql("", &statement);
    }
    let errors = refusals(&server, "root", "ignored", &feeds).await;
    assert_found(&errors, &[(Code::MySqlUnsuitable, &["`ignored`", "binlog_ignore_db"])]);
}

#[tokio::test]
async fn a_server_without_a_log_and_risky_settings_are_named() {
    let without = MySql::start(&ServerOptions { settings: vec![("skip-log-bin", "1")], ..ServerOptions::default() });
    without.sql("", "CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)");
    let feeds = vec![reading("shop", "t", &["id"])];
    let errors = refusals(&without, "root", "shop", &feeds).await;
    assert!(errors.iter().any(|error| error.code() == Code::MySqlUnsuitable && error.to_string().contains("log_bin")), "{errors:#?}");

    let settings = [("sync_binlog", "0"), ("binlog_expire_logs_seconds", "7200"), ("binlog_checksum", "NONE")];
    let risky = MySql::start(&ServerOptions { settings: settings.into(), ..ServerOptions::default() });
    risky.sql("", "CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)");
    let found = findings(&risky, "shop", feeds).await;
    assert!(found.refusals.is_empty(), "{found:#?}");
    let warned = |code, word: &str| found.warnings.iter().any(|warning| warning.code == code && warning.message.contains(word));
    assert!(warned(Code::MySqlLogPerishable, "after 2 h"), "{found:#?}");
    assert!(warned(Code::MySqlLogFragile, "sync_binlog = 1") && warned(Code::MySqlLogFragile, "binlog_checksum"), "{found:#?}");
    assert!(found.actions.iter().any(|action| action.contains("read the binary log of") && action.contains("7000000")), "{found:#?}");
}

#[tokio::test]
async fn the_catalogue_lists_tables_with_all_columns_and_keys_in_table_order() {
    let server = MySql::shared();
    let database = server.create_database("catalogue");
    server.sql(
        &database,
        "CREATE TABLE `ünï ``.\"日` (b int, a int, `v 1` int AS (a + b) VIRTUAL, PRIMARY KEY (a, b)); CREATE VIEW seen AS SELECT 1; \
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2; CREATE TABLE none (id int)",
    );
    let hidden = if server.is_mariadb() { "INVISIBLE" } else { "INVISIBLE DEFAULT 1" };
    server.sql(&database, &format!("ALTER TABLE none ADD hidden int {hidden}"));
    let catalogue = connector(server, "root", &database, Vec::new()).catalogue().await.unwrap();
    assert_eq!(*catalogue.database, *database);
    assert!(!catalogue.tables.iter().any(|table| &*table.schema == "mysql"), "the server's own tables");
    let own = catalogue.tables.iter().filter(|table| *table.schema == *database);
    let shown: Vec<_> = own.map(|table| (&*table.name, table.primary_key.join(","), table.columns.join(","))).collect();
    let of = |name, key: &str, columns: &str| (name, key.to_owned(), columns.to_owned());
    assert_eq!(shown, [of("none", "", "id,hidden"), of("parts", "id", "id"), of("ünï `.\"日", "b,a", "b,a,v 1")]);
}
