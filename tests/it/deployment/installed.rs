//! The chart over a release that is there: what a `StatefulSet` refuses half-way, or what loses the checkpoint, is refused before.

use super::chart::{HELMS, helm, of_kind, with_values};
use super::scratch;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const SETS: &str = "/apis/apps/v1/namespaces/data/statefulsets";

/// What an API server with this one `StatefulSet` answers to Helm's `lookup`.
fn answer(path: &str, set: &Value) -> Option<Value> {
    let one = format!("{SETS}/{}", set["metadata"]["name"].as_str().unwrap());
    let apps = json!({ "groupVersion": "apps/v1", "version": "v1" });
    let kind = json!({ "name": "statefulsets", "namespaced": true, "kind": "StatefulSet", "verbs": ["get", "list"] });
    match path {
        "/version" => Some(json!({ "major": "1", "minor": "31", "gitVersion": "v1.31.4" })),
        "/api" => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "/api/v1" => Some(json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [] })),
        "/apis" => Some(json!({ "kind": "APIGroupList", "groups": [{ "name": "apps", "versions": [apps], "preferredVersion": apps }] })),
        "/apis/apps/v1" => Some(json!({ "kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [kind] })),
        SETS => Some(json!({ "kind": "StatefulSetList", "apiVersion": "apps/v1", "metadata": {}, "items": [set] })),
        path if path == one => Some(set.clone()),
        _ => None,
    }
}

/// Answers the one request of a connection.
fn serve(mut connection: &TcpStream, set: &Value) {
    connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.find(String::is_empty);
    let path = request.split([' ', '?']).nth(1).unwrap_or_default();
    let (status, body) = match answer(path, set) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 })),
    };
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Helm may have gone away with what it knows.
    drop(connection.write_all(format!("{head}{body}").as_bytes()));
}

/// A cluster in which `shop` is installed with these values and then changed, as a file for `--kubeconfig`.
fn cluster(version: &str, values: &str, change: impl FnOnce(&mut Value)) -> String {
    let documents = with_values(version, "installed", values);
    let mut set = serde_json::to_value(of_kind(&documents, "StatefulSet").unwrap()).unwrap();
    set["metadata"]["annotations"] = json!({ "meta.helm.sh/release-name": "shop" });
    change(&mut set);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let set = set.clone();
            std::thread::spawn(move || serve(&connection, &set));
        }
    });
    let path = scratch("cluster").join(format!("{version}-{}", server.rsplit(':').next().unwrap()));
    let configuration = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{ "name": "a", "cluster": { "server": server } }],
        "users": [{ "name": "a", "user": {} }],
        "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a" } }],
    });
    std::fs::write(&path, configuration.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What Helm says of this change of the values.
fn said(version: &str, cluster: &str, values: &str) -> String {
    let arguments =
        ["template", "shop", "helm/feedline", "--namespace", "data", "--dry-run=server", "--kubeconfig", cluster, "--set", values];
    String::from_utf8_lossy(&helm(version, &arguments).stderr).into_owned()
}

#[test]
fn a_change_that_would_fail_half_way_or_leave_the_checkpoint_is_refused_with_the_way() {
    let orphan = "delete statefulset shop-feedline --cascade=orphan";
    let moved = "delete statefulset shop-feedline --cascade=foreground`, then the upgrade again with persistence.existingClaim=checkpoint-shop-feedline-0";
    for version in HELMS {
        let plain = cluster(version, "config: a", |_| ());
        for (values, expected) in [
            ("config=b,persistence.size=1Gi", orphan),
            ("config=b,persistence.storageClass=fast", orphan),
            ("config=b,persistence.accessModes[0]=ReadWriteOnce", orphan),
            ("config=b,persistence.existingClaim=other", orphan),
            ("config=checkpoint.kind='kafka',persistence.enabled=false", orphan),
            ("config=b,fullnameOverride=other", moved),
            ("config=b,nameOverride=other", moved),
            ("config=b,nameOverride=other,fullnameOverride=shop-feedline", "delete statefulset shop-feedline --cascade=foreground"),
        ] {
            let said = said(version, &plain, values);
            assert!(said.contains(expected), "helm {version} {values}: {said}");
        }
        // An API server writes a size in its own way.
        let sized = cluster(version, "config: a\npersistence: { size: 1024Mi }", |set| {
            set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = json!("1Gi");
        });
        let another = cluster(version, "config: a", |set| set["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!("another"));
        assert!(said(version, &another, "config=b").contains("of the release another"), "helm {version}");
        for (cluster, values) in
            [(&plain, "config=b"), (&sized, "config=b,persistence.size=1024Mi"), (&another, "config=b,fullnameOverride=other")]
        {
            let said = said(version, cluster, values);
            assert!(!said.contains("validations.yaml"), "helm {version} {values}: {said}");
        }
        // A pod that runs without a claim is never given one.
        let foreign = cluster(version, "config: a\npersistence: { existingClaim: other }", |_| ());
        let without = cluster(version, "config: checkpoint.kind = 'kafka'\npersistence: { enabled: false }", |_| ());
        for cluster in [&foreign, &without] {
            assert!(said(version, cluster, "config=b").contains("--cascade=foreground"), "helm {version}");
        }
        let ordered = cluster(version, "config: a", |set| set["spec"]["podManagementPolicy"] = json!("OrderedReady"));
        assert!(said(version, &ordered, "config=a").contains(orphan), "helm {version}");
    }
}
