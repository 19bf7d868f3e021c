//! The chart, rendered and linted with the versions of Helm that people use.

use super::{Environment, configured, read, root, scratch};
use serde_yaml_ng::Value;
use std::process::{Command, Output};

pub(super) const HELMS: [&str; 2] = ["3", "4"];

pub(super) fn helm(version: &str, arguments: &[&str]) -> Output {
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

pub(super) fn of_kind<'d>(documents: &'d [Value], kind: &str) -> Option<&'d Value> {
    documents.iter().find(|document| document["kind"] == kind)
}

/// What the chart sets in a container's environment.
fn environment(container: &Value) -> Environment {
    let variables = container["env"].as_sequence().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    variables.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

fn values() -> Vec<String> {
    let folder = root().join("helm/feedline/ci");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.map(|file| format!("helm/feedline/ci/{file}")).collect();
    files.sort();
    assert_eq!(files.len(), 5);
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
            // What the chart sets goes with a checkpoint on the volume, whose default place lies there, and with one in the broker.
            assert_eq!(container["workingDir"], "/var/lib/feedline");
            let environment = environment(container);
            assert!(environment.iter().all(|(name, _)| !name.starts_with("FEEDLINE__CHECKPOINT")), "{environment:?}");
            if let Some(map) = of_kind(&documents, "ConfigMap") {
                let place = configured("chart", map["data"]["feedline.toml"].as_str().unwrap(), &environment);
                let on_the_volume =
                    container["volumeMounts"].as_sequence().unwrap().iter().any(|mount| mount["mountPath"] == "/var/lib/feedline");
                assert_eq!(place, if on_the_volume { "shop.checkpoint" } else { "amqp" }, "{values}");
            } else {
                for kind in ["file", "kafka"] {
                    let text = format!("{}\n[checkpoint]\nkind = \"{kind}\"\n", read("config/compose/kafka.toml"));
                    configured("chart", &text, &environment);
                }
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
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"]), (&Value::from("15s"), &Value::from("5s")));
        assert_eq!(endpoint["relabelings"][0]["targetLabel"], "node");
        assert_eq!(endpoint["metricRelabelings"][0]["action"], "drop");
        let rule = of_kind(&all, "PrometheusRule").unwrap();
        assert_eq!(rule["metadata"]["labels"]["role"], "alerts");
        let alerts: Value = serde_yaml_ng::from_str(&read("helm/feedline/alerts.yml")).unwrap();
        assert_eq!(rule["spec"], alerts, "the same for whoever has no operator");
        let existing = rendered(version, "helm/feedline/ci/existing-values.yaml");
        let set = of_kind(&existing, "StatefulSet").unwrap();
        assert_eq!(set["spec"]["replicas"], 0);
        assert!(of_kind(&existing, "PodMonitor").is_none() && of_kind(&existing, "PrometheusRule").is_none());
        assert!(of_kind(&existing, "ConfigMap").is_none() && of_kind(&existing, "ServiceAccount").is_none());
        assert_eq!(set["spec"]["template"]["spec"]["serviceAccountName"], "shop");
        assert!(set["spec"]["template"]["metadata"]["annotations"].is_null(), "{set:?}");
        let volumeless = rendered(version, "helm/feedline/ci/volumeless-values.yaml");
        let set = of_kind(&volumeless, "StatefulSet").unwrap();
        let text = serde_yaml_ng::to_string(set).unwrap();
        assert!(set["spec"]["volumeClaimTemplates"].is_null() && !text.contains("mountPath: /var/lib/feedline"), "{text}");
    }
}

/// Renders the chart with these values beside a configuration.
pub(super) fn with_values(version: &str, name: &str, values: &str) -> Vec<Value> {
    let path = scratch("values").join(format!("{name}-{version}.yaml"));
    std::fs::write(&path, values).unwrap();
    let documents = rendered(version, path.to_str().unwrap());
    std::fs::remove_file(path).unwrap();
    documents
}

fn named<'d>(list: &'d Value, name: &str) -> Vec<&'d Value> {
    list.as_sequence().unwrap().iter().filter(|item| item["name"] == name).collect()
}

