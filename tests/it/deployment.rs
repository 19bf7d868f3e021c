//! The files for deployment: the chart, the compose file, the image, the unit. They fit this build.

mod chart;
mod installed;

use crate::servers::mongodb::MongoDb;
use crate::servers::mysql::{self, MySql};
use crate::servers::port::{self, wait_for};
use crate::servers::postgres::{Options, Postgres};
use crate::servers::rethinkdb::RethinkDb;
use serde_yaml_ng::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Environment variables by name.
type Environment = Vec<(String, String)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A directory of its own for what a test writes.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deployment-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs `feedline check --offline` with a configuration whose paths of secrets and of the checkpoint are replaced by ones that exist here.
fn configured(name: &str, text: &str, environment: &Environment) -> String {
    let directory = scratch(name);
    std::fs::write(directory.join("secret"), "secret").unwrap();
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once('=') {
            Some((key, _)) if key.trim_end().ends_with("_file") => {
                lines.push(format!("{key}= {:?}", directory.join("secret").display().to_string()));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let path = directory.join("feedline.toml");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let feedline = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(arguments).arg("--config").arg(&path).current_dir(&directory);
        let passwords = ["POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "MARIADB_PASSWORD", "RETHINKDB_PASSWORD"];
        command.envs(passwords.map(|name| (name, "x"))).envs(environment.iter().cloned());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    feedline(&["check", "--offline"]);
    let printed: toml_edit::DocumentMut = feedline(&["config", "print"]).parse().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    match printed["checkpoint"]["kind"].as_str().unwrap() {
        "file" => printed["checkpoint"]["path"].as_str().unwrap().to_owned(),
        kind => kind.to_owned(),
    }
}

/// What the image sets in its containers' environment.
fn image_environment() -> Environment {
    let image = read("Dockerfile");
    let variables = image.lines().filter_map(|line| line.strip_prefix("ENV ")).map(|line| line.split_once('=').unwrap());
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `tests/setup` on a machine that has these programs besides a shell's.
fn setup(name: &str, programs: &[(&str, &str)]) -> (Option<i32>, String) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let directory = scratch(name);
    for tool in ["bash", "dirname", "env", "head", "sed", "sort"] {
        let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool)).into_iter().find(|path| path.exists()).unwrap();
        symlink(found, directory.join(tool)).unwrap();
    }
    for (program, says) in programs {
        let path = directory.join(program);
        std::fs::write(&path, format!("#!/usr/bin/env bash\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new(root().join("tests/setup")).arg("build").env("PATH", &directory).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_installed_is_said_first() {
    let manifest: toml_edit::DocumentMut = read("Cargo.toml").parse().unwrap();
    let wanted = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(read("README.md").contains(&format!("({wanted} or later")), "the README's Rust is {wanted}");
    let (code, said) = setup("no_rust", &[]);
    assert!(
        code == Some(1) && said.contains("there is no Rust toolchain") && said.contains(wanted) && said.contains("sh.rustup.rs"),
        "{said}"
    );
    let (code, said) = setup("old_rust", &[("cargo", "cargo 1.63.0"), ("rustc", "rustc 1.63.0 (4b91a6ea7 2022-08-08)")]);
    assert!(code == Some(1) && said.contains("Rust 1.63.0 is too old") && said.contains(wanted), "{said}");
}

#[test]
fn the_compose_file_names_what_is_there() {
    let compose: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    let services = compose["services"].as_mapping().unwrap();
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':') && !image.ends_with(":latest"), "{name:?}: {image}");
        for volume in service["volumes"].as_sequence().into_iter().flatten() {
            let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
            let is_there = if from.starts_with("./") {
                root().join(from).exists()
            } else {
                compose["volumes"].as_mapping().unwrap().get(from).is_some()
            };
            assert!(is_there, "{name:?}: {from}");
        }
        for port in service["ports"].as_sequence().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name:?}: open to the network");
        }
    }
    // What a pipeline's checkpoint stands for is kept as long as the checkpoint: `down` takes the containers, not the volumes.
    let data = [
        ("postgres", "/var/lib/postgresql/data"),
        ("mariadb", "/var/lib/mysql"),
        ("mongodb", "/data/db"),
        ("rethinkdb", "/data"),
        ("kafka", "/var/lib/kafka/data"),
        ("rabbitmq", "/var/lib/rabbitmq"),
    ];
    for (name, path) in data {
        let kept = Value::from(format!("{name}:{path}"));
        assert!(services[name]["volumes"].as_sequence().unwrap().contains(&kept), "{name}");
    }
    assert_eq!(services["kafka"]["environment"]["KAFKA_LOG_DIRS"], "/var/lib/kafka/data");
    assert_eq!(services["rabbitmq"]["hostname"], "rabbitmq", "its data and its cluster's name are those of the host's name");
    for file in ["kafka", "rabbitmq", "mariadb", "mongodb", "rethinkdb"] {
        // The image's working directory is the volume: the checkpoint's default place lies on it.
        let place = configured(file, &read(&format!("config/compose/{file}.toml")), &image_environment());
        assert!(!place.contains('/'), "{place}");
    }
}

