//! Every session checks that it reached the same server, and works with whatever settings the server, the database or the role has.

use super::world::{Reader, TIMEOUT, World, feed};
use crate::contract_source::scan_all;
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use feedline::checkpoint::ResumeToken;
use feedline::event::FeedId;
use feedline::fault::{Classify, Code, Fault};
use feedline::net::secret::Secret;
use feedline::source::postgres::Error;
use feedline::source::{Prefeed, Probe as _, SourceConnector, ToRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'ours')";

/// An address that can lead to another server from one connection to the next.
struct Name {
    port: u16,
    leads_to: Arc<AtomicU16>,
}

impl Name {
    async fn of(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = Self { port: listener.local_addr().unwrap().port(), leads_to: Arc::new(AtomicU16::new(port)) };
        let leads_to = Arc::clone(&name.leads_to);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = leads_to.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                    }
                });
            }
        });
        name
    }

    fn leads_to(&self, port: u16) {
        self.leads_to.store(port, Ordering::Relaxed);
    }
}

fn elsewhere<T>(call: &str, result: Result<T, Error>) {
    let Err(error) = result else { panic!("{call} accepts another server") };
    assert!(matches!(error, Error::Elsewhere { .. }), "{call}: {error}");
    assert_eq!((error.code(), error.fault()), (Code::SourceUnreachable, Fault::Transient), "{call}: {error}");
}

/// The world of a pipeline on a server, and a copy of that server. The two differ only in their history.
struct Two {
    world: World,
    name: Name,
    ours: u16,
    copy: Postgres,
}

async fn two() -> Two {
    let mut primary = Postgres::start(&Options::default());
    let database = primary.create_database("source");
    primary.psql(&database, TABLE);
    let mut copy = primary.standby();
    let ours = primary.port();
    let mut world = World::within(Box::leak(Box::new(primary)), database, vec![feed("t", &["id"])]);
    wait_for("the copy has the row", TIMEOUT, || (copy.try_psql(&world.database, "SELECT note FROM t").ok()? == "ours").then_some(()));
    copy.kill();
    copy.promote();
    copy.psql(&world.database, "UPDATE t SET note = 'theirs'");
    let name = Name::of(ours).await;
    world.options.port = name.port;
    Two { world, name, ours, copy }
}

#[tokio::test]
async fn nothing_is_read_from_another_server_behind_the_same_name() {
    let Two { world, name, ours, copy } = two().await;
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    let mut connector = world.connector();
    connector.catalogue().await.unwrap();
    let mut reader = Reader::of(world.session(connector.connect(&identity, &resume).await.unwrap(), &resume), &token, 1 << 20);
    let mut rows = connector.prefeed().await.unwrap();
    let mut probe = connector.probe().await.unwrap();
    probe.head(&token).await.unwrap();
    name.leads_to(copy.port());
    elsewhere("a prefeed", connector.prefeed().await);
    elsewhere("a snapshot", rows.open(&[ToRead { feed: FeedId(0), after: None }], Duration::from_secs(5)).await);
    elsewhere("a probe", connector.probe().await);
    elsewhere("a preflight", connector.preflight().await);
    elsewhere("a claim", connector.unclaimed().await);
    elsewhere("an identity", connector.identity().await);
    elsewhere("a detach", connector.detach().await);
    elsewhere("a slot", connector.establish().await);
    // A probe that lost its connection opens another one.
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'feedline/shop' AND backend_type = 'client backend' AND datname = current_database()");
    assert!(probe.head(&token).await.is_err());
    elsewhere("a probe's second connection", probe.head(&token).await);
    // A change of the table in the log starts a survey, whose session finds the other server.
    world.server.psql(&world.database, "ALTER TABLE t ADD COLUMN extra int; INSERT INTO t VALUES (2, 'ours')");
    let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
    let error = loop {
        assert!(tokio::time::Instant::now() < deadline, "no survey is made");
        let ended = match reader.batch(None).await {
            Ok(_) => reader.log.acknowledge(Some(&token)).await.err(),
            Err(error) => Some(error),
        };
        if let Some(error) = ended {
            break error;
        }
    };
    elsewhere("a survey", Err::<(), _>(error));
    drop(reader);
    // A new connection of the log checks the identity of the server again.
    let error = connector.connect(&identity, &resume).await.err().unwrap();
    assert_eq!(error.fault(), Fault::Gap, "{error}");
    name.leads_to(ours);
    let log = wait_connected(&mut connector, &identity, &resume).await;
    drop(log);
    probe.head(&token).await.unwrap();
    connector.prefeed().await.unwrap();
    // A standby behind the same name is a transient error, not a gap.
    let mut second = copy;
    second.kill();
    std::fs::write(second.data_directory().join("standby.signal"), "").unwrap();
    second.restart();
    name.leads_to(second.port());
    let error = connector.connect(&identity, &resume).await.err().unwrap();
    assert!(matches!(error, Error::Standby { .. }) && error.fault() == Fault::Transient, "{error}");
}