/// A pod of before keeps its configuration, and one that never got ready is replaced.
#[test]
fn another_configuration_is_another_pod() {
    for version in HELMS {
        let of = |config: &str| {
            let documents = with_values(version, "config", &format!("config: {config}"));
            let map = of_kind(&documents, "ConfigMap").unwrap();
            assert_eq!(map["immutable"], true);
            let set = of_kind(&documents, "StatefulSet").unwrap();
            assert_eq!(set["spec"]["podManagementPolicy"], "Parallel");
            let pod = &set["spec"]["template"]["spec"];
            assert_eq!(named(&pod["volumes"], "config")[0]["configMap"]["name"], map["metadata"]["name"]);
            assert_eq!(pod["containers"][0]["terminationMessagePolicy"], "FallbackToLogsOnError");
            map["metadata"]["name"].clone()
        };
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }
}

/// What looks like a number or a boolean stays the text that it is.
#[test]
fn values_stay_the_text_that_they_are() {
    for version in HELMS {
        let values = "config: \"  name = 'a'\\n\\tx = 1\\n\"\nimage: { repository: '0123', tag: '2024' }\npriorityClassName: 'on'\n\
                      persistence: { storageClass: '007' }\nnameOverride: '1e3'\nserviceAccount: { create: false, name: 'no' }\n\
                      secrets: [{ secret: '12', key: 'yes', file: '0x1' }]\npodAnnotations: { year: '2024' }\nnodeSelector: { ssd: 'true' }\n\
                      extraEnv: [{ name: FEEDLINE__LOG__FORMAT, value: pretty }]\nterminationGracePeriodSeconds: 1000000";
        let documents = with_values(version, "text", values);
        let map = of_kind(&documents, "ConfigMap").unwrap();
        assert_eq!(map["data"]["feedline.toml"], "  name = 'a'\n\tx = 1\n");
        let set = of_kind(&documents, "StatefulSet").unwrap();
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "0123:2024");
        assert_eq!((&pod["priorityClassName"], &pod["serviceAccountName"]), (&Value::from("on"), &Value::from("no")));
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "007");
        assert_eq!(set["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"], "1e3");
        let secret = &named(&pod["volumes"], "secrets")[0]["projected"]["sources"][0]["secret"];
        assert_eq!((&secret["name"], &secret["items"][0]["key"]), (&Value::from("12"), &Value::from("yes")));
        assert_eq!(set["spec"]["template"]["metadata"]["annotations"]["year"], "2024");
        assert_eq!(pod["terminationGracePeriodSeconds"], 1_000_000);
        let formats = named(&pod["containers"][0]["env"], "FEEDLINE__LOG__FORMAT");
        assert_eq!((formats.len(), &formats[0]["value"]), (1, &Value::from("pretty")), "not twice");
    }
}

/// Whatever an editor left in it: the text that the pod reads is the text that was given.
#[test]
fn a_configuration_is_the_text_that_was_given() {
    for version in HELMS {
        for config in ["\u{feff}name = 'a'\r\n", "# \u{2028} \u{85} \u{1} é 😀\n", "  a = \"\\\"\"\n---\n", "a = '{{ .Values.x }}'\n"] {
            let output = configured_as(version, config, &["--show-only", "templates/configmap.yaml"]);
            assert!(output.status.success(), "helm {version} {config:?}: {}", String::from_utf8_lossy(&output.stderr));
            let map: Value = serde_yaml_ng::from_slice(&output.stdout).unwrap();
            assert_eq!(map["data"]["feedline.toml"], config, "helm {version}");
        }
    }
}

