//! PostgreSQL servers with logical decoding, each with its own data directory.
//!
//! Roles: `postgres` is a superuser without a password. A role that was granted `scram` needs its password; one that was granted
//! `tls_only` needs TLS.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Pid;

use super::{
    account::{Account, run},
    certificates,
    client::{answer, unique},
    port::{self, wait_for},
    process::{Server, log},
};

/// PostgreSQL refuses root.
const ACCOUNT: Account = Account::named("postgres");
/// How long a server may take to answer, on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How a server differs from the shared one.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Settings of `postgresql.conf`, which override those of all test servers: `("max_wal_size", "64MB")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// A certificate for `localhost` and 127.0.0.1, signed by an authority made for this server.
    pub(crate) tls: bool,
    /// Another version than the one under test, as `tests/servers/postgres/fetch` names it.
    pub(crate) version: Option<&'static str>,
}

/// A running PostgreSQL server.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Option<Server>,
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    system_identifier: String,
}

impl Postgres {
    /// The server that the tests of this process share: databases, slots and roles in it have unique names.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&Options { tls: true, ..Options::default() }))
    }

    /// Starts a separate server.
    pub(crate) fn start(options: &Options) -> Self {
        let directory = ACCOUNT.run_directory("postgres");
        let data = directory.join("data");
        let made = run(ACCOUNT.command(&binary(options.version, "initdb")).arg("-D").arg(&data).args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]));
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let system_identifier = system_identifier(&data).expect("read what initdb wrote");
        if options.tls {
            certificates::make(&directory);
            for file in ["server.key", "server.crt"] {
                ACCOUNT.own(&directory.join(file));
            }
        }
        configure(&directory, options).expect("write the server's configuration");

        let mut postgres = Self { server: None, program: binary(options.version, "postgres"), directory, port: 0, system_identifier };
        postgres.launch(None);
        postgres.psql("postgres", "CREATE ROLE scram; CREATE ROLE tls_only");
        postgres
    }

    /// The loopback port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process id of its postmaster.
    pub(crate) fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// All its processes, the postmaster first.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let children = run(Command::new("ps").args(["-o", "pid=", "--ppid", &self.pid().to_string()]));
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        let all = std::iter::once(self.pid().to_string()).chain(children.split_whitespace().map(str::to_owned));
        all.map(|pid| pid.parse().ok().and_then(Pid::from_raw).expect("ps prints process ids")).collect()
    }

    /// The identifier that `initdb` gave this cluster.
    pub(crate) fn system_identifier(&self) -> &str {
        &self.system_identifier
    }

    /// The certificate of the authority that signed the server's; only with [`Options::tls`].
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The server's data directory, for tests that read its files.
    pub(crate) fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Everything that the server has logged.
    pub(crate) fn log(&self) -> String {
        log(&self.directory)
    }

    /// Makes an empty database and returns its name, which is unique in the server.
    pub(crate) fn create_database(&self, prefix: &str) -> String {
        let name = unique(prefix);
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Makes a login role that must give this password, and returns its unique name.
    pub(crate) fn create_user(&self, prefix: &str, password: &str, attributes: &str) -> String {
        let name = unique(prefix);
        let password = password.replace('\'', "''");
        self.psql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE scram {attributes}"));
        name
    }

    /// Runs statements, separated by semicolons, as superuser and returns what `psql -At` prints, trimmed:
    /// rows by line, columns by `|`. Panics where a statement fails.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> String {
        self.try_psql(database, statements).unwrap_or_else(|error| panic!("psql {statements}: {error}"))
    }

    /// As [`Self::psql`]. If a statement fails, it returns the server's message.
    pub(crate) fn try_psql(&self, database: &str, statements: &str) -> Result<String, String> {
        answer(self.psql_command(database).args(["-c", statements]))
    }

    /// `psql` as superuser, for statements that block or come through a pipe.
    pub(crate) fn psql_command(&self, database: &str) -> Command {
        // The one in the path is a script on Debian, which takes four times as long.
        let mut command = Command::new(distributed("psql"));
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-d", database])
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::null());
        command
    }

    /// SIGKILL of the postmaster: its sessions notice and end too.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("the server runs").kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the server still runs");
        self.launch(Some(self.port));
    }

    /// A standby of this server, made from a copy of its data while it is down. Slots are not copied, since no backup contains them.
    pub(crate) fn standby(&mut self) -> Self {
        self.follower(false)
    }

    /// The same with this server's slots.
    pub(crate) fn standby_with_slots(&mut self) -> Self {
        self.follower(true)
    }

    fn follower(&mut self, has_slots: bool) -> Self {
        let directory = ACCOUNT.run_directory("postgres");
        self.kill();
        let copied = run(Command::new("cp").arg("-a").arg(self.data_directory()).arg(&directory));
        assert!(copied.status.success(), "cp: {}", String::from_utf8_lossy(&copied.stderr));
        self.restart();
        let data = directory.join("data");
        if !has_slots {
            for slot in fs::read_dir(data.join("pg_replslot")).expect("a cluster has slots").flatten() {
                fs::remove_dir_all(slot.path()).expect("forget a slot");
            }
        }
        fs::remove_file(data.join("postmaster.pid")).expect("forget the killed postmaster");
        fs::write(data.join("standby.signal"), "").expect("make it a standby");
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        append(&data.join("postgresql.conf"), &primary).expect("name its primary");
        let (program, system_identifier) = (self.program.clone(), self.system_identifier.clone());
        let mut standby = Self { server: None, program, directory, port: 0, system_identifier };
        standby.launch(None);
        standby
    }

    /// Starts a standby again after [`Self::kill`], without its primary, and promotes it: it has its own timeline then.
    pub(crate) fn promote(&mut self) {
        append(&self.data_directory().join("postgresql.conf"), "primary_conninfo = ''\n").expect("forget its primary");
        self.restart();
        self.psql("postgres", "SELECT pg_promote()");
    }

    /// SIGSTOP of the postmaster: no new connection is served; sessions go on.
    pub(crate) fn pause(&self) {
        self.running().pause();
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    /// Starts the postmaster on this port, or on any.
    fn launch(&mut self, port: Option<u16>) {
        for _ in 0..20 {
            self.port = port.unwrap_or_else(port::free);
            let command = self.command();
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let server = Server::start(&self.directory, &command);
            let ready = wait_for("PostgreSQL answers", START_LIMIT, || {
                if !server.runs() {
                    // Another process has taken the port meanwhile, or sessions of a killed postmaster still run.
                    return Some(false);
                }
                let identifier = "SELECT system_identifier FROM pg_control_system()";
                (self.try_psql("postgres", identifier).ok()? == self.system_identifier).then_some(true)
            });
            if ready {
                self.server = Some(server);
                return;
            }
            server.kill();
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start: {}", self.log());
    }

    fn command(&self) -> Vec<String> {
        let mut command = ACCOUNT.words();
        command.push(self.program.display().to_string());
        command.extend(["-D".to_owned(), self.data_directory().display().to_string()]);
        command.extend(["-p".to_owned(), self.port.to_string()]);
        command
    }
}

/// The identifier that `initdb` made: the first number of the control file.
fn system_identifier(data: &Path) -> io::Result<String> {
    let control = fs::read(data.join("global/pg_control"))?;
    let number = control.first_chunk().copied().map(u64::from_ne_bytes);
    number.map(|number| number.to_string()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn configure(directory: &Path, options: &Options) -> io::Result<()> {
    let mut lines = String::from(
        "listen_addresses = '127.0.0.1'\n\
         unix_socket_directories = ''\n\
         wal_level = logical\n\
         max_wal_senders = 64\n\
         max_replication_slots = 64\n\
         max_connections = 200\n\
         wal_sender_timeout = 60s\n\
         # A killed process loses nothing without fsync, only a killed machine does.\n\
         fsync = off\n\
         full_page_writes = off\n",
    );
    if options.tls {
        lines.push_str("ssl = on\nssl_cert_file = '../server.crt'\nssl_key_file = '../server.key'\n");
    }
    for (name, value) in &options.settings {
        writeln!(lines, "{name} = '{value}'").expect("a String takes everything");
    }
    let data = directory.join("data");
    append(&data.join("postgresql.conf"), &lines)?;
    // The role of the documents' examples needs its password.
    fs::write(
        data.join("pg_hba.conf"),
        "hostnossl all,replication +tls_only 127.0.0.1/32 reject\n\
         host all,replication feedline,+scram 127.0.0.1/32 scram-sha-256\n\
         host all,replication all 127.0.0.1/32 trust\n",
    )
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(path)?, text.as_bytes())
}

/// A PgBouncer in front of this server with these additional settings, and its port.
pub(crate) fn pooler(server: &Postgres, more: &str) -> (Server, u16) {
    let directory = ACCOUNT.run_directory("pgbouncer");
    let port = port::free();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n{more}\n",
        server.port()
    );
    fs::write(directory.join("pgbouncer.ini"), settings).expect("write its settings");
    ACCOUNT.own(&directory.join("pgbouncer.ini"));
    let file = directory.join("pgbouncer.ini").display().to_string();
    let program = if Path::new("/usr/sbin/pgbouncer").exists() { "/usr/sbin/pgbouncer" } else { "pgbouncer" };
    let as_user = ACCOUNT.words();
    let command: Vec<&str> = as_user.iter().map(String::as_str).chain([program, file.as_str()]).collect();
    let pooler = Server::start(&directory, &command);
    wait_for("PgBouncer listens", START_LIMIT, || port::answers(port).then_some(()));
    (pooler, port)
}

/// A program of this version. By default of the version under test: that of `FEEDLINE_POSTGRES`, or the distribution's newest.
fn binary(version: Option<&str>, name: &str) -> PathBuf {
    match version.map(str::to_owned).or_else(|| std::env::var("FEEDLINE_POSTGRES").ok()) {
        Some(version) => port::fetched("postgres", &version, &[&version]).join("bin").join(name),
        None => distributed(name),
    }
}

/// The folder of the server's programs on Debian. It is not in the path.
fn distributed(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path())
        .filter(|version| version.join("bin").join(name).exists())
        .max_by_key(|version| version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()))
        .map_or_else(|| PathBuf::from(name), |version| version.join("bin").join(name))
}