/// Every pipeline of the compose file is watched.
#[test]
fn the_compose_files_prometheus_scrapes_all_its_pipelines() {
    let compose: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    let scraped = read("config/compose/prometheus.yml");
    let pipelines = compose["services"].as_mapping().unwrap().keys().filter_map(Value::as_str).filter(|name| name.starts_with("feedline"));
    let mut count = 0;
    for name in pipelines {
        assert!(
            scraped.contains(&format!("{name},")) || scraped.contains(&format!("{name}]")) || scraped.contains(&format!("{name}:")),
            "{name}"
        );
        count += 1;
    }
    assert!(5 <= count, "{count} pipelines");
}

/// The database of the compose file is ready for both of its pipelines, by the role that it makes.
#[test]
fn the_compose_files_database_serves_its_pipelines() {
    let server = Postgres::start(&Options::default());
    let database = server.create_database("compose");
    server.psql(&database, &read("config/compose/init.sql"));
    for file in ["kafka", "rabbitmq"] {
        let said = checked_with_a_file(file, server.port(), &database);
        assert!(said.contains("public.orders (id)"), "{said}");
    }
}

/// The MariaDB of the compose file, with the settings of its command and the user that its script makes, is ready too.
#[test]
fn the_compose_files_mariadb_serves_its_pipeline() {
    let compose: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    let words = compose["services"]["mariadb"]["command"].as_sequence().unwrap().iter();
    let settings = words.map(|word| word.as_str().unwrap().trim_start_matches("--").split_once('=').unwrap());
    let settings = settings.filter(|(name, _)| !matches!(*name, "server-id" | "log-bin"));
    let mut settings: Vec<(&str, &str)> = settings.map(|(name, value)| (&*name.to_owned().leak(), &*value.to_owned().leak())).collect();
    // As it is where nobody says otherwise.
    settings.push(("innodb_flush_log_at_trx_commit", "1"));
    let server = MySql::start(&mysql::Options { settings, ..mysql::Options::default() });
    server.sql("", "CREATE DATABASE shop");
    server.sql("shop", &format!("source {}", root().join("config/compose/mariadb.sql").display()));
    let said = checked_with_a_file("mariadb", server.port(), "shop");
    assert!(said.contains("shop.orders (id)") && !said.contains("warning FL23"), "{said}");
    wait_for("the event writes", Duration::from_secs(30), || {
        (server.sql("shop", "SELECT MAX(id) > 1001 FROM orders") == "1").then_some(())
    });
}

/// The RethinkDB of the compose file is stood for by the tests' server, with the table and the user that its writer makes.
#[test]
fn the_compose_files_rethinkdb_serves_its_pipeline() {
    let script = read("config/compose/rethinkdb.py");
    assert!(
        script.contains("table_create(\"orders\")") && script.contains("{\"id\": \"feedline\", \"password\": \"feedline\"}"),
        "{script}"
    );
    let server = RethinkDb::start();
    server.add_user("feedline", "feedline");
    server.create_table("orders", "id");
    let said = checked_with_a_file("rethinkdb", server.port(), "shop");
    assert!(said.contains("shop.orders (id)") && said.contains("make the local store shop_rethinkdb.store"), "{said}");
}

