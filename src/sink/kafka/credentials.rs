//! Detects renewed certificates, keys and passwords in their files. librdkafka reads these files only when a client is created.

use super::options::Options;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Properties that name such files.
const FILES: [&str; 5] = ["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location"];
/// How often the files are read, while the connection is in trouble.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Compares the files of a client with what they held when it was created.
pub(super) struct CredentialWatch {
    options: Options,
    used_hash: u64,
    /// The hash at the last check. Files are written one after the other: they count as complete when two checks see the same.
    last_hash: u64,
    next_check: Instant,
}

impl CredentialWatch {
    /// Reads the files. Called just before the client is created.
    pub(super) fn new(options: &Options) -> Self {
        let used_hash = hash(options);
        Self { options: options.clone(), used_hash, last_hash: used_hash, next_check: Instant::now() + CHECK_INTERVAL }
    }

    /// The options that the client was created with.
    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Returns whether a client created now would use other certificates or secrets. Reads the files at most every two seconds.
    pub(super) fn is_renewed(&mut self) -> bool {
        if Instant::now() < self.next_check {
            return false;
        }
        self.next_check = Instant::now() + CHECK_INTERVAL;
        let now = hash(&self.options);
        std::mem::replace(&mut self.last_hash, now) == now && now != self.used_hash
    }
}

/// A hash over all files and secrets.
fn hash(options: &Options) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in FILES.iter().filter_map(|name| options.properties.get(*name)).map(PathBuf::from) {
        // A directory of authorities, and a file that cannot be read, count as unchanged.
        hasher.write(&std::fs::read(path).unwrap_or_default());
        hasher.write_u8(0);
    }
    for secret in [&options.sasl_password, &options.ssl_key_password].into_iter().flatten() {
        hasher.write(secret.reveal().as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{CredentialWatch, Options, hash};
    use crate::net::secret::Secret;
    use std::time::Instant;

    #[test]
    fn a_renewed_certificate_is_seen_when_it_is_complete() {
        let directory = std::env::temp_dir().join(format!("feedline-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [certificate, password] = ["client.crt", "password"].map(|name| directory.join(name));
        std::fs::write(&certificate, "old").unwrap();
        std::fs::write(&password, "old\n").unwrap();
        let mut options = Options::plain("broker:9092", "shop");
        options.properties.insert("ssl.certificate.location".to_owned(), certificate.display().to_string());
        options.sasl_password = Secret::of_file(&password).unwrap();
        let mut watch = CredentialWatch::new(&options);
        let mut check = || {
            watch.next_check = Instant::now();
            watch.is_renewed()
        };
        assert!(!check(), "nothing has changed");
        std::fs::write(&certificate, "half").unwrap();
        assert!(!check(), "the file may still be incomplete");
        std::fs::write(&certificate, "new").unwrap();
        assert!(!check() && check());
        let before = hash(&options);
        std::fs::write(&password, "new\n").unwrap();
        assert_ne!(hash(&options), before);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
