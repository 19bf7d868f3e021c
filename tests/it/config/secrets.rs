//! What an error does not repeat.

use super::{SMALL, one, refuse};

/// What is wrong may be a secret in a wrong place.
#[test]
fn no_error_repeats_what_may_be_a_secret() {
    let postgres = |lines: &str| {
        let feeds = "[[feeds]]\ntables = [\"public.orders\"]\n[sink]\nkind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:9092\"";
        format!("name = \"shop\"\n[source]\nkind = \"postgres\"\ndatabase = \"shop\"\n{lines}\n{feeds}\n")
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
        format!("{SMALL}\"sasl.passwrod\" = \"canary\""),
        format!("{SMALL}[sink.properties]\n\"sasl.passwrod\" = \"canary\""),
        format!("{SMALL}[sink.properties]\n\"sasl.jaas\" = \"password=canary\"\n\"bootstrap.servers\" = \"a\""),
        SMALL.replacen("[source]", "source = \"canary\"\n[sauce]", 1),
    ] {
        let problems = refuse(&text);
        assert!(!problems.iter().any(|problem| problem.to_string().contains("canary")), "{text}: {problems:#?}");
    }
    // What is known to be none is shown.
    let shown = one(&format!("{SMALL}[pipeline]\nmemory = \"12 apples\"")).to_string();
    assert!(shown.contains("pipeline.memory = \"12 apples\": expected"), "{shown}");
}
