//! MariaDB and MySQL servers with a binary log of rows, each with a data directory of its own.
//!
//! Users: `root` (all privileges, no password, from 127.0.0.1).

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    account::{Account, run},
    certificates,
    client::{answer, unique},
    port::{self, wait_for},
    process::{Server, log},
};

/// The server refuses root.
const ACCOUNT: Account = Account::named("mysql");
/// How long a server may take to answer, on a machine that has much else to do.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How often a start is tried.
const ATTEMPTS: usize = 20;

/// What a test wants different from the rest.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Settings that win over the harness' own: `("binlog_format", "MIXED")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Another product and version than the one under test: see [`Programs::find`].
    pub(crate) version: Option<&'static str>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct MySql {
    /// `None` while it is killed.
    server: Mutex<Option<Server>>,
    programs: Programs,
    directory: PathBuf,
    port: u16,
}

/// The programs of one product and version.
#[derive(Clone, Debug)]
enum Programs {
    /// MariaDB, as the distribution installs it.
    Distributed,
    /// MariaDB, unpacked into this folder.
    MariaDb(PathBuf),
    /// MySQL, unpacked into this folder.
    MySql(PathBuf),
}

impl MySql {
    /// The server that the tests of this process share: databases and users in it have unique names.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<MySql> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&Options::default()))
    }

    /// Starts a server of one's own.
    pub(crate) fn start(options: &Options) -> Self {
        let directory = ACCOUNT.run_directory("mysql");
        let programs = Programs::find(options.version);
        certificates::make(&directory);
        fs::create_dir_all(directory.join("tmp")).expect("make the server's folder for temporary files");
        ACCOUNT.own(&directory.join("tmp"));
        for file in ["server.key", "server.crt"] {
            ACCOUNT.own(&directory.join(file));
        }
        configure(&directory, &programs, options);
        let made = run(&mut programs.install(&directory.join("my.cnf")));
        let said = [made.stdout, made.stderr].concat();
        assert!(made.status.success(), "make the server's data: {}", String::from_utf8_lossy(&said));
        let mut mysql = Self { server: Mutex::new(None), programs, directory, port: 0 };
        mysql.launch();
        mysql
    }

    /// Whether it is MariaDB and not MySQL.
    pub(crate) fn is_mariadb(&self) -> bool {
        !matches!(self.programs, Programs::MySql(_))
    }

    /// Whether it is the distribution's, with all its plugins.
    pub(crate) fn is_distributed(&self) -> bool {
        matches!(self.programs, Programs::Distributed)
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
        log(&self.directory)
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
        answer(self.client(database).args(["-e", statements]))
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
    pub(crate) fn kill(&self) {
        self.running(Option::take).kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&self) {
        assert!(self.server.lock().unwrap_or_else(PoisonError::into_inner).is_none(), "the server still runs");
        let started = (0..ATTEMPTS).any(|_| self.attempt());
        assert!(started, "the server does not start: {}", self.log());
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.running(|server| server.as_ref().map(Server::pause));
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.running(|server| server.as_ref().map(Server::resume));
    }

    fn running<T>(&self, act: impl FnOnce(&mut Option<Server>) -> Option<T>) -> T {
        act(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner)).expect("the server runs")
    }

    /// Starts the server on any port.
    fn launch(&mut self) {
        for _ in 0..ATTEMPTS {
            self.port = port::free();
            if self.attempt() {
                return;
            }
        }
        panic!("the server does not start: {}", self.log());
    }

    /// Starts the server on its port; false where another program has it.
    fn attempt(&self) -> bool {
        let command = self.command();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let server = Server::start(&self.directory, &command);
        let own_data = format!("{}/", self.data_directory().display());
        let ready = wait_for("the server answers", START_LIMIT, || {
            if !server.runs() {
                // The port was taken meanwhile.
                return Some(false);
            }
            // Another server may have taken the port: it has other data.
            (self.try_sql("", "SELECT @@datadir").ok()? == own_data).then_some(true)
        });
        if ready {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        } else {
            server.kill();
        }
        ready
    }

    fn command(&self) -> Vec<String> {
        let mut words = ACCOUNT.words();
        words.extend(self.programs.server());
        words.push(format!("--defaults-file={}", self.directory.join("my.cnf").display()));
        words.push(format!("--port={}", self.port));
        words
    }
}