/// The MongoDB of the compose file is stood for by the tests' server, with the collection that its writer makes.
#[test]
fn the_compose_files_mongodb_serves_its_pipeline() {
    let script = read("config/compose/mongodb.js");
    assert!(script.contains("createCollection(\"orders\", {changeStreamPreAndPostImages: {enabled: true}})"), "{script}");
    let server = MongoDb::start(&[]);
    server.create("shop", "orders");
    let said = checked_with_a_file("mongodb", server.port(), "shop");
    assert!(said.contains("shop.orders (_id)"), "{said}");
}

/// What `feedline check` says of a compose file's configuration, with this server and a file as its sink.
fn checked_with_a_file(file: &str, port: u16, database: &str) -> String {
    let configuration = root().join(format!("config/compose/{file}.toml"));
    let directory = scratch(&format!("database-{file}"));
    let settings = [
        "source.host=127.0.0.1".to_owned(),
        format!("source.port={port}"),
        format!("source.database={database}"),
        "sink.kind=file".to_owned(),
        format!("sink.path={}", directory.join("out.jsonl").display()),
        format!("checkpoint.path={}", directory.join("checkpoint").display()),
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting]);
    let mut check = Command::new(env!("CARGO_BIN_EXE_feedline"));
    check.args(["check", "--config"]).arg(&configuration).args(arguments);
    for password in ["POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "MARIADB_PASSWORD", "RETHINKDB_PASSWORD"] {
        check.env(password, "feedline");
    }
    let checked = check.output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
    std::fs::remove_dir_all(directory).unwrap();
    said
}

/// Asserts that an expression names no metric of feedline's that there is not.
fn assert_known(expression: &str) {
    let metrics = Command::new(env!("CARGO_BIN_EXE_feedline")).arg("metrics").output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let known: Vec<&str> = metrics.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    for name in words.filter(|word| word.starts_with("feedline_")) {
        assert!(known.contains(&name.trim_end_matches("_bucket")), "there is no {name}: {expression}");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/compose/grafana/dashboards/feedline.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut places) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        for place in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (row, column))) {
            assert!(places.insert(place) && place.1 < 24, "{title} overlaps another panel, or the edge");
        }
        assert!(!panel["description"].as_str().unwrap().is_empty() && panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            // Each selector: a panel would show the pipelines of other namespaces otherwise.
            let chosen = expression.matches("{namespace=~\"$namespace\",pipeline=~\"$pipeline\"").count();
            assert!(chosen == expression.matches('{').count() && 0 < chosen, "{title}: {expression}");
            // A pod that replaces another has another address: one pipeline stays one line.
            assert!(expression.contains(" by ("), "{title}: {expression}");
            let legend = target["legendFormat"].as_str().unwrap();
            assert!(legend.contains("{{namespace}} {{pipeline}}") || !expression.contains("by (namespace, pipeline"), "{title}: {legend}");
            assert!(!expression.contains("rate(") || expression.contains("$__rate_interval"), "{title}: {expression}");
            assert_known(expression);
        }
    }
    assert!(8 < panels.len());
    let rows = places.last().unwrap().0 + 1;
    assert_eq!(places.len() as u64, rows * 24, "a hole in the dashboard");
}

/// Debian's `promtool` reads what Prometheus would.
fn promtool(arguments: &[&str]) {
    let program = port::target().join("servers/prometheus/promtool");
    let output = Command::new(&program).args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: run tests/setup", program.display()));
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn prometheus_reads_its_configuration_and_the_dashboards_expressions() {
    // As its container sees it: each file where the compose file puts it.
    let compose: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    let directory = scratch("prometheus");
    for volume in compose["services"]["prometheus"]["volumes"].as_sequence().unwrap() {
        let (from, to) = volume.as_str().unwrap().trim_end_matches(":ro").split_once(':').unwrap();
        std::fs::copy(root().join(from), directory.join(to.strip_prefix("/etc/prometheus/").unwrap())).unwrap();
    }
    promtool(&["check", "config", directory.join("prometheus.yml").to_str().unwrap()]);
    std::fs::remove_dir_all(directory).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/compose/grafana/dashboards/feedline.json")).unwrap();
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let variables = [("$__rate_interval", "1m"), ("$__range", "1h"), ("$namespace", ".*"), ("$pipeline", ".+")];
            let expression = target["expr"].as_str().unwrap();
            let expression = variables.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
            assert!(!expression.contains('$'), "a variable that this test does not know: {expression}");
            writeln!(rules, "  - record: panel_{}_{}\n    expr: {expression:?}", panel["id"], target["refId"].as_str().unwrap()).unwrap();
        }
    }
    let path = scratch("rules").join("rules.yml");
    std::fs::write(&path, rules).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// Each alert fires when it should and only then, uses metrics that exist, and is documented.