async fn wait_connected(
    connector: &mut feedline::source::postgres::Connector,
    identity: &feedline::checkpoint::Identity,
    resume: &feedline::source::Resume,
) -> feedline::source::postgres::Log {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        match connector.connect(identity, resume).await {
            Err(Error::Busy { .. }) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            connected => return connected.unwrap(),
        }
    }
}

#[tokio::test]
async fn another_server_is_recognized_before_anything_is_changed() {
    let stranger = Postgres::start(&Options::default());
    stranger.psql("postgres", TABLE);
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, _) = world.establish().await;
    let mut options = world.options.clone();
    (options.port, options.database) = (stranger.port(), "postgres".to_owned());
    let there = World {
        options,
        database: "postgres".to_owned(),
        server: world.server,
        feeds: world.feeds.clone(),
        metrics: feedline::status::metrics::Metrics::new("shop"),
    };
    let mut connector = there.connector();
    connector.catalogue().await.unwrap();
    let error = connector.recognize(&identity).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceForeign, Fault::Gap), "{error}");
    world.connector().recognize(&identity).await.unwrap();
}

/// Settings of a role, a database or a server that would change what we see, how values are printed, or how long a statement may take.
const HOSTILE: [(&str, &str); 30] = [
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("search_path", "evil, public"),
    ("standard_conforming_strings", "off"),
    ("escape_string_warning", "on"),
    ("backslash_quote", "off"),
    ("quote_all_identifiers", "on"),
    ("bytea_output", "escape"),
    ("DateStyle", "SQL, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "Asia/Kathmandu"),
    ("extra_float_digits", "-15"),
    ("client_encoding", "LATIN1"),
    ("client_min_messages", "error"),
    ("statement_timeout", "1ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "1ms"),
    ("idle_session_timeout", "1ms"),
    ("client_connection_check_interval", "0"),
    ("row_security", "on"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("xmloption", "document"),
    ("xmlbinary", "hex"),
    ("session_replication_role", "replica"),
    ("log_statement", "all"),
    ("synchronous_commit", "off"),
    ("wal_sender_timeout", "1s"),
    ("enable_indexscan", "off"),
];

const VALUES: &str = "CREATE SCHEMA evil; CREATE FUNCTION evil.now() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
    CREATE TABLE t (id text PRIMARY KEY, at timestamptz, during interval, bytes bytea, ratio float8, texts text[], doc xml, money int[]); \
    ALTER TABLE t REPLICA IDENTITY FULL";
const ROW: &str = "('a\\b''c', '2026-01-02 03:04:05.678+00', '1 day 02:03:04.5', '\\x00ff5c', 0.1::float8 + 0.2, ARRAY['x', NULL, 'a\\b'], '<a/>', ARRAY[1, NULL])";

/// The `after` object of a row: live, and as an existing row.
async fn both(world: &World) -> [String; 2] {
    let mut reader = world.begin().await;
    world.sql(&format!("INSERT INTO t VALUES {ROW}"));
    let live = reader.take(1).await.remove(0).event();
    let mut rows = scan_all(&mut world.connector(), FeedId(0), 64 << 10, false).await;
    assert_eq!(rows.len(), 1);
    [live["after"].to_string(), rows.remove(0).field("after").to_string()]
}

#[tokio::test]
async fn settings_of_a_role_or_a_database_do_not_change_how_a_row_is_read() {
    let reference = World::new(VALUES, vec![feed("t", &["id"])]);
    let expected = both(&reference).await;
    assert_eq!(expected[0], expected[1]);
    for scope in ["role", "database"] {
        let mut world = World::new(VALUES, vec![feed("t", &["id"])]);
        let user = world.server.create_user("hostile", "secret", "REPLICATION");
        world.sql(&format!("ALTER TABLE t OWNER TO {user}; GRANT CREATE ON DATABASE {} TO {user}", world.database));
        let subject = if scope == "role" { format!("ROLE {user}") } else { format!("DATABASE {}", world.database) };
        for (name, value) in HOSTILE {
            world.server.psql(
                "postgres",
                &format!("ALTER {subject} SET {name} TO {}", if name == "search_path" { value.to_owned() } else { format!("'{value}'") }),
            );
        }
        (world.options.user, world.options.password) = (user, Some(Secret::new("secret".to_owned())));
        if scope == "database" {
            // The settings must not affect the test's own sessions.
            let rows = both_with_own_settings(&mut world).await;
            assert_eq!(rows, expected, "{scope}");
        } else {
            assert_eq!(both(&world).await, expected, "{scope}");
        }
    }
}

/// Like [`both`]. The test's own sessions override the settings of the database.
async fn both_with_own_settings(world: &mut World) -> [String; 2] {
    let mut reader = world.begin().await;
    let mut psql = world.server.psql_command(&world.database);
    let quiet = "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c standard_conforming_strings=on -c DateStyle=ISO -c TimeZone=UTC -c search_path=public -c client_encoding=UTF8 -c array_nulls=on -c xmloption=content";
    let done = psql.env("PGOPTIONS", quiet).args(["-c", &format!("INSERT INTO t VALUES {ROW}")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let live = reader.take(1).await.remove(0).event();
    let mut rows = scan_all(&mut world.connector(), FeedId(0), 64 << 10, false).await;
    for (name, _) in HOSTILE {
        let mut psql = world.server.psql_command("postgres");
        psql.args(["-c", &format!("ALTER DATABASE {} RESET {name}", world.database)]).output().unwrap();
    }
    [live["after"].to_string(), rows.remove(0).field("after").to_string()]
}

#[tokio::test]
async fn a_login_role_with_a_role_setting_works_as_that_role() {
    let mut world = World::new("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a')", vec![feed("t", &["id"])]);
    let user = world.server.create_user("turned", "secret", "REPLICATION NOINHERIT");
    let owner = world.server.create_user("owning", "secret", "");
    world.sql(&format!(
        "ALTER TABLE t OWNER TO {owner}; GRANT CREATE ON DATABASE {} TO {owner}; GRANT {owner} TO {user}; ALTER ROLE {user} SET role = {owner}",
        world.database
    ));
    (world.options.user, world.options.password) = (user.clone(), Some(Secret::new("secret".to_owned())));
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (2, 'b')");
    reader.take(1).await;
    assert_eq!(scan_all(&mut world.connector(), FeedId(0), 64 << 10, false).await.len(), 2);
    let token: ResumeToken = reader.log.token();
    reader.log.acknowledge(Some(&token)).await.unwrap();
    drop(reader);
    let owner_of = "SELECT pg_get_userbyid(pubowner) FROM pg_publication WHERE pubname = ";
    assert_eq!(world.sql(&format!("{owner_of}'{}'", world.options.publication)), owner);
    wait_for("the slot is free", TIMEOUT, || {
        (world.sql("SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()") == "0").then_some(())
    });
    assert_eq!(world.connector().detach().await.unwrap().len(), 2);
    // A missing privilege is reported for the role that the session acts as.
    world.sql("ALTER TABLE t OWNER TO postgres");
    let errors = world.verify().await.unwrap_err();
    assert!(errors.iter().any(|error| error.to_string().contains(&format!("role \"{owner}\" does not own"))), "{errors:#?}");
}
