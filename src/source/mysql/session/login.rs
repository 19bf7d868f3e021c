//! Authenticates to the server.
//!
//! By no method does the server prove who it is; only its certificate does. Methods that answer a challenge do not show the password to a
//! server that is somebody else. Those that do are accepted only if the certificate is verified, or if the configuration allows them.

use super::greeting::{Greeting, text};
use crate::net::secret::Secret;
use crate::net::{RequireAuth, TlsMode};
use crate::source::mysql::error::Error;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::ed25519;
use crate::source::mysql::wire::{Wire, put_bytes, put_text};
use openssl::encrypt::Encrypter;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use openssl::sha::{Sha256, sha1, sha256};

/// A login in progress.
pub(super) struct Login<'o> {
    options: &'o Options,
    method: Method,
    challenge: Vec<u8>,
    password: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// `mysql_native_password`.
    Native,
    /// `caching_sha2_password`.
    Sha2,
    /// `client_ed25519`, of MariaDB.
    Ed25519,
    /// `mysql_clear_password`, and PAM on MariaDB.
    Clear,
}

impl Method {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "mysql_native_password" => Self::Native,
            "caching_sha2_password" => Self::Sha2,
            "client_ed25519" => Self::Ed25519,
            "mysql_clear_password" => Self::Clear,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::Sha2 => "caching_sha2_password",
            Self::Ed25519 => "client_ed25519",
            Self::Clear => "mysql_clear_password",
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another packet of the server.
    Packet,
    /// Nothing: the login is complete.
    Done,
}

impl<'o> Login<'o> {
    /// Queues the client's login, by the method that the server proposes; by the oldest if it proposes one that is not known.
    pub(super) fn begin(options: &'o Options, greeting: &Greeting, wire: &mut Wire) -> Result<Self, Error> {
        let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default().into_bytes();
        let method = Method::of(&greeting.method).filter(|method| *method != Method::Clear).unwrap_or(Method::Native);
        let login = Self { options, method, challenge: greeting.challenge.clone(), password };
        let answer = login.answer()?;
        let tls = if options.trust.mode == TlsMode::Disable { 0 } else { super::greeting::capability::TLS };
        wire.push(|out| {
            out.extend_from_slice(&super::greeting::beginning(tls));
            put_text(out, &options.user);
            put_bytes(out, &answer);
            put_text(out, method.name());
            let mut attributes = Vec::new();
            for (name, value) in [("program_name", format!("feedline/{}", options.pipeline)), ("_client_name", "feedline".to_owned())] {
                put_bytes(&mut attributes, name.as_bytes());
                put_bytes(&mut attributes, value.as_bytes());
            }
            put_bytes(out, &attributes);
        });
        Ok(login)
    }

    /// Queues the answer to one packet of the login that is not an error.
    pub(super) fn proceed(&mut self, packet: &[u8], wire: &mut Wire) -> Result<Next, Error> {
        match packet.split_first() {
            Some((0, _)) => return Ok(Next::Done),
            Some((0xFE, request)) => {
                // Another method, with its challenge.
                let (method, challenge) = text(request).ok_or(Error::Protocol { what: "the request for another login" })?;
                self.method = Method::of(&method)
                    .ok_or_else(|| self.refused(format!("it asks for authentication by {method}, which is not supported")))?;
                self.challenge = challenge.strip_suffix(&[0]).unwrap_or(challenge).to_vec();
                let answer = self.answer()?;
                wire.push(|out| out.extend_from_slice(&answer));
            }
            Some((1, [3])) if self.method == Method::Sha2 => {}
            Some((1, [4])) if self.method == Method::Sha2 => {
                self.check_may_show_password()?;
                if self.is_encrypted() {
                    let password = self.clear();
                    wire.push(|out| out.extend_from_slice(&password));
                } else {
                    // Asks for the server's public key.
                    wire.push(|out| out.push(2));
                }
            }
            Some((1, key)) if self.method == Method::Sha2 && key.starts_with(b"-----BEGIN") => {
                let encrypted = self.encrypted(key).map_err(|error| self.refused(format!("its public key cannot be used: {error}")))?;
                wire.push(|out| out.extend_from_slice(&encrypted));
            }
            _ => return Err(Error::Protocol { what: "a login" }),
        }
        Ok(Next::Packet)
    }

    /// The answer to the challenge.
    fn answer(&self) -> Result<Vec<u8>, Error> {
        if self.method == Method::Clear {
            self.check_may_show_password()?;
            return Ok(self.clear());
        }
        if self.password.is_empty() && self.method != Method::Ed25519 {
            return Ok(Vec::new());
        }
        Ok(match self.method {
            Method::Native => {
                let hash = sha1(&self.password);
                let mask = sha1(&[&self.challenge, &sha1(&hash)[..]].concat());
                xor(&hash, &mask)
            }
            Method::Sha2 => {
                let hash = sha256(&self.password);
                let mut mask = Sha256::new();
                mask.update(&sha256(&hash));
                mask.update(&self.challenge);
                xor(&hash, &mask.finish())
            }
            Method::Ed25519 => ed25519::sign(&self.password, &self.challenge).to_vec(),
            Method::Clear => self.clear(),
        })
    }

    /// The password with the zero that ends it.
    fn clear(&self) -> Vec<u8> {
        [&self.password[..], &[0]].concat()
    }

    /// The password, mixed with the challenge and encrypted for the server (MySQL documentation, "Caching SHA-2 Pluggable Authentication").
    fn encrypted(&self, key: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let challenge: Vec<u8> = self.challenge.iter().copied().cycle().take(self.password.len() + 1).collect();
        let mixed = if self.challenge.is_empty() { self.clear() } else { xor(&self.clear(), &challenge) };
        let key = PKey::public_key_from_pem(key)?;
        let mut encrypter = Encrypter::new(&key)?;
        encrypter.set_rsa_padding(Padding::PKCS1_OAEP)?;
        encrypter.set_rsa_oaep_md(MessageDigest::sha1())?;
        let mut hidden = vec![0; encrypter.encrypt_len(&mixed)?];
        let length = encrypter.encrypt(&mixed, &mut hidden)?;
        hidden.truncate(length);
        Ok(hidden)
    }

    fn is_encrypted(&self) -> bool {
        self.options.trust.mode != TlsMode::Disable
    }

    /// Refuses to show the password to a server that has not proved who it is, unless the configuration allows it.
    fn check_may_show_password(&self) -> Result<(), Error> {
        let is_accepted = self.options.trust.verifies() || self.options.require_auth <= RequireAuth::Password;
        if is_accepted { Ok(()) } else { Err(Error::Unproven { address: self.options.address() }) }
    }

    fn refused(&self, reason: String) -> Error {
        Error::Authentication { address: self.options.address(), user: self.options.user.clone(), reason }
    }
}

fn xor(bytes: &[u8], mask: &[u8]) -> Vec<u8> {
    bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}
