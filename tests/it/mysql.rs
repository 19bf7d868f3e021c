//! The client of MySQL and MariaDB, against a real server: the distribution's MariaDB, or what `FEEDLINE_MYSQL` asks for.

use crate::servers::mysql::MySql;
use feedline::{
    fault::{Classify as _, Code, Fault},
    net::{RequireAuth, TlsMode, Trust, secret::Secret},
    source::mysql::{
        Error, Events, GtidSet, Options, SameServer, Session, Start,
        binlog::{Event, Message, Value, decode},
        charset::Charsets,
    },
};
use std::time::Duration;

mod contract;
mod crashed;
mod events;
mod failover;
mod gap;
mod many;
mod names;
mod preflight;
mod query;
mod reader;
mod reading;
mod retention;
mod snapshots;
mod types;
mod visibility;
mod world;

fn options(server: &MySql, user: &str, password: Option<&str>, mode: TlsMode) -> Options {
    let ca_file = (mode != TlsMode::Disable).then(|| server.ca_file());
    Options {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        user: user.to_owned(),
        password: password.map(|password| Secret::new(password.to_owned())),
        database: "mysql".to_owned(),
        trust: Trust { mode, ca_file, client: None, section: "source" },
        require_auth: RequireAuth::default(),
        server_id: 7_000_000,
        prefeed_readers: 2,
        pipeline: "shop".into(),
        server: SameServer::default(),
    }
}

/// Whether the server lets this user in, through TLS and without.
async fn logins(server: &MySql, user: &str, password: &str) -> [Result<(), Error>; 2] {
    let open = async |mode| Session::open(&options(server, user, Some(password), mode)).await.map(drop);
    [open(TlsMode::VerifyFull).await, open(TlsMode::Disable).await]
}

#[tokio::test]
async fn a_session_runs_statements_one_after_the_other() {
    let server = MySql::shared();
    let mut session = Session::open(&options(server, "root", None, TlsMode::Disable)).await.unwrap();
    assert_eq!(session.is_mariadb(), server.is_mariadb());
    let rows = session.query("SELECT 1, NULL, 'ä' UNION SELECT 2, '', @@time_zone").await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    assert_eq!(shown, [[Some("1"), None, Some("ä")], [Some("2"), Some(""), Some("+00:00")]]);

    let refused = session.query("SELEKT").await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::MySqlRefused, Fault::Fatal), "{refused}");
    assert!(session.query("DO 1").await.unwrap().is_empty());

    let cancelled = tokio::time::timeout(Duration::from_millis(20), session.query("SELECT SLEEP(0.3), 'late'")).await;
    assert!(cancelled.is_err());
    assert_eq!(session.query("SELECT 'next'").await.unwrap()[0].text(0), "next");
}

#[tokio::test]
async fn answers_of_16_mib_and_more_come_in_parts() {
    let mut session = Session::open(&options(MySql::shared(), "root", None, TlsMode::Disable)).await.unwrap();
    // The length of the value takes four bytes: the second one fills its part to the last byte.
    for length in [16_777_210, 16_777_211, 16_777_212, 40_000_000] {
        let rows = session.query(&format!("SELECT REPEAT('x', {length}), 'end'")).await.unwrap();
        assert_eq!((rows[0].text(0).len(), rows[0].text(1)), (length, "end"));
    }
    assert_eq!(session.query("SELECT 'next'").await.unwrap()[0].text(0), "next");
}

