//! Common mistakes: levels, empty strings, lists, names of variables.

use super::{Code, Origin, SMALL, accept, one, refuse, try_load};

fn level(level: &str) -> String {
    format!("{SMALL}[log]\nlevel = \"{level}\"\n")
}

#[test]
fn an_unknown_level_is_refused() {
    for (given, meant) in [("warning", "warn"), ("info,debg", "debug"), ("verbose", "error"), ("INF", "info"), ("info, debug", "debug")] {
        let problem = one(&level(given));
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigInvalid, "log.level"), "{problem}");
        if given != "verbose" {
            assert!(problem.message.contains(&format!("did you mean \"{meant}\"?")), "{problem}");
        }
    }
    for right in ["error", "off", "WARN", "info,feedline::pipeline=debug", "feedline=trace", "info,[span{a=1}]=debug"] {
        assert_eq!(accept(&level(right), &[], &[]).plan.log.level, right);
    }
}

#[test]
fn an_empty_string_is_named_as_such() {
    for text in [SMALL.replace("127.0.0.1:9092", ""), SMALL.replace("shop.db", " ")] {
        let problem = one(&text);
        assert!(problem.code == Code::ConfigInvalid && problem.message.contains("not empty"), "{problem}");
    }
}

#[test]
fn setting_one_item_of_a_list_is_refused_with_an_example_of_the_list() {
    let problems = try_load(SMALL, &[], &["feeds.0.tables=[\"a\"]"]).unwrap_err();
    assert_eq!((problems.len(), problems[0].code), (1, Code::ConfigInvalid), "{problems:#?}");
    assert!(problems[0].message.contains("FEEDLINE__FEEDS='[{tables=[\"orders\"]}]'"), "{}", problems[0]);
    accept(SMALL, &[("FEEDLINE__FEEDS", "[{tables=[\"orders\"]}]")], &[]);
}

#[test]
fn a_misspelt_variable_is_a_warning() {
    let warned = |environment: &[(&str, &str)]| accept(SMALL, environment, &[]).warnings;
    let warnings = warned(&[("FEEDLINE_SINK_KIND", "stdout"), ("FEEDLINE__LOG__LEVEL", "debug")]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!((warnings[0].code, &warnings[0].origin), (Code::ConfigUnknown, &Some(Origin::Environment("FEEDLINE_SINK_KIND".into()))));
    assert!(warnings[0].message.contains("FEEDLINE__SINK__KIND"), "{}", warnings[0]);
    // Such variables may hold a secret, or come from an orchestrator or from this project's build.
    let others = ["FEEDLINE_SINK_PASSWORD", "FEEDLINE_SERVICE_HOST", "FEEDLINE_PORT", "FEEDLINE_REVISION", "FEEDLINED_SINK_KIND"];
    assert_eq!(warned(&others.map(|name| (name, "x"))), []);
}

#[test]
fn another_name_of_a_kind_is_reported_with_the_right_one() {
    for (from, to, expected) in [
        ("kind = \"kafka\"", "kind = \"rabbitmq\"", "did you mean \"amqp\"?"),
        ("kind = \"kafka\"", "kind = \"Kafka\"", "did you mean \"kafka\"?"),
        ("kind = \"sqlite\"", "kind = \"postgresql\"", "did you mean \"postgres\"?"),
        ("kind = \"sqlite\"", "kind = \"mariadb\"", "did you mean \"mysql\"?"),
        ("kind = \"sqlite\"", "kind = \"sqlite3\"", "did you mean \"sqlite\"?"),
    ] {
        let problems = refuse(&SMALL.replacen(from, to, 1));
        assert!(problems.iter().any(|problem| problem.to_string().contains(expected)), "{problems:#?}");
    }
    assert!(!one(&format!("{SMALL}[log]\nformat = \"xyz\"")).to_string().contains("did you mean"));
}
