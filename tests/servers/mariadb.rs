//! MariaDB servers with a binary log of rows, each with a data directory of its own.
//!
//! Users: `root` (all privileges, no password, from 127.0.0.1).

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    account::{Account, run},
    certificates,
    port::{self, wait_for},
    process::Server,
};

/// MariaDB refuses root.
const ACCOUNT: Account = Account::named("mysql");
/// How long a server may take to answer, on a machine that has much else to do.
const START_LIMIT: Duration = Duration::from_mins(3);

/// What a test wants different from the rest.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Settings that win over the harness' own: `("binlog_format", "MIXED")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Another version than the one under test, as `tests/servers/mariadb/fetch` names it.
    pub(crate) version: Option<&'static str>,
}

/// A running MariaDB server.
#[derive(Debug)]
pub(crate) struct MariaDb {
    server: Option<Server>,
    programs: Programs,
    directory: PathBuf,
    port: u16,
}

/// The programs of one version.
#[derive(Clone, Debug)]
struct Programs {
    server: PathBuf,
    install: PathBuf,
    /// Where an unpacked version has its libraries, messages and scripts; `None` for the distribution's.
    base: Option<PathBuf>,
}

impl MariaDb {
    /// The server that the tests of this process share: databases and users in it have unique names.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&Options::default()))
    }

    /// Starts a server of one's own.
    pub(crate) fn start(options: &Options) -> Self {
        let directory = ACCOUNT.run_directory("mariadb");
        let programs = Programs::find(options.version);
        certificates::make(&directory);
        for file in ["server.key", "server.crt"] {
            ACCOUNT.own(&directory.join(file));
        }
        configure(&directory, &programs, options);
        let made = run(programs
            .command(&programs.install)
            .arg(format!("--defaults-file={}", directory.join("my.cnf").display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"]));
        assert!(
            made.status.success(),
            "mariadb-install-db: {}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        let mut mariadb = Self { server: None, programs, directory, port: 0 };
        mariadb.launch(None);
        mariadb
    }

    /// The loopback port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that signed the server's.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Where the server keeps its data: for tests that look at its files.
    pub(crate) fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Everything that the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Makes an empty database and returns its name, which is unique in the server.
    pub(crate) fn create_database(&self, prefix: &str) -> String {
        let name = unique(prefix);
        self.sql("", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        name
    }

    /// Makes a user that must give this password, with these global privileges, and returns its unique name.
    pub(crate) fn create_user(&self, prefix: &str, password: &str, privileges: &str) -> String {
        let name = unique(prefix);
        let password = password.replace('\'', "''");
        self.sql("", &format!("CREATE USER {name}@'%' IDENTIFIED BY '{password}'; GRANT {privileges} ON *.* TO {name}@'%'"));
        name
    }

    /// Runs statements, separated by semicolons, as root, and returns what they print, trimmed: rows by line, columns by tab. Panics
    /// where a statement fails.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        self.try_sql(database, statements).unwrap_or_else(|error| panic!("mariadb {statements}: {error}"))
    }

    /// As [`Self::sql`], returning the server's words where a statement fails.
    pub(crate) fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let output = run(self.client(database).args(["-e", statements]));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
        }
    }

    /// The distribution's client as root, for what a test does with it at its side: statements that block, or come through a pipe.
    pub(crate) fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--skip-ssl", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"])
            .args(["--host=127.0.0.1", "--user=root", &format!("--port={}", self.port), &format!("--database={database}")])
            .stdin(Stdio::null());
        command
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("the server runs").kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the server still runs");
        self.launch(Some(self.port));
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.server.as_ref().expect("the server runs").pause();
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.server.as_ref().expect("the server runs").resume();
    }

    /// Starts the server on this port, or on any.
    fn launch(&mut self, port: Option<u16>) {
        for _ in 0..20 {
            self.port = port.unwrap_or_else(port::free);
            let command = self.command();
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let server = Server::start(&self.directory, &command);
            let own_data = format!("{}/", self.data_directory().display());
            let ready = wait_for("MariaDB answers", START_LIMIT, || {
                if !server.runs() {
                    // The port was taken meanwhile.
                    return Some(false);
                }
                // Another server may have taken the port: it has other data.
                (self.try_sql("", "SELECT @@datadir").ok()? == own_data).then_some(true)
            });
            if ready {
                self.server = Some(server);
                return;
            }
            server.kill();
        }
        panic!("MariaDB does not start: {}", self.log());
    }

    fn command(&self) -> Vec<String> {
        let mut words = ACCOUNT.words();
        words.extend(self.programs.environment());
        words.push(self.programs.server.display().to_string());
        words.push(format!("--defaults-file={}", self.directory.join("my.cnf").display()));
        words.push(format!("--port={}", self.port));
        words
    }
}