#[tokio::test]
async fn users_log_in_by_the_method_that_the_server_has_for_them() {
    let server = MySql::shared();
    let methods: &[&str] = if !server.is_mariadb() {
        &["WITH caching_sha2_password BY 'it''s'"]
    } else if server.is_distributed() {
        server.sql("", "INSTALL SONAME 'auth_ed25519'");
        &["VIA mysql_native_password USING PASSWORD('it''s')", "VIA ed25519 USING PASSWORD('it''s')"]
    } else {
        // The package of this version has no plugins.
        &["VIA mysql_native_password USING PASSWORD('it''s')"]
    };
    for (number, method) in methods.iter().enumerate() {
        let user = format!("login_{number}");
        server.sql("", &format!("CREATE USER {user}@'%' IDENTIFIED {method}"));
        for (wrong, login) in ["its", ""].into_iter().zip([logins(server, &user, "its").await, logins(server, &user, "").await]) {
            for refused in login.map(Result::unwrap_err) {
                assert_eq!(refused.code(), Code::SourceAuthentication, "{method} {wrong:?}: {refused}");
            }
        }
        // The first login through TLS shows the password to the verified server, which remembers it for the second.
        for login in logins(server, &user, "it's").await {
            login.unwrap_or_else(|error| panic!("{method}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_does_not_see_the_password() {
    let server = MySql::shared();
    if server.is_mariadb() {
        // Its methods answer a challenge.
        return;
    }
    server.sql("", "CREATE USER unproven@'%' IDENTIFIED WITH caching_sha2_password BY 'secret'");
    let refused = Session::open(&options(server, "unproven", Some("secret"), TlsMode::Disable)).await.unwrap_err();
    assert!(matches!(refused, Error::Unproven { .. }), "{refused}");
    let accepting = Options { require_auth: RequireAuth::Password, ..options(server, "unproven", Some("secret"), TlsMode::Disable) };
    Session::open(&accepting).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let server = MySql::shared();
    let mut stranger = options(server, "root", None, TlsMode::VerifyFull);
    stranger.trust.ca_file = None;
    let refused = Session::open(&stranger).await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceTls, Fault::Fatal), "{refused}");
    assert!(refused.to_string().contains("source.ca_file"), "{refused}");
}

#[tokio::test]
async fn all_sessions_of_a_pipeline_reach_one_server() {
    let options = options(MySql::shared(), "root", None, TlsMode::Disable);
    let (_first, _second) = (Session::open(&options).await.unwrap(), Session::open(&options).await.unwrap());
    let other = MySql::start(&crate::servers::mysql::Options::default());
    let refused = Session::open(&Options { port: other.port(), ..options }).await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceForeign, Fault::Transient), "{refused}");
}

#[tokio::test]
async fn single_byte_text_is_decoded_as_the_server_converts_it() {
    let mut session = Session::open(&options(MySql::shared(), "root", None, TlsMode::Disable)).await.unwrap();
    let charsets = Charsets::read(&mut session).await.unwrap();
    let ids = if session.is_mariadb() {
        "SELECT a.ID, a.CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY a \
         JOIN information_schema.CHARACTER_SETS s USING (CHARACTER_SET_NAME) WHERE MAXLEN = 1 AND a.CHARACTER_SET_NAME <> 'binary'"
    } else {
        "SELECT a.ID, a.CHARACTER_SET_NAME FROM information_schema.COLLATIONS a \
         JOIN information_schema.CHARACTER_SETS s USING (CHARACTER_SET_NAME) WHERE MAXLEN = 1 AND a.CHARACTER_SET_NAME <> 'binary'"
    };
    let collations = session.query(ids).await.unwrap();
    assert!(60 < collations.len(), "{}", collations.len());
    for row in collations {
        let charset = charsets.get(row.text(0).parse().unwrap()).unwrap_or_else(|| panic!("{}", row.text(1)));
        assert_eq!(charset.name(), row.text(1));
        let text: Vec<u8> = (0x20..=0xFF).filter(|byte| charset.decode(&[*byte], &mut String::new()).is_some()).collect();
        assert!(90 < text.len(), "{}: {}", row.text(1), text.len());
        let hex = text.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
        let theirs = session.query(&format!("SELECT CONVERT(CONVERT(UNHEX('{hex}') USING {}) USING utf8mb4)", row.text(1))).await.unwrap();
        assert_eq!(charset.decode(&text, &mut String::new()), theirs[0].get(0), "{}", row.text(1));
    }
}

/// Where the log ends: by transactions, and as a place in a file.
struct End {
    gtids: String,
    file: String,
    position: u32,
}

