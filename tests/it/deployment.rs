//! What people deploy feedline with: the chart, the compose file, the image, the unit. What they say holds for this build.

use crate::servers::postgres::{Options, Postgres};
use serde_yaml_ng::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

/// `feedline check --offline` of a configuration whose secrets lie where no secret lies here.
fn assert_is_configuration(name: &str, text: &str) {
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    command.args(["check", "--offline", "--config"]).arg(&path);
    let checked = command.env("POSTGRES_PASSWORD", "x").env("RABBITMQ_PASSWORD", "x").output().unwrap();
    assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stdout));
    std::fs::remove_dir_all(directory).unwrap();
}

const HELMS: [&str; 2] = ["3", "4"];

fn helm(version: &str, arguments: &[&str]) -> Output {
    let program = crate::servers::port::target().join(format!("servers/helm-{version}/helm"));
    let mut command = Command::new(&program);
    // What this user has set up for Helm is not looked at.
    let home = scratch("helm");
    command.env("HELM_CONFIG_HOME", &home).env("HELM_CACHE_HOME", &home).env("HELM_DATA_HOME", &home);
    command.args(arguments).current_dir(root()).output().unwrap_or_else(|error| panic!("{}: {error}: run tests/setup", program.display()))
}

/// The documents that the chart makes of a file of values.
fn rendered(version: &str, values: &str) -> Vec<Value> {
    let output = helm(version, &["template", "shop", "helm/feedline", "--namespace", "data", "--values", values]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).filter(|value: &Value| !value.is_null()).collect()
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> Option<&'d Value> {
    documents.iter().find(|document| document["kind"] == kind)
}

fn values() -> Vec<String> {
    let folder = root().join("helm/feedline/ci");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.map(|file| format!("helm/feedline/ci/{file}")).collect();
    files.sort();
    assert_eq!(files.len(), 4);
    files
}

#[test]
fn the_chart_is_clean_and_one_restricted_pod_in_both_helms() {
    for version in HELMS {
        for values in values() {
            let lint = helm(version, &["lint", "--strict", "helm/feedline", "--values", &values]);
            assert!(lint.status.success(), "helm {version} {values}: {}", String::from_utf8_lossy(&lint.stdout));
            let documents = rendered(version, &values);
            let set = of_kind(&documents, "StatefulSet").unwrap();
            assert!(set["spec"]["replicas"].as_u64().unwrap() <= 1, "never two of one pipeline");
            let pod = &set["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            for (key, expected) in [("runAsNonRoot", Value::from(true)), ("runAsUser", Value::from(65_532))] {
                assert_eq!(pod["securityContext"][key], expected);
            }
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let container = &pod["containers"][0];
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
            assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
            for (probe, path) in [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
                assert_eq!(container[probe]["httpGet"]["path"], path);
            }
            // Every volume that is mounted is there, and the selectors are the pod's labels.
            let claims = set["spec"]["volumeClaimTemplates"].as_sequence().cloned().unwrap_or_default();
            let claims = claims.iter().map(|claim| claim["metadata"]["name"].clone());
            let volumes = pod["volumes"].as_sequence().unwrap().iter().map(|volume| volume["name"].clone());
            let volumes: Vec<Value> = volumes.chain(claims).collect();
            for mount in container["volumeMounts"].as_sequence().unwrap() {
                assert!(volumes.contains(&mount["name"]), "{values}: {mount:?}");
            }
            let labels = &set["spec"]["template"]["metadata"]["labels"];
            let selectors = [&set["spec"]["selector"]["matchLabels"], &of_kind(&documents, "Service").unwrap()["spec"]["selector"]];
            for selector in selectors {
                for (name, value) in selector.as_mapping().unwrap() {
                    assert_eq!(&labels[name], value);
                    assert_ne!(name, "app.kubernetes.io/version", "a selector cannot change");
                }
            }
            assert!(documents.iter().all(|document| document["metadata"]["namespace"] == "data"));
            if let Some(map) = of_kind(&documents, "ConfigMap") {
                assert_is_configuration("chart", map["data"]["feedline.toml"].as_str().unwrap());
            }
        }
    }
}

#[test]
fn the_charts_values_do_what_they_say() {
    for version in HELMS {
        let all = rendered(version, "helm/feedline/ci/rabbitmq-values.yaml");
        let set = of_kind(&all, "StatefulSet").unwrap();
        let pod = &set["spec"]["template"]["spec"];
        assert!(pod["containers"][0]["image"].as_str().unwrap().starts_with("feedline@sha256:"));
        assert_eq!(pod["priorityClassName"], "high");
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast");
        let sources = pod["volumes"].as_sequence().unwrap().iter().find(|volume| volume["name"] == "secrets").unwrap();
        assert_eq!(sources["projected"]["sources"][1]["secret"]["items"][0]["path"], "rabbitmq");
        let monitor = of_kind(&all, "PodMonitor").unwrap();
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], pod["containers"][0]["ports"][0]["name"]);
        let existing = rendered(version, "helm/feedline/ci/existing-values.yaml");
        let set = of_kind(&existing, "StatefulSet").unwrap();
        assert_eq!(set["spec"]["replicas"], 0);
        assert!(of_kind(&existing, "ConfigMap").is_none() && of_kind(&existing, "ServiceAccount").is_none());
        assert_eq!(set["spec"]["template"]["spec"]["serviceAccountName"], "shop");
        let volumeless = rendered(version, "helm/feedline/ci/volumeless-values.yaml");
        let set = of_kind(&volumeless, "StatefulSet").unwrap();
        let text = serde_yaml_ng::to_string(set).unwrap();
        assert!(
            set["spec"]["volumeClaimTemplates"].is_null() && !text.contains("/var/lib/feedline") && !text.contains("CHECKPOINT"),
            "{text}"
        );
        // Another configuration is another pod.
        let changed = |config: &str| {
            let value = format!("config={config}");
            let output = helm(version, &["template", "shop", "helm/feedline", "--set", &value]);
            String::from_utf8(output.stdout).unwrap().lines().find(|line| line.contains("checksum/config")).unwrap().to_owned()
        };
        assert_ne!(changed("a"), changed("b"));
    }
}