impl Programs {
    /// The programs of this version, else of the one under test: what `FEEDLINE_MARIADB` asks for, or the distribution's.
    fn find(version: Option<&str>) -> Self {
        match version.map(str::to_owned).or_else(|| std::env::var("FEEDLINE_MARIADB").ok()) {
            Some(version) => {
                let base = port::fetched("mariadb", &version, &[&version]);
                let (server, install) = (base.join("bin/mariadbd"), base.join("scripts/mariadb-install-db"));
                Self { server, install, base: Some(base) }
            }
            None => Self { server: distributed("sbin/mariadbd"), install: distributed("bin/mariadb-install-db"), base: None },
        }
    }

    /// The beginning of a command line that gives an unpacked version its libraries.
    fn environment(&self) -> Vec<String> {
        let libraries = |base: &PathBuf| ["env".to_owned(), format!("LD_LIBRARY_PATH={}", base.join("libs").display())];
        self.base.as_ref().map(libraries).into_iter().flatten().collect()
    }

    fn command(&self, program: &Path) -> Command {
        let words: Vec<String> = ACCOUNT.words().into_iter().chain(self.environment()).collect();
        let Some((first, rest)) = words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

/// A name that no other test of this server has.
fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Debian keeps the server outside of most users' path.
fn distributed(name: &str) -> PathBuf {
    Path::new("/usr").join(name)
}

/// Writes the server's configuration, and what it runs at each start.
fn configure(directory: &Path, programs: &Programs, options: &Options) {
    let place = |name: &str| directory.join(name).display().to_string();
    let mut lines = format!(
        "[mariadbd]\n\
         datadir = {}\n\
         socket = {}\n\
         pid-file = {}\n\
         init-file = {}\n\
         bind-address = 127.0.0.1\n\
         skip-name-resolve\n\
         server-id = 1\n\
         log-bin = binlog\n\
         binlog_format = ROW\n\
         binlog_row_metadata = FULL\n\
         ssl-cert = {}\n\
         ssl-key = {}\n\
         max_allowed_packet = 256M\n\
         innodb_buffer_pool_size = 32M\n\
         # A killed process loses nothing without it, only a killed machine does.\n\
         innodb_flush_log_at_trx_commit = 2\n",
        place("data"),
        // The path of a socket has at most 107 bytes.
        std::env::temp_dir().join(format!("feedline-{}", directory.file_name().unwrap_or_default().display())).display(),
        place("pid"),
        place("init.sql"),
        place("server.crt"),
        place("server.key"),
    );
    if let Some(base) = &programs.base {
        writeln!(lines, "basedir = {}\nlc_messages_dir = {}", base.display(), base.join("share").display()).expect("a String takes everything");
    }
    for (name, value) in &options.settings {
        writeln!(lines, "{name} = {value}").expect("a String takes everything");
    }
    fs::write(directory.join("my.cnf"), lines).expect("write the server's configuration");
    // The anonymous user would shadow users from any host.
    let users = "CREATE USER IF NOT EXISTS root@'127.0.0.1'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n\
                 DELETE FROM mysql.global_priv WHERE user = ''; FLUSH PRIVILEGES;\n";
    fs::write(directory.join("init.sql"), users).expect("write what the server runs at its start");
    for file in ["my.cnf", "init.sql"] {
        ACCOUNT.own(&directory.join(file));
    }
}