async fn end_of_log(session: &mut Session) -> End {
    let (gtids, status) = if session.is_mariadb() {
        ("SELECT @@GLOBAL.gtid_binlog_pos", "SHOW MASTER STATUS")
    } else {
        ("SELECT @@GLOBAL.gtid_executed", "SHOW BINARY LOG STATUS")
    };
    let gtids = session.query(gtids).await.unwrap()[0].text(0).to_owned();
    let status = &session.query(status).await.unwrap()[0];
    End { gtids, file: status.text(0).to_owned(), position: status.text(1).parse().unwrap() }
}

/// Reads the log until it has shown this many rows, and returns their keys and how many bytes their texts have.
async fn rows(events: &mut Events, count: usize) -> Vec<(i64, usize)> {
    let (mut rows, mut table, mut unpacked) = (Vec::new(), None, Vec::new());
    while rows.len() < count {
        let Some(arrived) = events.arrived().unwrap() else {
            tokio::time::timeout(Duration::from_mins(1), events.read()).await.expect("the log goes on").unwrap();
            continue;
        };
        let event: Event<'_> = events.event(&arrived).unwrap();
        match decode(&event).unwrap() {
            Message::TableMap(map) => table = Some(map.read().unwrap()),
            Message::Rows(event_rows) => {
                let columns = &table.as_ref().unwrap().columns;
                let mut changes = event_rows.changes(columns, event_rows.rows.unpack(&mut unpacked).unwrap()).unwrap();
                while let Some(change) = changes.next_row().unwrap() {
                    let values: Vec<_> = change.new.unwrap().values().collect::<Result<_, _>>().unwrap();
                    let [Value::Signed(key), Value::Characters(text)] = values[..] else { panic!("{values:?}") };
                    rows.push((key, text.len()));
                }
            }
            _ => {}
        }
        events.consume(&arrived).unwrap();
    }
    rows
}

#[tokio::test]
async fn the_log_is_read_from_where_it_is_asked_for() {
    let server = MySql::start(&crate::servers::mysql::Options::default());
    let options = options(&server, "root", None, TlsMode::VerifyFull);
    let mut session = Session::open(&options).await.unwrap();
    session.query("CREATE DATABASE log").await.unwrap();
    session.query("CREATE TABLE log.t (id int PRIMARY KEY, text longtext)").await.unwrap();
    session.query("INSERT INTO log.t VALUES (1, 'before')").await.unwrap();
    let end = end_of_log(&mut session).await;
    session.query("INSERT INTO log.t VALUES (2, 'a')").await.unwrap();
    // Its event comes in two parts.
    session.query("INSERT INTO log.t VALUES (3, REPEAT('b', 17000000))").await.unwrap();
    session.query("FLUSH BINARY LOGS").await.unwrap();
    session.query("INSERT INTO log.t VALUES (4, 'c'), (5, '')").await.unwrap();

    let set: GtidSet = if server.is_mariadb() { GtidSet::default() } else { end.gtids.parse().unwrap() };
    let by_gtid = if server.is_mariadb() { Start::MariaGtid(&end.gtids) } else { Start::MySqlGtid(&set) };
    let by_file = Start::File { name: &end.file, position: end.position };
    for (number, start) in [by_gtid, by_file].iter().enumerate() {
        let number = 7_000_001 + u32::try_from(number).unwrap();
        let mut events = Events::open(Session::open(&options).await.unwrap(), number, "feedline/shop", start).await.unwrap();
        assert_eq!(rows(&mut events, 4).await, [(2, 1), (3, 17_000_000), (4, 1), (5, 0)], "{start:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_refused_with_the_servers_words() {
    let options = options(MySql::shared(), "root", None, TlsMode::Disable);
    let start = Start::File { name: "nothing.000001", position: 4 };
    let mut events = Events::open(Session::open(&options).await.unwrap(), 7_000_009, "feedline/shop", &start).await.unwrap();
    let refused = loop {
        match events.arrived() {
            Ok(Some(arrived)) => events.consume(&arrived).unwrap(),
            Ok(None) => {
                events.read().await.unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, Error::LogLost { .. }), "{refused}");
}
