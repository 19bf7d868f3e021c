//! Settings of servers: addresses, TLS, and warnings of plain text.

use super::{Code, File, POSTGRES, Problem, SMALL, accept, amqp, one, refuse, try_load};
use feedline::config::document;

/// A pipeline to these brokers, with these lines in `[sink]` and these properties.
fn kafka(servers: &str, lines: &str, properties: &str) -> String {
    SMALL.replace("127.0.0.1:9092\"\n", &format!("{servers}\"\n{lines}\n[sink.properties]\n{properties}\n"))
}

fn codes(warnings: &[Problem]) -> Vec<Code> {
    warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn plain_text_to_kafka_over_a_network_is_a_warning() {
    let sasl = "\"sasl.mechanism\" = \"PLAIN\"\n\"security.protocol\" =";
    for (servers, properties, warned) in [
        ("kafka.example.com:9092", String::new(), true),
        ("127.0.0.1:9092,kafka.example.com", String::new(), true),
        ("kafka.example.com:9092", "\"security.protocol\" = \"PLAINTEXT\"".to_owned(), true),
        ("kafka.example.com:9092", format!("{sasl} \"sasl_plaintext\""), true),
        ("kafka.example.com:9093", format!("{sasl} \"SASL_SSL\""), false),
        ("kafka.example.com:9093", "\"security.protocol\" = \"ssl\"".to_owned(), false),
        ("localhost:9092,127.0.0.1,[::1]:9092", String::new(), false),
    ] {
        let warnings = accept(&kafka(servers, "", &properties), &[], &[]).warnings;
        assert_eq!(codes(&warnings), if warned { vec![Code::PlainText] } else { vec![] }, "{servers} {properties}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.message.contains("kafka.example.com") && warning.message.contains("SASL_SSL")));
    }
}

#[test]
fn a_password_that_no_protocol_would_send_is_a_contradiction() {
    let password = "sasl_password_env = \"KAFKA_PASSWORD\"";
    let set = [("KAFKA_PASSWORD", "secret")];
    for properties in ["", "\"security.protocol\" = \"SSL\""] {
        let problems = try_load(&kafka("127.0.0.1:9092", password, properties), &set, &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!((problems[0].code, problems[0].path.as_str()), (Code::ConfigContradictory, "sink.sasl_password_env"), "{properties}");
        assert!(problems[0].message.contains("security.protocol"), "{}", problems[0]);
    }
    accept(&kafka("127.0.0.1:9092", password, "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"PLAIN\""), &set, &[]);
}

#[test]
fn an_unsupported_mechanism_is_refused() {
    for (mechanism, code) in [
        ("\"sasl.mechanism\" = \"GSSAPI\"", Code::ConfigUnsupported),
        ("\"sasl.mechanisms\" = \"OAUTHBEARER\"", Code::ConfigUnsupported),
        // Kafka's own default is GSSAPI.
        ("", Code::ConfigMissing),
    ] {
        let problem = one(&kafka("127.0.0.1:9092", "", &format!("\"security.protocol\" = \"SASL_SSL\"\n{mechanism}")));
        assert_eq!((problem.code, problem.path.as_str()), (code, "sink.properties"), "{problem}");
        for works in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            assert!(problem.message.contains(works), "{problem}");
        }
    }
}

#[test]
fn a_missing_certificate_file_is_reported_at_once() {
    let existing = File::new("anything");
    let existing = existing.0.display();
    let postgres = |lines: &str| POSTGRES.replace("database = \"shop\"", &format!("database = \"shop\"\n{lines}"));
    let property = |name: &str| kafka("127.0.0.1:9092", "", &format!("\"{name}\" = \"/no/such.pem\""));
    for (text, path) in [
        (postgres("ca_file = \"/no/such.pem\""), "source.ca_file"),
        (postgres(&format!("cert_file = \"/no/such.pem\"\nkey_file = \"{existing}\"")), "source.cert_file"),
        (postgres(&format!("cert_file = \"{existing}\"\nkey_file = \"/no/such.pem\"")), "source.key_file"),
        (amqp("ca_file = \"/no/such.pem\""), "sink.ca_file"),
        (amqp(&format!("cert_file = \"/no/such.pem\"\nkey_file = \"{existing}\"")), "sink.cert_file"),
        (property("ssl.ca.location"), "sink.properties"),
        (property("ssl.certificate.location"), "sink.properties"),
        (property("ssl.key.location"), "sink.properties"),
    ] {
        let problem = one(&text);
        assert_eq!((problem.code, problem.path.as_str()), (Code::SecretUnreadable, path), "{problem}");
        let said = problem.to_string();
        assert!(said.contains("/no/such.pem") && said.contains("No such file"), "{said}");
    }
    accept(&amqp(&format!("ca_file = \"{existing}\"")), &[], &[]);
    // librdkafka searches for CA certificates itself, or takes a directory of them.
    for location in ["probe", "/etc"] {
        accept(&kafka("127.0.0.1:9092", "", &format!("\"ssl.ca.location\" = \"{location}\"")), &[], &[]);
    }
    let directory = one(&amqp("ca_file = \"/etc\""));
    assert!(directory.message.contains("a directory"), "{directory}");
}

#[test]
fn a_host_is_only_a_host() {
    let host = |host: &str| POSTGRES.replace("database = \"shop\"", &format!("database = \"shop\"\nhost = \"{host}\""));
    let url = |url: &str| POSTGRES.replace("database = \"shop\"", &format!("url = \"{url}\""));
    for (text, path, remedy) in [
        (host("db:5433"), "source.host", "source.port"),
        (host("db1,db2"), "source.host", "one"),
        (host("[::1]"), "source.host", "source.port"),
        (host("postgres://db"), "source.host", "source.url"),
        (url("postgres://db1,db2/shop"), "source.url", "one"),
        (kafka("kafka://a:99999", "", ""), "sink.bootstrap_servers", "host:port"),
        (kafka("a:99999", "", ""), "sink.bootstrap_servers", "host:port"),
        (kafka("a:9092,,b", "", ""), "sink.bootstrap_servers", "host:port"),
    ] {
        let problem = one(&text);
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigInvalid, path), "{problem}");
        assert!(problem.message.contains(remedy), "{problem}");
    }
    for address in ["::1", "127.0.0.1", "db.example.com"] {
        accept(&host(address), &[], &[]);
    }
    accept(&kafka("a, b:9093,[::1]:9092", "", "\"security.protocol\" = \"ssl\""), &[], &[]);
}

