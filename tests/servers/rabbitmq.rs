//! RabbitMQ: one node with its own port mapper, so that several can run at once.
//!
//! The version is the distribution's, or that of `FEEDLINE_RABBITMQ`, with its Erlang.

use super::{
    account::Account,
    certificates,
    port::{self, wait_for},
    process::{Server, log},
};
use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

#[path = "rabbitmq/commands.rs"]
mod commands;

const ACCOUNT: Account = Account::named("rabbitmq");
const START_LIMIT: Duration = Duration::from_mins(5);
/// The folder of its programs on Debian. It is not in the path.
const DISTRIBUTED: &str = "/usr/lib/rabbitmq/bin";

/// A running broker. User and password are `guest`.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    server: Option<Server>,
    /// Erlang's port mapper, which would outlive the broker that starts it.
    _mapper: Server,
    directory: PathBuf,
    node: String,
    mapper_port: u16,
    port: u16,
}

impl RabbitMq {
    /// The broker that the tests of this process share: names in it are unique.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// The broker with a management API that the tests of this process share, and the API's port: names in it are unique.
    pub(crate) fn shared_managed() -> (&'static Self, u16) {
        static SHARED: OnceLock<(RabbitMq, u16)> = OnceLock::new();
        let (broker, port) = SHARED.get_or_init(Self::start_managed);
        (broker, *port)
    }

