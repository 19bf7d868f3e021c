//! Logins and encryption, against a server with access control.

use super::world::World;
use crate::servers::certificates;
use crate::servers::mongodb::MongoDb;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::net::secret::Secret;
use feedline::net::{TlsMode, Trust};
use feedline::source::SourceConnector as _;
use feedline::source::mongodb::{Connector, Login, Options};
use feedline::status::metrics::Metrics;
use serde_json::json;

fn login(user: &str, password: &str) -> Login {
    let password = Secret::of_variable(password.to_owned()).unwrap();
    Login::Scram { user: user.to_owned(), password, database: "admin".to_owned() }
}

#[tokio::test]
async fn a_user_logs_in_with_its_password_alone() {
    let world = World::alone(&[], &["t"]);
    let roles = json!([{"role": "readWriteAnyDatabase", "db": "admin"}, {"role": "clusterMonitor", "db": "admin"}]);
    world.server.run("admin", &json!({"createUser": "me", "pwd": "s3cr:t é,=", "roles": roles}));
    world.server.kill();
    let with = |login: Option<Login>| Connector::new(Options { login, ..world.options.clone() }, Metrics::new("shop").source);
    world.server.restart_with(&["--auth"]);
    with(Some(login("me", "s3cr:t é,="))).catalogue().await.unwrap();
    for (user, password) in [("me", "wrong"), ("nobody", "s3cr:t é,=")] {
        let error = with(Some(login(user, password))).catalogue().await.unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::SourceAuthentication, Fault::Fatal), "{error}");
        assert!(!error.to_string().contains(password));
    }
    assert_eq!(with(None).catalogue().await.unwrap_err().code(), Code::SourcePrivilege);
}

#[tokio::test]
async fn a_connection_is_encrypted_with_a_server_that_is_trusted() {
    let directory = crate::servers::port::run_directory("mongodb-tls", None).unwrap();
    certificates::make(&directory);
    let path = |file: &str| &*Box::leak(directory.join(file).display().to_string().into_boxed_str());
    let server = MongoDb::start(&["--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key")]);
    let trust = |mode, ca_file| Trust { mode, ca_file, client: None, section: "source" };
    let options = |host: &str, trust| Options { trust, ..super::world::options(host, server.port(), "shop") };
    let ca = || Some(directory.join("ca.crt"));
    let opened = async |options: Options| Connector::new(options, Metrics::new("shop").source).catalogue().await.map(drop);
    opened(options("localhost", trust(TlsMode::VerifyFull, ca()))).await.unwrap();
    opened(options("127.0.0.1", trust(TlsMode::Require, None))).await.unwrap();
    let untrusted = opened(options("localhost", trust(TlsMode::VerifyFull, None))).await.unwrap_err();
    assert_eq!((untrusted.code(), untrusted.fault()), (Code::SourceTls, Fault::Fatal), "{untrusted}");
}
