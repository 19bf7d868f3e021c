//! Certificates, keys and passwords that are renewed in their files: librdkafka reads them when a client is made, and never again.

use super::Options;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Properties that name such files.
const FILES: [&str; 5] = ["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location"];
/// How often they are looked at, while there is a reason to.
const LOOK: Duration = Duration::from_secs(2);

/// What a client was made of.
pub(super) struct Renewal {
    options: Options,
    made_of: u64,
    /// What the last look saw: files are written one after the other, and are whole when two looks see the same.
    seen: u64,
    next: Instant,
}

impl Renewal {
    /// As it is now, just before a client is made.
    pub(super) fn of(options: &Options) -> Self {
        let made_of = content(options);
        Self { options: options.clone(), made_of, seen: made_of, next: Instant::now() + LOOK }
    }

    /// With which options the client was made.
    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Whether a client that is made now would know other certificates or secrets; looks at most each two seconds.
    pub(super) fn is_due(&mut self) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + LOOK;
        let now = content(&self.options);
        std::mem::replace(&mut self.seen, now) == now && now != self.made_of
    }
}

/// Tells contents apart; nothing of them is kept.
fn content(options: &Options) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in FILES.iter().filter_map(|name| options.properties.get(*name)).map(PathBuf::from) {
        // A directory of authorities, and what cannot be read, is as it was.
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
    use super::{Options, Renewal, content};
    use crate::net::secret::Secret;
    use std::time::Instant;

    #[test]
    fn what_is_renewed_is_seen_once_it_is_whole() {
        let directory = std::env::temp_dir().join(format!("feedline-renewal-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [certificate, password] = ["client.crt", "password"].map(|name| directory.join(name));
        std::fs::write(&certificate, "old").unwrap();
        std::fs::write(&password, "old\n").unwrap();
        let mut options = Options::plain("broker:9092", "shop");
        options.properties.insert("ssl.certificate.location".to_owned(), certificate.display().to_string());
        options.sasl_password = Secret::of_file(&password).unwrap();
        let mut renewal = Renewal::of(&options);
        let mut look = || {
            renewal.next = Instant::now();
            renewal.is_due()
        };
        assert!(!look(), "all is as it was");
        std::fs::write(&certificate, "half").unwrap();
        assert!(!look(), "it may be written to still");
        std::fs::write(&certificate, "new").unwrap();
        assert!(!look() && look());
        let before = content(&options);
        std::fs::write(&password, "new\n").unwrap();
        assert_ne!(content(&options), before);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
