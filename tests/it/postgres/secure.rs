//! Passwords and TLS.

use super::world::{World, feed};
use feedline::fault::{Classify, Code};
use feedline::net::TlsMode;
use feedline::net::secret::Secret;
use feedline::source::SourceConnector;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY)";

fn world(tls: TlsMode, with_authority: bool) -> World {
    let mut world = World::new(TABLE, vec![feed("t", &["id"])]);
    world.options.trust.mode = tls;
    world.options.trust.ca_file = with_authority.then(|| world.server.ca_file());
    world
}

#[tokio::test]
async fn scram_binds_to_the_channel_and_a_wrong_password_is_refused() {
    for tls in [TlsMode::Disable, TlsMode::VerifyFull] {
        let mut world = world(tls, tls != TlsMode::Disable);
        world.options.user = world.server.create_user("scram", "it's", "REPLICATION");
        world.options.password = Some(Secret::new("it's".to_owned()));
        world.connector().catalogue().await.unwrap();
        world.options.password = Some(Secret::new("wrong".to_owned()));
        let error = world.connector().catalogue().await.unwrap_err();
        assert_eq!(error.code(), Code::SourceAuthentication, "{error}");
        assert!(!error.to_string().contains("wrong"));
        world.options.password = None;
        assert_eq!(world.connector().catalogue().await.unwrap_err().code(), Code::SourceAuthentication);
    }
}

#[tokio::test]
async fn a_log_is_read_through_tls() {
    let world = world(TlsMode::VerifyFull, true);
    let mut reader = world.begin().await;
    // Nothing answers the server between two reads, and after `wal_sender_timeout` it closes the connection. So this comes before the changes,
    // whose reading takes long on a busy machine.
    let encrypted = world.sql(&format!(
        "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_replication_slots r ON r.active_pid = s.pid WHERE r.slot_name = '{}'",
        world.options.slot
    ));
    assert_eq!(encrypted, "t");
    world.sql("INSERT INTO t SELECT g FROM generate_series(1, 3000) g");
    assert_eq!(reader.take(3000).await.len(), 3000);
}

#[tokio::test]
async fn each_tls_mode_verifies_what_it_promises() {
    // The certificate is for localhost and 127.0.0.1; 127.0.0.2 is the same server by another name.
    for (tls, with_authority, host, accepted) in [
        (TlsMode::Require, false, "127.0.0.2", true),
        (TlsMode::VerifyCa, false, "127.0.0.1", false),
        (TlsMode::VerifyCa, true, "127.0.0.1", true),
        (TlsMode::VerifyFull, true, "127.0.0.1", true),
        (TlsMode::VerifyFull, true, "localhost", true),
        (TlsMode::VerifyFull, false, "localhost", false),
    ] {
        let mut world = world(tls, with_authority);
        host.clone_into(&mut world.options.host);
        match world.connector().catalogue().await {
            Ok(_) => assert!(accepted, "{tls:?} {host}"),
            Err(error) => {
                // A server that listens on one address only is not reached by the other.
                let unreachable = error.code() == Code::SourceUnreachable && host == "127.0.0.2";
                assert!(unreachable || !accepted && error.code() == Code::SourceTls, "{tls:?} {host}: {error}");
            }
        }
    }
}
