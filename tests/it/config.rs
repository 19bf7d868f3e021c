//! The configuration: what is accepted, what is refused, and the messages.

use feedline::config::plan::{CheckpointPlan, SinkPlan, SourcePlan};
use feedline::config::{Inputs, Loaded, Origin, Problem, document, effective, load};
use feedline::fault::Code;
use feedline::feed::PrefeedKind;
use feedline::feed::Selection;
use feedline::format::Format;
use feedline::format::cloudevents::Mode;
use feedline::sink::stdout::{Options, Target};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod common_mistakes;
mod document_sources;
mod messages;
mod secrets;
mod servers;

/// A new file, removed at the end.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

const SMALL: &str = r#"name = "shop"
[source]
kind = "sqlite"
path = "shop.db"
[[feeds]]
tables = ["orders"]
[sink]
kind = "kafka"
bootstrap_servers = "127.0.0.1:9092"
"#;

const POSTGRES: &str = r#"name = "shop"
[source]
kind = "postgres"
database = "shop"
[[feeds]]
tables = ["public.orders"]
prefeed = "none"
[sink]
kind = "stdout"
"#;

fn try_load(text: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Loaded, Vec<Problem>> {
    let file = File::new(text);
    let inputs = Inputs {
        file: Some(file.0.clone()),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    load(&inputs).map_err(|problems| problems.0)
}

fn accept(text: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Loaded {
    try_load(text, environment, arguments).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn refuse(text: &str) -> Vec<Problem> {
    try_load(text, &[], &[]).expect_err("the configuration is invalid")
}

/// The only problem of a configuration.
#[track_caller]
fn one(text: &str) -> Problem {
    let problems = refuse(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

fn line(problem: &Problem) -> Option<usize> {
    match problem.origin {
        Some(Origin::File { line, .. }) => line,
        _ => None,
    }
}

#[test]
fn settings_that_are_not_given_have_their_defaults() {
    let plan = accept(SMALL, &[], &[]).plan;
    assert_eq!(&*plan.pipeline.name, "shop");
    assert!(matches!(&plan.source, SourcePlan::Sqlite(sqlite) if sqlite.path == Path::new("shop.db")));
    let SinkPlan::Kafka(kafka) = &plan.sink else { panic!("{:?}", plan.sink) };
    assert!(kafka.headers && kafka.tombstones && kafka.create_topics.is_none());
    assert_eq!(plan.pipeline.route.to_string(), "{name}.{schema}.{table}");
    assert!(matches!(&plan.checkpoint, CheckpointPlan::File(path) if path == Path::new("shop.checkpoint")));
    assert_eq!(plan.pipeline.checkpoint_interval, Duration::from_millis(500));
    assert_eq!(plan.pipeline.memory_bytes, 32 << 20);
    assert_eq!(plan.pipeline.takeover_timeout, Duration::from_secs(90));
    assert_eq!(plan.admin.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!(plan.pipeline.rules[0].operations.bits(), 7);
    assert_eq!(plan.pipeline.rules[0].prefeed, PrefeedKind::Snapshot);
    assert_eq!(plan.pipeline.rules[0].stage, 1);
}

#[test]
fn cloudevents_have_a_mode_and_binary_mode_needs_headers() {
    let cloud_events = |mode: &str| format!("{SMALL}[format]\nkind = \"cloudevents\"\n{mode}");
    let (json, binary) = (accept(SMALL, &[], &[]).plan, accept(&cloud_events(""), &[], &[]).plan);
    let structured = accept(&cloud_events("mode = \"structured\""), &[], &["sink.headers=false"]).plan;
    assert!(matches!(json.pipeline.format, Format::Json(_)));
    assert!(matches!(binary.pipeline.format, Format::CloudEvents(_, Mode::Binary)));
    assert!(matches!(structured.pipeline.format, Format::CloudEvents(_, Mode::Structured)));
    let hashes: std::collections::BTreeSet<_> = [json, binary, structured].into_iter().map(|plan| plan.pipeline.configuration).collect();
    assert_eq!(hashes.len(), 3, "a change of the format is noticed");
    let problems = try_load(&cloud_events(""), &[], &["sink.headers=false"]).unwrap_err();
    assert_eq!((problems[0].code, problems[0].path.as_str()), (Code::ConfigContradictory, "format.mode"));
    let unused = one(&format!("{SMALL}[format]\nmode = \"structured\""));
    assert_eq!((unused.code, unused.path.as_str()), (Code::ConfigContradictory, "format.mode"));
    assert_eq!(one(&format!("{SMALL}[format]\nkind = \"avro\"")).code, Code::ConfigUnsupported);
}

#[test]
fn a_later_layer_overrides_and_is_named() {
    let environment = [("FEEDLINE__PIPELINE__MEMORY", "64MiB"), ("FEEDLINE__ADMIN__LISTEN", "off"), ("OTHER", "1")];
    let arguments = ["pipeline.memory=16MiB", "sink.properties.compression.type=zstd", "sink.create_topics.partitions=6"];
    let loaded = accept(SMALL, &environment, &arguments);
    assert_eq!(loaded.plan.pipeline.memory_bytes, 16 << 20);
    assert_eq!(loaded.plan.admin, None);
    let SinkPlan::Kafka(kafka) = &loaded.plan.sink else { panic!() };
    assert_eq!(kafka.properties["compression.type"], "zstd");
    let create = kafka.create_topics.as_ref().unwrap();
    assert_eq!((create.partitions, create.replication), (6, 1));
    let origin = |path: &str| loaded.effective.iter().find(|line| line.path == path).unwrap().origin.clone();
    assert_eq!(origin("pipeline.memory"), Origin::Argument("pipeline.memory".into()));
    assert_eq!(origin("admin.listen"), Origin::Environment("FEEDLINE__ADMIN__LISTEN".into()));
    assert_eq!(origin("log.level"), Origin::Default);
    assert!(matches!(origin("source.path"), Origin::File { line: Some(4), .. }));
}

#[test]
fn if_a_later_layer_sets_the_kind_the_files_settings_of_another_kind_are_ignored() {
    let loaded = accept(SMALL, &[], &["sink.kind=stdout"]);
    assert!(matches!(loaded.plan.sink, SinkPlan::Stdout(Options { target: Target::Stdout, .. })));
    let warned: Vec<_> = loaded.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warned, ["sink.bootstrap_servers"]);
    // In the same layer as the kind, it is still a contradiction.
    let problems = try_load(SMALL, &[], &["sink.kind=stdout", "sink.headers=false"]).unwrap_err();
    assert_eq!((problems.len(), problems[0].path.as_str()), (1, "sink.headers"));
}

#[test]
fn strings_from_the_environment_stay_strings() {
    let environment = [
        ("FEEDLINE__SOURCE__PASSWORD", "0123"),
        ("FEEDLINE__SOURCE__USER", "true"),
        ("FEEDLINE__FEEDS", "[{tables=[\"public.x\"],prefeed=\"none\"}]"),
    ];
    let loaded = accept(POSTGRES, &environment, &[]);
    let SourcePlan::Postgres(postgres) = &loaded.plan.source else { panic!() };
    assert_eq!(postgres.password.as_ref().unwrap().reveal(), "0123");
    assert_eq!(postgres.user, "true");
    assert_eq!(loaded.plan.pipeline.rules[0].tables, Selection::parse(&["public.x"]).unwrap());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn all_errors_are_reported_at_once_with_their_lines() {
    let text = r#"name = "Shop!"
[source]
kind = "sqlite"
pth = "shop.db"
[[feeds]]
tabels = ["orders"]
prefeed = "snapshit"
[sink]
kind = "kafka"
bootstrap_servers = 9092
[pipeline]
memory = "32"
[chekpoint]
path = "x"
"#;
    let problems = refuse(text);
    let seen: Vec<_> = problems.iter().map(|problem| (problem.code, problem.path.as_str(), line(problem))).collect();
    for expected in [
        (Code::ConfigInvalid, "name", Some(1)),
        (Code::ConfigUnknown, "source.pth", Some(4)),
        (Code::ConfigMissing, "source.path", None),
        (Code::ConfigUnknown, "feeds.0.tabels", Some(6)),
        (Code::ConfigMissing, "feeds.0.tables", None),
        (Code::ConfigInvalid, "feeds.0.prefeed", Some(7)),
        (Code::ConfigInvalid, "sink.bootstrap_servers", Some(10)),
        (Code::ConfigInvalid, "pipeline.memory", Some(12)),
        (Code::ConfigUnknown, "chekpoint", Some(13)),
    ] {
        assert!(seen.contains(&expected), "{expected:?} is not among {seen:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");
}

#[test]
fn an_unknown_setting_is_reported_with_the_nearest_known_one() {
    for (added, expected) in [
        ("[admin]\nlisen = \"x\"", "did you mean `admin.listen`"),
        ("[log]\nfromat = \"json\"", "did you mean `log.format`"),
        ("[admin]\nbootstrap_servers = \"x\"", "did you mean `sink.bootstrap_servers`"),
        ("[admn]\nlisten = \"x\"", "did you mean `admin`"),
        ("[admin]\nzzzzzzzz = \"x\"", "feedline config schema"),
    ] {
        let problem = one(&format!("{SMALL}{added}"));
        assert_eq!(problem.code, Code::ConfigUnknown);
        assert!(problem.message.contains(expected), "{problem}");
    }
}

#[test]
fn unsupported_values_are_refused_by_name() {
    for (from, to, path) in [
        ("kind = \"kafka\"", "kind = \"kafka\"\ndelivery = \"exactly_once\"", "sink.delivery"),
        ("[\"orders\"]", "[\"orders\"]\nprefeed = { query = \"SELECT 1\" }", "feeds.0.prefeed"),
    ] {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL);
        let problem = one(&text);
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigUnsupported, path), "{problem}");
    }
}

/// A pipeline to RabbitMQ with these lines in its `[sink]`.
fn amqp(lines: &str) -> String {
    let (head, _) = SMALL.split_once("[sink]").unwrap();
    format!("{head}[sink]\nkind = \"amqp\"\n{lines}\n")
}

#[test]
fn settings_of_rabbitmq_must_fit_together() {
    for (lines, code, path) in [
        ("url = \"amqps://a/b\"\nhost = \"other\"", Code::ConfigContradictory, "sink.host"),
        ("url = \"amqps://me:canary@a\"", Code::ConfigInvalid, "sink.url"),
        ("url = \"amqp://127.0.0.1\"\ntls = \"require\"", Code::ConfigContradictory, "sink.tls"),
        ("url = \"amqps://a\"\ntls = \"disable\"", Code::ConfigContradictory, "sink.tls"),
        ("host = \"a,,b\"", Code::ConfigInvalid, "sink.host"),
        ("host = \"a:b\"", Code::ConfigInvalid, "sink.host"),
        ("auth = \"external\"", Code::ConfigContradictory, "sink.auth"),
        ("tls = \"disable\"\nca_file = \"a\"", Code::ConfigContradictory, "sink.ca_file"),
        ("key_file = \"a\"", Code::ConfigContradictory, "sink.key_file"),
        ("exchange = \"amq.topic\"", Code::ConfigInvalid, "sink.exchange"),
        ("declare = false\n[[sink.queues]]\nname = \"a\"\nkeys = [\"#\"]", Code::ConfigContradictory, "sink.declare"),
        ("[[sink.queues]]\nname = \"a\"", Code::ConfigMissing, "sink.queues.0.keys"),
        ("[[sink.queues]]\nname = \"shop.lock\"\nkeys = [\"#\"]", Code::ConfigInvalid, "sink.queues.0.name"),
        ("[[sink.queues]]\nname = \"a\"\nkeys = [\"#\"]\nkind = \"x\"", Code::ConfigUnknown, "sink.queues.0.kind"),
        ("queues = \"x\"", Code::ConfigInvalid, "sink.queues"),
        ("ordering = \"strict\"", Code::ConfigInvalid, "sink.ordering"),
        ("topic = \"x\"", Code::ConfigContradictory, "sink.topic"),
    ] {
        let problem = one(&amqp(lines));
        assert_eq!((problem.code, problem.path.as_str()), (code, path), "{lines}: {problem}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}

#[test]
fn the_default_port_follows_from_tls() {
    for (lines, hosts) in [
        ("host = \"a, b:1\"", vec![("a", 5671), ("b", 1)]),
        ("tls = \"disable\"", vec![("127.0.0.1", 5672)]),
        ("url = \"amqp://localhost/%2F\"", vec![("localhost", 5672)]),
        ("url = \"amqps://a\"", vec![("a", 5671)]),
        ("host = \"[::1]:7\"\nport = 8", vec![("::1", 7)]),
    ] {
        let SinkPlan::Amqp(plan) = accept(&amqp(lines), &[], &[]).plan.sink else { panic!("{lines}") };
        let found: Vec<_> = plan.addresses.iter().map(|address| (address.host.as_str(), address.port)).collect();
        assert_eq!(found, hosts, "{lines}");
        assert_eq!(plan.vhost, "/");
    }
}

#[test]
fn created_topics_take_kafkas_settings() {
    let with = |config: &str| SMALL.replace("9092\"\n", &format!("9092\"\ncreate_topics = {{ partitions = 2, config = {config} }}\n"));
    let loaded =
        accept(&with("{ \"cleanup.policy\" = \"compact\", retention.ms = -1 }"), &[], &["sink.create_topics.config.segment.ms=600000"]);
    let SinkPlan::Kafka(kafka) = loaded.plan.sink else { panic!("a Kafka sink") };
    let config = kafka.create_topics.unwrap().config;
    let settings: Vec<_> = config.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(settings, ["cleanup.policy=compact", "retention.ms=-1", "segment.ms=600000"]);
    for (config, words) in [("{ \"retention\" = 1 }", "did you mean \"retention.ms\"?"), ("{ \"retention.ms\" = \"1d\" }", "milliseconds")]
    {
        let problem = one(&with(config));
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigInvalid, "sink.create_topics.config"), "{problem}");
        assert!(problem.to_string().contains(words), "{problem}");
    }
}

#[test]
fn contradictions_are_refused() {
    for (text, path) in [
        (POSTGRES.replace("database = \"shop\"", "url = \"postgres://me@db/shop\"\nhost = \"other\""), "source.host"),
        (POSTGRES.replace("database", "cert_file = \"a\"\ndatabase"), "source.cert_file"),
        (POSTGRES.replace("database", "tls = \"disable\"\nca_file = \"a\"\ndatabase"), "source.ca_file"),
        (POSTGRES.replace("database", "path = \"a\"\ndatabase"), "source.path"),
        (
            SMALL.replace("\"sqlite\"", "\"sqlite\"\non_gap = \"prefeed\"").replace("[\"orders\"]", "[\"orders\"]\nprefeed = \"none\""),
            "source.on_gap",
        ),
        (SMALL.replace("9092\"\n", "9092\"\n[sink.properties]\nacks = 1\n"), "sink.properties"),
        (SMALL.replace("9092\"\n", "9092\"\n[sink.properties]\nsasl.password = \"canary\"\n"), "sink.properties"),
        (SMALL.replace("9092\"\n", "9092\"\nsasl_password = \"canary\"\nsasl_password_env = \"X\"\n"), "sink.sasl_password_env"),
    ] {
        let problem = one(&text);
        assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigContradictory, path), "{problem}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}

#[test]
fn patterns_and_templates_are_checked_at_once() {
    let text = SMALL
        .replace("[\"orders\"]", "[\"a.b.c\", \"x\"]\ntopic = \"{tabel}\"")
        .replace("9092\"\n", "9092\"\ntopic = \"{\"\n")
        .replace("[sink]", "[log]\nlevel = \"info,=x=\"\n[sink]");
    let seen: Vec<_> = refuse(&text).iter().map(|problem| (problem.code, problem.path.clone(), line(problem))).collect();
    for expected in [("feeds.0.tables", 6), ("feeds.0.topic", 7), ("log.level", 9), ("sink.topic", 13)] {
        assert!(seen.contains(&(Code::ConfigInvalid, expected.0.to_owned(), Some(expected.1))), "{seen:?}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let text = POSTGRES.replace("database", "password = \"canary\"\ndatabase");
    let loaded = accept(&text, &[], &[]);
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].code, Code::SecretLiteral);
    let shown = format!("{loaded:?} {} {}", loaded.warnings[0], effective::to_toml(&loaded.effective));
    assert!(!shown.contains("canary"), "{shown}");

    for text in [
        POSTGRES.replace("database = \"shop\"", "url = \"postgres://me:canary@db/shop\""),
        POSTGRES.replace("database", "pasword = \"canary\"\ndatabase"),
        POSTGRES.replace("database", "sasl_password = \"canary\"\ndatabase"),
    ] {
        let problems = refuse(&text);
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}

#[test]
fn secrets_come_from_files_and_variables() {
    let secret = File::new("from file\n");
    let by_file = POSTGRES.replace("database", &format!("password_file = {:?}\ndatabase", secret.0));
    let by_variable = POSTGRES.replace("database", "password_env = \"PG_PASSWORD\"\ndatabase");
    for (text, expected) in [(&by_file, "from file"), (&by_variable, "from variable")] {
        let loaded = accept(text, &[("PG_PASSWORD", "from variable")], &[]);
        let SourcePlan::Postgres(postgres) = &loaded.plan.source else { panic!() };
        assert_eq!(postgres.password.as_ref().unwrap().reveal(), expected);
        assert_eq!(loaded.warnings, []);
    }
    assert_eq!(one(&by_variable).code, Code::SecretUnreadable);
    assert_eq!(one(&by_variable.replace("_env", "_file")).code, Code::SecretUnreadable);
}

#[test]
fn plain_text_over_a_network_is_a_warning() {
    for (host, warned) in [("127.0.0.1", false), ("localhost", false), ("::1", false), ("db.example.com", true)] {
        let loaded = accept(&POSTGRES.replace("database", &format!("tls = \"disable\"\nhost = {host:?}\ndatabase")), &[], &[]);
        let codes: Vec<_> = loaded.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, if warned { vec![Code::PlainText] } else { vec![] }, "{host}");
    }
}

#[test]
fn a_password_for_the_management_api_in_plain_text_is_a_warning() {
    let sink = |url: &str, password: &str| {
        let source = "name = \"shop\"\n[source]\nkind = \"sqlite\"\npath = \"shop.db\"\n[[feeds]]\ntables = [\"orders\"]\n[checkpoint]\npath = \"a\"";
        format!("{source}\n[sink]\nkind = \"amqp\"\nhost = \"127.0.0.1\"\ntls = \"disable\"\n{password}\nmanagement_url = {url:?}\n")
    };
    let password = "password_env = \"RABBIT\"";
    for (url, password, warned) in [
        ("http://rabbit-1:15672", password, true),
        ("https://rabbit-1:15671", password, false),
        ("http://127.0.0.1:15672", password, false),
        ("http://localhost", password, false),
        ("http://rabbit-1:15672", "", false),
    ] {
        let warnings = accept(&sink(url, password), &[("RABBIT", "secret")], &[]).warnings;
        let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, if warned { vec![Code::PlainText] } else { vec![] }, "{url}");
        let says = |word: &str| warnings.iter().all(|warning| warning.to_string().contains(word));
        assert!(says("sink.management_url") && says("https://"), "{warnings:?}");
    }
}

#[test]
fn a_syntax_error_names_its_line() {
    let problem = one("name = \"shop\"\n[source\n");
    assert_eq!((problem.code, line(&problem)), (Code::ConfigUnreadable, Some(2)));
    let inputs = Inputs { file: Some("no/such/file.toml".into()), ..Inputs::default() };
    assert_eq!(load(&inputs).unwrap_err().0[0].code, Code::ConfigUnreadable);
}

#[test]
fn an_argument_of_the_wrong_shape_is_refused() {
    let problems = try_load(SMALL, &[], &["sink.kind"]).unwrap_err();
    assert_eq!(problems[0].code, Code::ConfigInvalid);
    let problems = try_load(SMALL, &[], &["sink=kafka"]).unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.path == "sink" && problem.origin == Some(Origin::Argument("sink".into()))),
        "{problems:?}"
    );
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_example_is_a_configuration() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        // Secrets and certificates are elsewhere.
        let secret = File::new("secret");
        let text = std::fs::read_to_string(&path).unwrap();
        let files = [
            "/run/secrets/postgres",
            "/run/secrets/mysql",
            "/run/secrets/kafka",
            "/run/secrets/rabbitmq",
            "/etc/feedline/postgres-ca.pem",
            "/etc/feedline/mysql-ca.pem",
            "/etc/ssl/rabbitmq-ca.pem",
        ];
        let text = files.iter().fold(text, |text, path| text.replace(path, secret.0.to_str().unwrap()));
        let variables = ["POSTGRES_PASSWORD", "MYSQL_PASSWORD", "MONGODB_PASSWORD", "RETHINKDB_PASSWORD"].map(|name| (name, "secret"));
        let loaded = accept(&text, &variables, &[]);
        assert_eq!(loaded.warnings, [], "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 10);
}

#[test]
fn the_generated_documents_are_up_to_date() {
    for (path, written) in [("docs/settings.md", document::markdown()), ("config/feedline.toml", document::example())] {
        let found = std::fs::read_to_string(repository(path)).unwrap();
        assert!(found == written, "{path} is out of date: generate it with `feedline config schema --format markdown|toml`");
    }
    let inputs = Inputs { file: Some(repository("config/feedline.toml")), ..Inputs::default() };
    let loaded = load(&inputs).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_printed_configuration_loads_again() {
    let printed = effective::to_toml(
        &accept(SMALL, &[], &["sink.properties.compression.type=zstd", "feeds=[{tables=[\"a\"]},{tables=[\"b\"],key=[\"id\"]}]"]).effective,
    );
    let again = accept(&printed, &[], &[]);
    assert_eq!(again.plan.pipeline.rules.len(), 2);
    assert!(matches!(&again.plan.sink, SinkPlan::Kafka(kafka) if kafka.properties["compression.type"] == "zstd"));
    assert!(matches!(&again.plan.checkpoint, CheckpointPlan::File(path) if path == Path::new("shop.checkpoint")));
}

#[test]
fn strings_of_every_kind_are_printed_as_toml() {
    // What `'` and DEL become in Rust's own notation is not TOML.
    let odd = "it's \"x\" \u{7f}\u{1}\t\\ \u{1f980}";
    let literal = "\"it's \\\"x\\\" \\u007F\\u0001\\t\\\\ \u{1f980}\"";
    let lines = format!("topic = {literal}\nproperties = {{ \"client.id\" = {literal} }}");
    let loaded = accept(&SMALL.replace("9092\"\n", &format!("9092\"\n{lines}\n")), &[], &[]);
    let again = accept(&effective::to_toml(&loaded.effective), &[], &[]);
    for plan in [&loaded.plan, &again.plan] {
        assert_eq!(plan.pipeline.route.to_string(), odd);
        assert!(matches!(&plan.sink, SinkPlan::Kafka(kafka) if kafka.properties["client.id"] == odd));
    }
}

#[test]
fn the_hash_changes_with_settings_that_shape_all_records() {
    let hash = |arguments: &[&str]| accept(SMALL, &[], arguments).plan.pipeline.configuration;
    let base = hash(&[]);
    assert_eq!(base, hash(&["sink.topic=x", "pipeline.memory=8MiB", "feeds=[{tables=[\"other\"]}]"]));
    assert_ne!(base, hash(&["sink.tombstones=false"]));
}

#[test]
fn the_schema_is_json_schema_with_every_section() {
    let schema = document::json_schema();
    assert_eq!(schema["properties"]["sink"]["properties"]["create_topics"]["properties"]["partitions"]["minimum"], 1);
    assert_eq!(schema["properties"]["source"]["properties"]["password_file"]["type"], "string");
    assert_eq!(schema["properties"]["feeds"]["items"]["required"][0], "tables");
    assert_eq!(schema["properties"]["admin"]["properties"]["listen"]["default"], "127.0.0.1:9464");
}
