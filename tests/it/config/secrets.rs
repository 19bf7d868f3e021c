//! Errors show no secrets.

use super::{SMALL, one, refuse};

/// An invalid value may be a secret in the wrong setting.
#[test]
fn no_error_shows_what_may_be_a_secret() {
    let postgres = |lines: &str| {
        let feeds = "[[feeds]]\ntables = [\"public.orders\"]\n[sink]\nkind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:9092\"";
        format!("name = \"shop\"\n[source]\nkind = \"postgres\"\ndatabase = \"shop\"\n{lines}\n{feeds}\n")
    };
    let rabbitmq = |lines: &str| {
        let source = "[source]\nkind = \"sqlite\"\npath = \"x.db\"\n[[feeds]]\ntables = [\"t\"]";
        format!("name = \"shop\"\n{source}\n[sink]\nkind = \"amqp\"\n{lines}\n")
    };
    for text in [
        postgres("url = \"postgres://me@db/shop?password=canary\""),
        postgres("url = \"jdbc:postgresql://db/shop?user=me&password=canary\""),
        postgres("url = \"postgres://me:canary@db/shop\""),
        postgres("host = \"host=db user=me password=canary\""),
        postgres("host = \"me:canary@db\""),
        postgres("host = \"db;Password=canary\""),
        postgres("password = [\"canary\"]"),
        postgres("passwrod = \"canary\""),
        postgres("password_file = \"canary\""),
        postgres("password_env = \"canary\""),
        postgres("port = \"canary!\""),
        postgres("tls = { password = \"canary=\" }"),
        SMALL.replace("\"127.0.0.1:9092\"", "\"me:canary@broker:9092\""),
        SMALL.replace("\"127.0.0.1:9092\"", "\"broker:9092,broker;Password=canary:9092\""),
        rabbitmq("host = \"me:canary@broker\""),
        rabbitmq("host = \"me:canary@broker:5671\""),
        rabbitmq("host = \"broker;Password=canary\""),
        rabbitmq("url = \"amqps://broker;Password=canary/v\""),
        rabbitmq("management_url = \"http://broker;Password=canary\""),
        format!("{SMALL}[sink.properties]\n\"ssl.key.location\" = \"-----BEGIN canary\"\n\"security.protocol\" = \"ssl\""),
        format!("{SMALL}\"sasl.passwrod\" = \"canary\""),
        format!("{SMALL}[sink.properties]\n\"sasl.passwrod\" = \"canary\""),
        format!("{SMALL}[sink.properties]\n\"sasl.jaas\" = \"password=canary\"\n\"bootstrap.servers\" = \"a\""),
        SMALL.replacen("[source]", "source = \"canary\"\n[sauce]", 1),
    ] {
        let problems = refuse(&text);
        assert!(!problems.iter().any(|problem| problem.to_string().contains("canary")), "{text}: {problems:#?}");
    }
    // A value that cannot be secret is shown.
    let shown = one(&format!("{SMALL}[pipeline]\nmemory = \"12 apples\"")).to_string();
    assert!(shown.contains("pipeline.memory = \"12 apples\": expected"), "{shown}");
}