#[test]
fn the_alerts_speak_when_they_should() {
    promtool(&["test", "rules", "tests/it/deployment/alerts.yml"]);
    let (operations, cases) = (read("docs/operations.md"), read("tests/it/deployment/alerts.yml"));
    let alerts: Value = serde_yaml_ng::from_str(&read("helm/feedline/alerts.yml")).unwrap();
    for rule in alerts["groups"][0]["rules"].as_sequence().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert_known(rule["expr"].as_str().unwrap());
        assert!(operations.contains(&format!("| `{name}` |")), "{name} is not explained");
        assert!(cases.contains(&format!("alertname: {name}\n        exp_alerts:")), "{name} is never seen to speak");
        assert!(cases.contains(&format!("alertname: {name} }}")), "{name} is never seen to be silent");
    }
}

#[test]
fn the_image_agrees_with_the_program() {
    let (image, manifest) = (read("Dockerfile"), read("Cargo.toml"));
    let of_manifest = |key: &str| manifest.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim_matches('"').to_owned();
    let rust = of_manifest("rust-version = ");
    assert!(image.contains(&format!("FROM rust:{rust}-")), "the image builds with Rust {rust}");
    assert!(image.contains("USER 65532:65532") && image.contains("WORKDIR /var/lib/feedline") && !image.contains(":latest"));
    for (argument, key) in [("VERSION", "version = "), ("LICENSE", "license = ")] {
        assert!(image.contains(&format!("ARG {argument}={}\n", of_manifest(key))), "{argument}");
    }
    // The port that is exposed is listened on, and from outside the container.
    let listens = image_environment().into_iter().find(|(name, _)| name == "FEEDLINE__ADMIN__LISTEN").unwrap().1;
    let exposed = image.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    assert_eq!(listens, format!("0.0.0.0:{exposed}"));
}

/// systemd reads the unit, and what it sets goes with a checkpoint in the unit's directory and with one in the broker.
#[test]
fn the_unit_is_read_by_systemd_and_runs_each_kind_of_checkpoint() {
    let unit = read("config/systemd/feedline@.service");
    // What a restart cannot mend is not started again: configuration, a gap, a person.
    assert!(unit.contains("RestartPreventExitStatus=2 70 71"), "{unit}");
    assert!(
        unit.contains("StateDirectory=feedline/%i\n") && unit.contains("WorkingDirectory=%S/feedline/%i\n"),
        "a relative path lies there"
    );
    let directory = scratch("unit");
    let path = directory.join("feedline@shop.service");
    std::fs::write(&path, unit.replace("/usr/bin/feedline", env!("CARGO_BIN_EXE_feedline"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().expect("systemd-analyze: run tests/setup");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    assert_eq!(analyze(&["verify", "--man=no", "--recursive-errors=no"]), (true, String::new()));
    // And with each of the drop-ins that deployment.md gives, for a user that is there.
    let (deployment, drop_ins) = (read("docs/deployment.md"), directory.join("feedline@shop.service.d"));
    std::fs::create_dir(&drop_ins).unwrap();
    for (number, block) in deployment.split("```ini\n").skip(1).enumerate() {
        let text = block.split("```").next().unwrap().replace("=shop\n", "=root\n");
        std::fs::write(drop_ins.join(format!("{number}.conf")), text).unwrap();
    }
    assert!(drop_ins.join("1.conf").exists());
    assert_eq!(analyze(&["verify", "--man=no", "--recursive-errors=no"]), (true, String::new()));
    std::fs::remove_dir_all(&drop_ins).unwrap();
    let (is_hardened, said) = analyze(&["security", "--offline=true", "--threshold=20"]);
    assert!(is_hardened, "{said}");
    std::fs::remove_dir_all(&directory).unwrap();
    let variables = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).map(|line| line.split_once('=').unwrap());
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let text = read("config/compose/kafka.toml");
    assert_eq!(configured("unit", &text, &environment), "shop.checkpoint");
    assert_eq!(configured("unit", &format!("{text}\n[checkpoint]\nkind = \"kafka\"\n"), &environment), "kafka");
}