#[test]
fn wrong_values_are_refused_with_what_to_set() {
    for version in HELMS {
        for (arguments, expected) in [
            (&[][..], "config is empty"),
            (&["--set", "config=a,existingConfigMap=b"], "set one of them"),
            (&["--set-string", "config=password = \"x\""], "password_file"),
            (&["--set", "config=a,replicaCount=2"], "replicaCount"),
            (&["--set", "config=a,persistence.accessModes[0]=ReadWriteMany"], "accessModes"),
            (&["--set", "config=a,image.digest=latest"], "digest"),
            (&["--set", "config=a,persistence.enabled=false"], "would go with the pod"),
            (&["--set-string", "config=[checkpoint]\nkind = \"kafka\""], "persistence.enabled=false"),
        ] {
            let output = helm(version, &[&["template", "shop", "helm/feedline"], arguments].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(expected), "helm {version} {arguments:?}: {said}");
        }
        let part = helm(version, &["template", "shop", "helm/feedline", "--set", "config=a,global.x=1"]);
        assert!(part.status.success(), "it may be a part of another chart");
    }
}

#[test]
fn every_value_of_the_chart_is_in_its_schema_and_used() {
    let schema: serde_json::Value = serde_json::from_str(&read("helm/feedline/values.schema.json")).unwrap();
    let values: Value = serde_yaml_ng::from_str(&read("helm/feedline/values.yaml")).unwrap();
    let folder = root().join("helm/feedline/templates");
    let templates: String =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    for (name, value) in values.as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        let known = &schema["properties"][name];
        assert!(known.is_object(), "{name} is not in the schema");
        assert!(templates.contains(&format!(".Values.{name}")), "{name} is not used");
        for inner in known["properties"].as_object().into_iter().flatten() {
            assert!(templates.contains(&format!(".Values.{name}.{}", inner.0)), "{name}.{} is not used", inner.0);
            assert!(!value[inner.0.as_str()].is_null(), "{name}.{} has no default", inner.0);
        }
    }
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
    for file in ["kafka", "rabbitmq"] {
        assert_is_configuration(file, &read(&format!("config/compose/{file}.toml")));
    }
}

/// The database of the compose file is ready for both of its pipelines, by the role that it makes.
#[test]
fn the_compose_files_database_serves_its_pipelines() {
    let server = Postgres::start(&Options::default());
    let database = server.create_database("compose");
    server.psql(&database, &read("config/compose/init.sql"));
    for file in ["kafka", "rabbitmq"] {
        let configuration = root().join(format!("config/compose/{file}.toml"));
        let output = scratch(&format!("database-{file}")).join("out.jsonl");
        let settings = [
            "source.host=127.0.0.1".to_owned(),
            format!("source.port={}", server.port()),
            format!("source.database={database}"),
            "sink.kind=file".to_owned(),
            format!("sink.path={}", output.display()),
            format!("checkpoint.path={}", scratch(&format!("database-{file}")).join("checkpoint").display()),
        ];
        let arguments = settings.iter().flat_map(|setting| ["--set", setting]);
        let checked = Command::new(env!("CARGO_BIN_EXE_feedline"))
            .args(["check", "--config"])
            .arg(&configuration)
            .args(arguments)
            .env("POSTGRES_PASSWORD", "feedline")
            .env("RABBITMQ_PASSWORD", "feedline")
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        assert!(String::from_utf8_lossy(&checked.stdout).contains("public.orders (id)"));
        std::fs::remove_dir_all(scratch(&format!("database-{file}"))).unwrap();
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/compose/grafana/dashboards/feedline.json")).unwrap();
    let metrics = Command::new(env!("CARGO_BIN_EXE_feedline")).arg("metrics").output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let known: Vec<&str> = metrics.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty() && panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(expression.contains("{pipeline=~\"$pipeline\"}"), "{title}: {expression}");
            assert!(!expression.contains("rate(") || expression.contains("$__rate_interval"), "{title}: {expression}");
            let names = expression
                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .filter(|word| word.starts_with("feedline_"));
            for name in names {
                assert!(known.contains(&name.trim_end_matches("_bucket")), "{title}: there is no {name}");
            }
        }
    }
    assert!(8 < panels.len());
}

#[test]
fn image_and_unit_agree_with_the_program() {
    let (image, unit, manifest) = (read("Dockerfile"), read("config/systemd/feedline@.service"), read("Cargo.toml"));
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(image.contains(&format!("FROM rust:{rust}-")), "the image builds with Rust {rust}");
    assert!(image.contains("EXPOSE 9464") && image.contains("USER 65532:65532") && !image.contains(":latest"));
    // What a restart cannot mend is not started again: configuration, a gap, a person.
    assert!(unit.contains("RestartPreventExitStatus=2 70 71"), "{unit}");
    for hardening in ["DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectory=feedline/%i"] {
        assert!(unit.contains(hardening), "{hardening}");
    }
}
