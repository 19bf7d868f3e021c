//! An authority for one server, and certificates that it signed.

use std::path::Path;
use std::process::Command;

/// Makes in `directory` an authority (`ca.crt`), a server's certificate for `localhost` and 127.0.0.1 (`server.crt`,
/// `server.key`), and the certificate of a client named `feedline` (`client.crt`, `client.key`).
pub(crate) fn make(directory: &Path) {
    let script = "
        of() {
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj \"/CN=$2\" -keyout \"$1.key\" -out \"$1.csr\"
            openssl x509 -req -in \"$1.csr\" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out \"$1.crt\" -extfile <(echo \"$3\")
            chmod 600 \"$1.key\"
        }
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests \
            -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt
        of server localhost subjectAltName=DNS:localhost,IP:127.0.0.1
        of client feedline extendedKeyUsage=clientAuth";
    let made = Command::new("bash").current_dir(directory).args(["-euc", script]).output().expect("run bash");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