#[test]
fn an_invalid_url_is_one_error() {
    let problem = one(&POSTGRES.replace("database = \"shop\"", "url = \"mysql://db\""));
    assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigInvalid, "source.url"), "{problem}");
}

#[test]
fn mysql_has_a_port_and_a_url_of_its_own() {
    let mysql = POSTGRES.replace("kind = \"postgres\"", "kind = \"mysql\"");
    let in_force = |text: &str, path: &str| {
        let loaded = accept(text, &[], &[]);
        loaded.effective.iter().find(|setting| setting.path == path).map(|setting| setting.value.clone())
    };
    assert_eq!(in_force(&mysql, "source.port").as_deref(), Some("3306"));
    assert_eq!(in_force(POSTGRES, "source.port").as_deref(), Some("5432"));
    for url in ["mysql://me@db:3307/shop", "mariadb://me@db:3307/shop"] {
        let text = mysql.replace("database = \"shop\"", &format!("url = \"{url}\""));
        let values = ["source.host", "source.port", "source.user"].map(|path| in_force(&text, path).unwrap());
        assert_eq!(values, ["\"db\"", "3307", "\"me\""]);
    }
    let problem = one(&mysql.replace("database = \"shop\"", "url = \"mysql://db\""));
    assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigMissing, "source.url"), "{problem}");
    let problem = one(&mysql.replace("database = \"shop\"", "url = \"postgres://db/shop\""));
    assert!(problem.message.contains("mysql://user@host:port/database"), "{problem}");
    // A number of its own for each process, so that no reader throws another one out.
    assert_eq!(in_force(&mysql, "source.server_id"), None);
    let numbered = mysql.replace("database = \"shop\"", "database = \"shop\"\nserver_id = 7");
    assert_eq!(in_force(&numbered, "source.server_id").as_deref(), Some("7"));
    assert_eq!(one(&numbered.replace("kind = \"mysql\"", "kind = \"postgres\"")).code, Code::ConfigContradictory);
}

#[test]
fn the_name_for_dead_letters_is_valid_and_used() {
    let dead_letters = "on_unpublishable = \"dead_letter\"";
    for sink in [kafka("127.0.0.1:9092", "dead_letter = \"shop.dead\"", ""), amqp("dead_letter = \"shop.dead\"")] {
        let problem = one(&sink);
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigContradictory, "sink.dead_letter"), "{problem}");
        assert!(problem.message.contains("sink.on_unpublishable"), "{problem}");
    }
    let problem = one(&kafka("127.0.0.1:9092", &format!("{dead_letters}\ndead_letter = \"dead letters\""), ""));
    assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigInvalid, "sink.dead_letter"), "{problem}");
    accept(&kafka("127.0.0.1:9092", &format!("{dead_letters}\ndead_letter = \"shop.dead\""), ""), &[], &[]);
    accept(&amqp(&format!("{dead_letters}\ndead_letter = \"dead letters\"")), &[], &[]);
}

#[test]
fn the_example_shows_the_accepted_values() {
    let example = document::example();
    assert!(example.contains("\n#port = 5671\n"), "only a value follows the setting");
    for setting in ["name", "listen", "topic", "operations"] {
        let at = example.lines().position(|line| line.trim_start_matches('#').starts_with(&format!("{setting} ="))).unwrap();
        let said = example.lines().nth(at - 1).unwrap();
        let accepted = match setting {
            "name" => "lower-case letter",
            "listen" => "\"off\"",
            "topic" => "{operation}",
            _ => "insert 1, delete 2, update 4",
        };
        assert!(said.contains(accepted), "{setting}: {said}");
    }
    assert!(refuse("").iter().all(|problem| problem.code == Code::ConfigMissing));
}