impl Programs {
    /// The programs of this product and version, else of the one under test: what `FEEDLINE_MYSQL` asks for, or the distribution's MariaDB.
    /// Others are named `mariadb-11.4` and `mysql-9`.
    fn find(version: Option<&str>) -> Self {
        let Some(name) = version.map(str::to_owned).or_else(|| std::env::var("FEEDLINE_MYSQL").ok()) else { return Self::Distributed };
        match name.split_once('-') {
            Some(("mariadb", version)) => Self::MariaDb(port::fetched("mariadb", version, &[version])),
            Some(("mysql", version)) => Self::MySql(port::fetched("mysql", version, &[version])),
            _ => panic!("{name} is neither mariadb-VERSION nor mysql-VERSION"),
        }
    }

    /// The command line of the server.
    fn server(&self) -> Vec<String> {
        match self {
            Self::Distributed => vec!["/usr/sbin/mariadbd".to_owned()],
            Self::MariaDb(base) => {
                let libraries = format!("LD_LIBRARY_PATH={}", base.join("libs").display());
                vec!["env".to_owned(), libraries, base.join("bin/mariadbd").display().to_string()]
            }
            Self::MySql(base) => vec![base.join("bin/mysqld").display().to_string()],
        }
    }

    /// What makes a data directory.
    fn install(&self, configuration: &Path) -> Command {
        let defaults = format!("--defaults-file={}", configuration.display());
        let (program, arguments): (PathBuf, &[&str]) = match self {
            Self::Distributed => ("/usr/bin/mariadb-install-db".into(), &["--auth-root-authentication-method=normal", "--skip-test-db"]),
            Self::MariaDb(base) => {
                (base.join("scripts/mariadb-install-db"), &["--auth-root-authentication-method=normal", "--skip-test-db"])
            }
            Self::MySql(base) => (base.join("bin/mysqld"), &["--initialize-insecure"]),
        };
        let mut command = ACCOUNT.command(&program);
        command.arg(defaults).args(arguments);
        if let Self::MariaDb(base) = self {
            command.env("LD_LIBRARY_PATH", base.join("libs"));
        }
        command
    }

    /// Settings of this product, and where an unpacked version has its files.
    fn settings(&self) -> String {
        match self {
            Self::Distributed => String::new(),
            Self::MariaDb(base) => format!("basedir = {}\nlc_messages_dir = {}\n", base.display(), base.join("share").display()),
            Self::MySql(base) => format!(
                "lc_messages_dir = {share}\ncharacter-sets-dir = {share}/charsets\nplugin-dir = {}\nsecure-file-priv =\nmysqlx = OFF\n\
                 gtid_mode = ON\nenforce_gtid_consistency = ON\n",
                base.join("lib/plugin").display(),
                share = base.join("share").display(),
            ),
        }
    }

    /// What each start runs: `root` may come from 127.0.0.1. On MariaDB the anonymous user would shadow users from any host.
    const fn users(&self) -> &'static str {
        match self {
            Self::Distributed | Self::MariaDb(_) => {
                "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n\
                 GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n\
                 DELETE FROM mysql.global_priv WHERE user = '';\n\
                 FLUSH PRIVILEGES;\n"
            }
            Self::MySql(_) => {
                "SET sql_log_bin = 0;\n\
                 CREATE USER IF NOT EXISTS root@'127.0.0.1';\n\
                 GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            }
        }
    }
}

/// Writes the server's configuration, and what it runs at each start.
fn configure(directory: &Path, programs: &Programs, options: &Options) {
    let place = |name: &str| directory.join(name).display().to_string();
    let mut lines = format!(
        "[server]\n\
         datadir = {}\n\
         # At its start a server deletes the temporary files of all that share the folder.\n\
         tmpdir = {}\n\
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
         # The system has room for the requests of some servers only (fs.aio-max-nr), and tests start many.\n\
         innodb_use_native_aio = OFF\n\
         # A killed process loses nothing without it, only a killed machine does.\n\
         innodb_flush_log_at_trx_commit = 2\n",
        place("data"),
        place("tmp"),
        // The path of a socket has at most 107 bytes.
        std::env::temp_dir().join(format!("feedline-{}", directory.file_name().unwrap_or_default().display())).display(),
        place("pid"),
        place("init.sql"),
        place("server.crt"),
        place("server.key"),
    );
    lines.push_str(&programs.settings());
    for (name, value) in &options.settings {
        writeln!(lines, "{name} = {value}").expect("a String takes everything");
    }
    fs::write(directory.join("my.cnf"), lines).expect("write the server's configuration");
    fs::write(directory.join("init.sql"), programs.users()).expect("write what the server runs at its start");
    for file in ["my.cnf", "init.sql"] {
        ACCOUNT.own(&directory.join(file));
    }
}