    /// Starts a separate broker with these lines of `rabbitmq.conf`.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(settings, &[], None)
    }

    /// Starts a broker with its own certificates that also accepts TLS and client certificates. Returns it and its TLS port.
    pub(crate) fn start_tls() -> (Self, u16) {
        let port = port::free();
        let broker = Self::start_with(
            &[
                ("ssl_options.verify", "verify_peer"),
                ("ssl_options.fail_if_no_peer_cert", "false"),
                ("auth_mechanisms.1", "PLAIN"),
                ("auth_mechanisms.2", "EXTERNAL"),
                ("ssl_cert_login_from", "common_name"),
            ],
            &["rabbitmq_auth_mechanism_ssl"],
            Some(port),
        );
        wait_for("RabbitMQ listens for TLS", START_LIMIT, || port::answers(port).then_some(()));
        (broker, port)
    }

    /// Starts a broker with the management API. Returns it and the API's port.
    pub(crate) fn start_managed() -> (Self, u16) {
        let port = port::free();
        let text = port.to_string();
        let settings = [("management.tcp.port", text.as_str()), ("management.tcp.ip", "127.0.0.1")];
        let broker = Self::start_with(&settings, &["rabbitmq_management"], None);
        wait_for("the management API answers", START_LIMIT, || port::answers(port).then_some(()));
        (broker, port)
    }

    /// Starts a broker that authenticates and authorizes users by an HTTP service on this port.
    pub(crate) fn start_authorised_by(service: u16) -> Self {
        let path = |what: &str| format!("http://127.0.0.1:{service}/{what}");
        let (user, vhost, resource, topic) = (path("user"), path("vhost"), path("resource"), path("topic"));
        let settings = [
            ("auth_backends.1", "http"),
            ("auth_http.user_path", user.as_str()),
            ("auth_http.vhost_path", vhost.as_str()),
            ("auth_http.resource_path", resource.as_str()),
            ("auth_http.topic_path", topic.as_str()),
        ];
        Self::start_with(&settings, &["rabbitmq_auth_backend_http"], None)
    }

    /// A file in its directory: its certificates, see [`certificates::make`].
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn start_with(settings: &[(&str, &str)], plugins: &[&str], tls_port: Option<u16>) -> Self {
        let directory = ACCOUNT.run_directory("rabbitmq");
        let mut lines = String::from("loopback_users = none\nlog.file = false\nlog.console = true\n");
        for (name, value) in settings {
            writeln!(lines, "{name} = {value}").expect("a String takes everything");
        }
        if let Some(port) = tls_port {
            certificates::make(&directory);
            writeln!(lines, "listeners.ssl.1 = 127.0.0.1:{port}").expect("a String takes everything");
            for (setting, file) in [("cacertfile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key")] {
                ACCOUNT.own(&directory.join(file));
                writeln!(lines, "ssl_options.{setting} = {}", directory.join(file).display()).expect("a String takes everything");
            }
        }
        fs::write(directory.join("rabbitmq.conf"), lines).expect("write its settings");
        fs::write(directory.join("enabled_plugins"), format!("[{}].", plugins.join(","))).expect("write its plugins");
        for file in ["rabbitmq.conf", "enabled_plugins"] {
            ACCOUNT.own(&directory.join(file));
        }
        let (mapper_port, mapper) = mapper();
        let node = format!("feedline{}x{mapper_port}@localhost", std::process::id());
        let mut broker = Self { server: None, _mapper: mapper, directory, node, mapper_port, port: 0 };
        broker.launch(None);
        broker
    }

    /// The loopback port of AMQP.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Does what `rabbitmqctl` does with these arguments, and returns what it prints. Panics with its message if it fails.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        wait_for("RabbitMQ takes commands", START_LIMIT, || match commands::expression(arguments) {
            Some(expression) => self.evaluate(&expression).then(String::new),
            None => self.run_ctl(arguments),
        })
    }

    /// Runs `rabbitmqctl`. Returns `None` while the broker is starting: clients can connect slightly earlier.
    fn run_ctl(&self, arguments: &[&str]) -> Option<String> {
        let mut command = self.command("rabbitmqctl", &["-q"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("run rabbitmqctl: run tests/setup");
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("requires the 'rabbit' app to be running") {
            return None;
        }
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {error}");
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Evaluates an expression in the broker, which must return `ok`. Returns whether the broker was ready for it.
    fn evaluate(&self, expression: &str) -> bool {
        let cookie = fs::read_to_string(self.directory.join(".erlang.cookie")).unwrap_or_default();
        let mut command = Command::new("erl_call");
        command
            .args(["-sname", &self.node, "-c", cookie.trim(), "-e"])
            .env("PATH", path())
            .env("ERL_EPMD_PORT", self.mapper_port.to_string());
        let mut caller =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run erl_call: run tests/setup");
        let asked = format!("case rabbit:is_running() of true -> {expression}; false -> starting end.\n");
        // It reads nothing where the broker does not answer.
        let _read = caller.stdin.take().expect("it is piped").write_all(asked.as_bytes());
        let output = caller.wait_with_output().expect("wait for erl_call");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(matches!(&*answer, "" | "{ok, ok}" | "{ok, starting}"), "{expression}: {answer}");
        answer == "{ok, ok}"
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("the broker runs").kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.launch(Some(self.port));
    }

    fn launch(&mut self, port: Option<u16>) {
        for _ in 0..5 {
            self.port = port.unwrap_or_else(port::free);
            let command = self.arguments("rabbitmq-server", &[]);
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let server = Server::start(&self.directory, &command);
            let ready = wait_for("RabbitMQ answers", START_LIMIT, || {
                if !server.runs() {
                    return Some(false);
                }
                // This node answers there: it would not run without the port.
                port::answers(self.port).then_some(true)
            });
            if ready {
                self.server = Some(server);
                return;
            }
            server.kill();
        }
        panic!("RabbitMQ does not start: {}", self.log());
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        log(&self.directory)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let words = self.arguments(program, arguments);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The command line of one of its programs, with this node's paths and ports.
    fn arguments(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = ACCOUNT.words();
        words.push("env".to_owned());
        let place = |name: &str| self.directory.join(name).display().to_string();
        words.extend([
            format!("HOME={}", self.directory.display()),
            format!("RABBITMQ_NODENAME={}", self.node),
            "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1".to_owned(),
            format!("RABBITMQ_NODE_PORT={}", self.port),
            format!("RABBITMQ_DIST_PORT={}", port::free()),
            format!("RABBITMQ_MNESIA_BASE={}", place("data")),
            format!("RABBITMQ_LOG_BASE={}", place("logs")),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={}", place("enabled_plugins")),
            format!("RABBITMQ_CONFIG_FILE={}", place("rabbitmq.conf")),
            format!("PATH={}", path()),
            format!("ERL_EPMD_PORT={}", self.mapper_port),
            "ERL_EPMD_ADDRESS=127.0.0.1".to_owned(),
            // The script then becomes the broker, instead of waiting for it: a signal reaches the broker.
            "RUNNING_UNDER_SYSTEMD=true".to_owned(),
            "ERL_AFLAGS=+S 1".to_owned(),
        ]);
        let programs = fetched().map_or_else(|| PathBuf::from(DISTRIBUTED), |fetched| fetched.join("rabbitmq/bin"));
        words.push(programs.join(program).display().to_string());
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        words
    }
}

/// Erlang's port mapper on a port of its own.
fn mapper() -> (u16, Server) {
    for _ in 0..5 {
        let port = port::free();
        let directory = port::run_directory("epmd", None).expect("make a run directory");
        let path = format!("PATH={}", path());
        let server = Server::start(&directory, &["env", &path, "epmd", "-port", &port.to_string(), "-address", "127.0.0.1"]);
        let ready = wait_for("Erlang's port mapper answers", START_LIMIT, || {
            if server.runs() { port::answers(port).then_some(true) } else { Some(false) }
        });
        if ready {
            return (port, server);
        }
    }
    panic!("Erlang's port mapper does not start: run tests/setup");
}

/// The search path, which begins with the Erlang of the broker under test.
fn path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    fetched().map_or_else(|| path.clone(), |fetched| format!("{}:{path}", fetched.join("erlang/bin").display()))
}

/// The folder of the version under test, if it is not the distribution's.
fn fetched() -> Option<&'static Path> {
    static FETCHED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let fetch = |version: String| port::fetched("rabbitmq", &version, &[&version]);
    FETCHED.get_or_init(|| env::var("FEEDLINE_RABBITMQ").ok().map(fetch)).as_deref()
}