/// An operator may select by any label, also by one that the chart has too; none is there twice.
#[test]
fn labels_of_ones_own_win_where_nothing_depends_on_them() {
    for version in HELMS {
        let values = "config: a\npodLabels: { app.kubernetes.io/version: b }\n\
                      podMonitor: { enabled: true, labels: { app.kubernetes.io/instance: c } }\n\
                      prometheusRule: { enabled: true, labels: { app.kubernetes.io/instance: d } }";
        let documents = with_values(version, "labels", values);
        let labels = &of_kind(&documents, "StatefulSet").unwrap()["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            (&labels["app.kubernetes.io/version"], &labels["app.kubernetes.io/instance"]),
            (&Value::from("b"), &Value::from("shop"))
        );
        for (kind, label) in [("PodMonitor", "c"), ("PrometheusRule", "d")] {
            let labels = &of_kind(&documents, kind).unwrap()["metadata"]["labels"];
            assert_eq!(
                (&labels["app.kubernetes.io/instance"], &labels["app.kubernetes.io/component"]),
                (&label.into(), &"connector".into())
            );
        }
    }
}

#[test]
fn the_pods_user_is_ones_own_to_choose() {
    for version in HELMS {
        let documents = with_values(version, "user", "config: a\npodSecurityContext: { runAsUser: null, runAsGroup: null, fsGroup: null }");
        let pod = &of_kind(&documents, "StatefulSet").unwrap()["spec"]["template"]["spec"];
        let context = pod["securityContext"].as_mapping().unwrap();
        assert!(["runAsUser", "runAsGroup", "fsGroup"].iter().all(|key| !context.contains_key(*key)), "{context:?}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    }
}

/// Renders the chart with a configuration, and with more arguments.
fn configured_as(version: &str, config: &str, arguments: &[&str]) -> Output {
    let path = scratch("config").join(format!("{version}.toml"));
    std::fs::write(&path, config).unwrap();
    let file = format!("config={}", path.display());
    let output = helm(version, &[&["template", "shop", "helm/feedline", "--set-file", &file], arguments].concat());
    std::fs::remove_file(path).unwrap();
    output
}

#[test]
fn wrong_values_are_refused_with_what_to_set() {
    for version in HELMS {
        for (arguments, expected) in [
            (&[][..], "config is empty"),
            (&["--set", "config=a,existingConfigMap=b"], "set one of them"),
            (&["--set", "config=a,replicaCount=2"], "replicaCount"),
            (&["--set", "config=a,persistence.accessModes[0]=ReadWriteMany"], "accessModes"),
            (&["--set", "config=a,image.digest=latest"], "digest"),
            (&["--set", "config=a,persistence.enabled=false"], "would go with the pod"),
            (&["--set", "config=a,podAnnotations.year=2024"], "podAnnotations"),
            (&["--set", "config=a,nodeSelector.ssd=true"], "nodeSelector"),
            (&["--set", "config=a,extraEnv[0].name=FEEDLINE__ADMIN__LISTEN,extraEnv[0].value=b"], "Leave it out"),
            (&["--set", "config=a,extraEnv[0].name=FEEDLINE__admin__listen,extraEnv[0].value=b"], "Leave it out"),
            (&["--set", "config=a,extraEnv[0].name=A,extraEnv[0].value=a,extraEnv[1].name=A,extraEnv[1].value=b"], "one name twice"),
            (&["--set", "config=a,extraEnv[0].name=FEEDLINE__SOURCE__PASSWORD,extraEnv[0].value=b"], "valueFrom"),
            (&["--set", "config=a,extraEnv[0].name=FEEDLINE__CHECKPOINT__KIND,extraEnv[0].value=kafka"], "persistence.enabled=false"),
            (&["--set", "config=a,extraEnv[0].name=FEEDLINE__PIPELINE__SHUTDOWN_DEADLINE,extraEnv[0].value=2min"], "set it to 130 or more"),
            (&["--set", r"config=a,podLabels.app\.kubernetes\.io/name=b"], "Leave it out"),
            (&["--set", "config=a,extraVolumes[0].name=config"], "choose another"),
            (&["--set", "config=a,extraVolumes[0].name=b,extraVolumes[1].name=b"], "choose another"),
            (&["--set", "config=a,extraVolumeMounts[0].name=b,extraVolumeMounts[0].mountPath=/etc/feedline/"], "choose another"),
            (
                &[
                    "--set",
                    "config=a,secrets[0].secret=a,secrets[0].key=b,secrets[0].file=c,secrets[1].secret=d,secrets[1].key=e,secrets[1].file=c",
                ],
                "choose another",
            ),
            (&["--set", "config=a,extraVolumes[0].emptyDir.medium=Memory"], "extraVolumes"),
            (&["--set", "config=a,extraVolumeMounts[0].name=b"], "mountPath"),
            (&["--set", "config=a,tolerations[0].value=1"], "tolerations"),
            (&["--set", "config=a,tolerations[0].kei=b"], "kei"),
            (&["--set", "config=a,imagePullSecrets[0].name=2024"], "imagePullSecrets"),
            (&["--set", "config=a,persistence.size=08Mi"], "size"),
            (&["--set", "config=a,nameOverride=Shop_1"], "nameOverride"),
            (&["--set", "config=a,fullnameOverride=1shop"], "fullnameOverride"),
            (&["--set", "config=a,terminationGracePeriodSeconds=29"], "set it to 30 or more"),
        ] {
            let output = helm(version, &[&["template", "shop", "helm/feedline"], arguments].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(expected), "helm {version} {arguments:?}: {said}");
        }
        for taken in [
            // It may be a part of another chart.
            "global.x=1",
            "persistence.enabled=false,extraEnv[0].name=FEEDLINE__CHECKPOINT__KIND,extraEnv[0].value=kafka",
            "extraEnv[0].name=FEEDLINE__ADMIN__LISTEN,extraEnv[0].value=[::]:9464",
            "extraEnv[0].name=FEEDLINE__SOURCE__PASSWORD,extraEnv[0].valueFrom.secretKeyRef.name=b",
            "podLabels=null,extraEnv=null,persistence.storageClass=null,image.tag=null,podMonitor.enabled=true,podMonitor.labels=null",
        ] {
            let output = helm(version, &["template", "shop", "helm/feedline", "--set", &format!("config=a,{taken}")]);
            assert!(output.status.success(), "helm {version} {taken}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A Service's name begins with a letter and has no dot; a release's name need not.
#[test]
fn a_name_that_a_service_may_not_have_is_refused() {
    for version in HELMS {
        for release in ["2024", "shop.v1"] {
            let said = helm(version, &["template", release, "helm/feedline", "--set", "config=a"]).stderr;
            assert!(String::from_utf8_lossy(&said).contains("set fullnameOverride"), "helm {version} {release}");
            let output = helm(version, &["template", release, "helm/feedline", "--set", "config=a,fullnameOverride=shop"]);
            assert!(output.status.success(), "helm {version} {release}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// The chart has no reader of TOML: whatever way a setting is written it is seen, and what only looks like one is not.
#[test]
fn settings_are_seen_in_each_way_of_writing_them() {
    let volumeless = ["--set", "persistence.enabled=false"];
    for version in HELMS {
        for (config, expected) in [
            ("password = \"x\"", "password_file"),
            ("[source]\n  password=\"x\"", "password_file"),
            ("[source]\n\"password\" = \"x\"", "password_file"),
            ("source = { kind = \"postgres\", password = \"hunter2\" }", "password_file"),
            ("source = {password=\"hunter2\"}", "password_file"),
            ("source.password = \"hunter2\"", "password_file"),
            ("source . 'password' = 'hunter2'", "password_file"),
            ("name = \"a\" # one\nsink.sasl_password = \"x\"", "password_file"),
            ("[sink]\nssl_key_password = '''x'''", "password_file"),
            ("[sink.properties]\n\"sasl.password\" = \"x\"", "password_file"),
            ("[checkpoint]\nkind = \"kafka\"", "persistence.enabled=false"),
            ("[ checkpoint ] # there\n# kind = \"file\"\ninterval = \"1s\"\nkind = 'amqp'", "persistence.enabled=false"),
            ("checkpoint = { kind = \"kafka\" }", "persistence.enabled=false"),
            ("checkpoint = { interval = \"1s\", kind = \"amqp\" }", "persistence.enabled=false"),
            ("checkpoint.kind = \"kafka\"", "persistence.enabled=false"),
            ("\"checkpoint\".\"kind\" = \"kafka\"", "persistence.enabled=false"),
            ("[pipeline]\nshutdown_deadline = \"2min\"", "set it to 130 or more"),
            ("pipeline.shutdown_deadline = '30001ms'", "set it to 41 or more"),
            ("pipeline = { memory = \"64MiB\", shutdown_deadline = \"1h\" }", "set it to 3610 or more"),
        ] {
            let output = configured_as(version, config, &[]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(expected), "helm {version} {config}: {said}");
        }
        for config in [
            "# password = \"x\"",
            "name = \"shop\" # password = \"x\"",
            "[source]\npassword_file = \"/run/secrets/feedline/postgres\"\npassword_env = \"PASSWORD\"",
            "[[feeds]]\nprefeed = { query = \"SELECT id FROM users WHERE 'a' <> password = 'b'\" }",
            "[[feeds]]\nprefeed = { query = \"\"\"\nSELECT id FROM users # \\\"\npassword = ''\"\"\" }",
            "# shutdown_deadline = \"2min\"",
            "[pipeline]\nshutdown_deadline = \"30 s\" # \"2min\"",
            "# [checkpoint]\n# kind = \"kafka\"",
            "[checkpoint]\n# kind = \"kafka\"\nkind = \"file\"",
            "[checkpoint]\nkind = \"file\"\n[sink]\nkind = \"kafka\"",
            "checkpoint = { kind = \"file\" }\nsink = { kind = \"kafka\" }",
        ] {
            let output = configured_as(version, config, &[]);
            assert!(output.status.success(), "helm {version} {config}: {}", String::from_utf8_lossy(&output.stderr));
        }
        for kept in ["checkpoint = { kind = \"kafka\" }", "checkpoint.kind = 'amqp'", "[checkpoint]\nkind = \"kafka\""] {
            let output = configured_as(version, kept, &volumeless);
            assert!(output.status.success(), "helm {version} {kept}: {}", String::from_utf8_lossy(&output.stderr));
        }
        for lost in ["# checkpoint.kind = \"kafka\"", "[checkpoint]\n# kind = \"kafka\"", "[sink]\nkind = \"kafka\""] {
            let said = configured_as(version, lost, &volumeless).stderr;
            assert!(String::from_utf8_lossy(&said).contains("would go with the pod"), "helm {version} {lost}");
        }
    }
}

/// What deployment.md builds and pushes is what the chart then asks for.
#[test]
fn the_image_that_is_pushed_is_the_one_that_is_pulled() {
    let deployment = read("docs/deployment.md");
    let repository = "image.repository=registry.example.com/feedline";
    assert!(deployment.contains(repository));
    for version in HELMS {
        let output = helm(version, &["template", "shop", "helm/feedline", "--set", "config=a", "--set", repository]);
        let text = String::from_utf8(output.stdout).unwrap();
        let image = text.lines().find_map(|line| line.trim().strip_prefix("image: ")).unwrap().trim_matches('"');
        assert!(deployment.contains(&format!("docker push {image}\n")), "{image} is pulled");
    }
}

/// The Job of deployment.md mounts what the chart leaves when the pipeline is stopped, and is as restricted as its pod.
#[test]
fn the_documents_job_fits_the_chart() {
    let deployment = read("docs/deployment.md");
    let job: Value = serde_yaml_ng::from_str(deployment.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap()).unwrap();
    let job = &job["spec"]["template"]["spec"];
    let arguments = ["config=a", "stopped=true", "image.repository=registry.example.com/feedline", "secrets[0].secret=shop-db"];
    let arguments = arguments.into_iter().chain(["secrets[0].key=password", "secrets[0].file=postgres"]).flat_map(|value| ["--set", value]);
    let output = helm("3", &["template", "shop", "helm/feedline"].into_iter().chain(arguments).collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).unwrap();
    let documents: Vec<Value> =
        serde_yaml_ng::Deserializer::from_str(&text).map(|document| serde::Deserialize::deserialize(document).unwrap()).collect();
    let set = of_kind(&documents, "StatefulSet").unwrap();
    let pod = &set["spec"]["template"]["spec"];
    let mut restricted = pod["securityContext"].clone();
    restricted.as_mapping_mut().unwrap().remove("fsGroupChangePolicy");
    assert_eq!(job["securityContext"], restricted);
    let (once, container) = (&job["containers"][0], &pod["containers"][0]);
    for same in ["image", "workingDir", "securityContext"] {
        assert_eq!(once[same], container[same], "{same}");
    }
    let places = |container: &Value| {
        let mounts = container["volumeMounts"].as_sequence().unwrap().iter();
        let mut places: Vec<_> = mounts.map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect();
        places.sort();
        places
    };
    assert_eq!(places(once), places(container));
    let volume = |name: &str| job["volumes"].as_sequence().unwrap().iter().find(|volume| volume["name"] == name).unwrap().clone();
    let map = volume("config")["configMap"]["name"].as_str().unwrap().to_owned();
    assert!(deployment.contains(&format!("kubectl create configmap {map} --from-file=feedline.toml")), "{map}");
    let claim = &set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"];
    let claim = format!("{}-{}-0", claim.as_str().unwrap(), set["metadata"]["name"].as_str().unwrap());
    assert_eq!(volume("checkpoint")["persistentVolumeClaim"]["claimName"], claim);
    let secret =
        &pod["volumes"].as_sequence().unwrap().iter().find(|volume| volume["name"] == "secrets").unwrap()["projected"]["sources"][0];
    assert_eq!(volume("secrets")["secret"]["items"], secret["secret"]["items"]);
    assert_eq!(volume("secrets")["secret"]["secretName"], secret["secret"]["name"]);
}

/// `tag:` with nothing behind it is null, which an upgrade with `--reuse-values` shows to the schema.
fn may_be_left_blank(name: &str, known: &serde_json::Value, default: &Value) {
    let is_empty = match default {
        Value::String(text) => text.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Mapping(map) => map.is_empty(),
        _ => false,
    };
    if is_empty {
        assert!(known["type"].as_array().is_some_and(|types| types.contains(&"null".into())), "{name} may not be left blank");
    }
}

#[test]
fn every_value_of_the_chart_is_in_its_schema_and_its_readme_and_used() {
    let readme = read("helm/feedline/README.md");
    let schema: serde_json::Value = serde_json::from_str(&read("helm/feedline/values.schema.json")).unwrap();
    let values: Value = serde_yaml_ng::from_str(&read("helm/feedline/values.yaml")).unwrap();
    let folder = root().join("helm/feedline/templates");
    let templates: String =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    for (name, value) in values.as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        let known = &schema["properties"][name];
        assert!(known.is_object(), "{name} is not in the schema");
        assert!(readme.contains(&format!("| `{name}")), "{name} is not in the README");
        assert!(templates.contains(&format!(".Values.{name}")), "{name} is not used");
        may_be_left_blank(name, known, value);
        for inner in known["properties"].as_object().into_iter().flatten() {
            may_be_left_blank(inner.0, inner.1, &value[inner.0.as_str()]);
            assert!(templates.contains(&format!(".Values.{name}.{}", inner.0)), "{name}.{} is not used", inner.0);
            assert!(readme.contains(&format!("| `{name}.{}`", inner.0)), "{name}.{} is not in the README", inner.0);
            assert!(!value[inner.0.as_str()].is_null(), "{name}.{} has no default", inner.0);
        }
    }
}
