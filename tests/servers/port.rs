//! Ports and run directories for servers that the tests start.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The range from which the system takes local ports of outgoing connections. A server's port must be outside it: while the server is down,
/// a client that tries to connect may get that port as its local one, and connect to itself.
const EPHEMERAL_FROM: u16 = 32_768;

/// A free TCP port of the loopback. Another process may take it before the server does: a server that fails to bind is started again on
/// another one, and each server is identified before it is used.
pub(crate) fn free() -> u16 {
    for _ in 0..1_000 {
        let port = fastrand::u16(15_000..EPHEMERAL_FROM);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port of the loopback in 1,000 attempts")
}

/// Whether something accepts connections there.
pub(crate) fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Calls `ask` every 20 ms until it returns a value. Panics after `limit`, and names what was waited for.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Cargo's target directory of this build.
pub(crate) fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo makes its temporary directory inside the target directory")
}

/// The folder with the programs of a version of a server. The script `tests/servers/SERVER/fetch` downloads them if they are missing;
/// `arguments` are its arguments before the folder.
pub(crate) fn fetched(server: &str, version: &str, arguments: &[&str]) -> PathBuf {
    let programs = target().join(format!("servers/{server}-{version}"));
    let script = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/{}/fetch"), server);
    let fetched = Command::new(&script).args(arguments).arg(&programs).stdin(Stdio::null()).status();
    let fetched = fetched.unwrap_or_else(|error| panic!("run {script}, which needs bash: {error}"));
    assert!(fetched.success(), "fetch {server} {version}: {fetched}");
    programs
}

/// The beginning of a command line that runs a program as this user.
///
/// A checkout may be in a folder that only its owner may enter, such as a home with mode 0700: then the user may pass all folders.
pub(crate) fn as_user(user: Option<&str>) -> Vec<String> {
    // It is the same for all users but the owner.
    static ENTERED: OnceLock<bool> = OnceLock::new();
    let Some(user) = user else { return Vec::new() };
    let mut words = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"].map(str::to_owned).to_vec();
    if !ENTERED.get_or_init(|| enters(&words, target())) {
        words.extend(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"].map(str::to_owned));
        // Programs call access() to find out whether they may run others. Without this it would ignore capabilities.
        words.extend(["--securebits", "+no_setuid_fixup"].map(str::to_owned));
    }
    words
}

/// Makes a directory for one server.
///
/// It is under the target directory if `user` can reach that, else under the system's temporary directory.
pub(crate) fn run_directory(server: &str, user: Option<&str>) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{server}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));

    let under_target = target().join("servers/run");
    fs::create_dir_all(&under_target)?;
    let mut directory = under_target.join(&unique);
    if user.is_some() && !enters(&as_user(user), &under_target) {
        directory = std::env::temp_dir().join(format!("feedline-{unique}"));
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    Ok(directory)
}

/// Whether a program that is run with this command line may list a folder.
fn enters(as_user: &[String], directory: &Path) -> bool {
    let listed = Command::new(&as_user[0]).args(&as_user[1..]).arg("ls").arg(directory).stdin(Stdio::null()).output();
    listed.is_ok_and(|listed| listed.status.success())
}
