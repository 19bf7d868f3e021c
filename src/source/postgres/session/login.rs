//! Authenticates to the server, and makes the server prove its identity.
//!
//! SCRAM proves both sides. By the other methods the server learns the password, or its MD5 hash, and proves nothing about itself. They
//! are accepted only if the server's certificate is verified, or if the configuration allows them.

use crate::net::RequireAuth;
use crate::net::secret::Secret;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::wire::{Wire, put_text};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use std::io;

/// The most SCRAM iterations that a server may ask for. Its default is 4,096 (`scram_iterations`).
const ITERATIONS_MAX: u32 = 1_000_000;

const MALFORMED: Error = Error::Protocol { what: "request for authentication" };

/// A login in progress.
pub(super) struct Login<'o> {
    options: &'o Options,
    /// The channel binding of an encrypted connection.
    binding: Option<Vec<u8>>,
    scram: Option<ScramSha256>,
    /// What the server has proved so far.
    proved: RequireAuth,
}

impl<'o> Login<'o> {
    pub(super) const fn new(options: &'o Options, binding: Option<Vec<u8>>) -> Self {
        Self { options, binding, scram: None, proved: RequireAuth::None }
    }

    /// Queues the answer to one authentication request (PostgreSQL documentation, 55.2.1).
    pub(super) fn answer(&mut self, request: &[u8], wire: &mut Wire) -> Result<(), Error> {
        let (kind, rest) = request.split_first_chunk::<4>().ok_or(MALFORMED)?;
        match u32::from_be_bytes(*kind) {
            0 => return self.admitted(),
            3 => {
                self.accept(RequireAuth::Password, "asks for the password in clear text")?;
                let password = self.password()?;
                wire.push(Some(b'p'), |out| put_text(out, &password));
            }
            5 => {
                self.accept(RequireAuth::Md5, "asks for the password under MD5")?;
                let salt = rest.first_chunk::<4>().ok_or(MALFORMED)?;
                let hashed = md5_hash(self.options.user.as_bytes(), self.password()?.as_bytes(), *salt);
                wire.push(Some(b'p'), |out| put_text(out, &hashed));
            }
            10 => {
                let offered: Vec<&[u8]> = rest.split(|&byte| byte == 0).collect();
                let (mechanism, channel) = mechanism(&offered, self.binding.as_ref())
                    .ok_or_else(|| self.refused("the server offers no SCRAM mechanism that this client knows".to_owned()))?;
                let exchange = ScramSha256::new(self.password()?.as_bytes(), channel);
                let first = exchange.message();
                wire.push(Some(b'p'), |out| {
                    put_text(out, mechanism);
                    out.extend_from_slice(&u32::try_from(first.len()).unwrap_or_default().to_be_bytes());
                    out.extend_from_slice(first);
                });
                self.scram = Some(exchange);
            }
            11 => {
                if iterations(rest).is_none_or(|iterations| ITERATIONS_MAX < iterations) {
                    return Err(self.refused(format!("the server asks for more than {ITERATIONS_MAX} SCRAM iterations")));
                }
                let exchange = self.scram.as_mut().ok_or(MALFORMED)?;
                if let Err(error) = exchange.update(rest) {
                    return Err(self.exchange_failed(&error));
                }
                wire.push(Some(b'p'), |out| out.extend_from_slice(exchange.message()));
            }
            12 => {
                let finished = self.scram.as_mut().ok_or(MALFORMED)?.finish(rest);
                finished.map_err(|error| self.exchange_failed(&error))?;
                self.proved = RequireAuth::Scram;
            }
            other => return Err(self.refused(format!("the server asks for authentication method {other}, which is not supported"))),
        }
        Ok(())
    }

    /// Handles the end of authentication.
    fn admitted(&self) -> Result<(), Error> {
        if self.scram.is_some() && self.proved != RequireAuth::Scram {
            return Err(self.refused("the server ended SCRAM without its signature".to_owned()));
        }
        // Without a password there is no secret to protect.
        if self.options.password.is_none() || self.proved != RequireAuth::None {
            return Ok(());
        }
        self.check_accepted(RequireAuth::None, "asks for no password although one is configured")
    }

    /// Accepts a method that proves nothing about the server, if the configuration allows it.
    fn accept(&mut self, method: RequireAuth, what: &'static str) -> Result<(), Error> {
        self.check_accepted(method, what)?;
        self.proved = method;
        Ok(())
    }

    fn check_accepted(&self, method: RequireAuth, what: &'static str) -> Result<(), Error> {
        if self.options.trust.verifies() || self.options.require_auth <= method {
            return Ok(());
        }
        Err(Error::Unproven { address: self.options.address(), what, accepted_by: method.name() })
    }

    fn password(&self) -> Result<String, Error> {
        let missing = || self.refused("the server asks for a password and none is configured".to_owned());
        self.options.password.as_ref().ok_or_else(missing).map(Secret::reveal)
    }

    fn refused(&self, reason: String) -> Error {
        Error::Authentication { address: self.options.address(), user: self.options.user.clone(), reason }
    }

    fn exchange_failed(&self, error: &io::Error) -> Error {
        self.refused(format!("SCRAM: {error}"))
    }
}

/// Chooses SCRAM with channel binding if both sides support it. If the server offers it and this side has none, it says `n`, so that the
/// server does not suspect an attack.
fn mechanism(offered: &[&[u8]], binding: Option<&Vec<u8>>) -> Option<(&'static str, ChannelBinding)> {
    let offers = |name: &str| offered.contains(&name.as_bytes());
    match (offers(SCRAM_SHA_256_PLUS), binding) {
        (true, Some(binding)) => Some((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding.clone()))),
        (false, Some(_)) if offers(SCRAM_SHA_256) => Some((SCRAM_SHA_256, ChannelBinding::unrequested())),
        _ if offers(SCRAM_SHA_256) => Some((SCRAM_SHA_256, ChannelBinding::unsupported())),
        _ => None,
    }
}

/// The number of iterations in the server's first message: `r=...,s=...,i=4096` (RFC 5802, 7).
fn iterations(message: &[u8]) -> Option<u32> {
    let count = message.split(|&byte| byte == b',').find_map(|part| part.strip_prefix(b"i="))?;
    std::str::from_utf8(count).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::iterations;

    #[test]
    fn iterations_are_read_from_the_servers_first_message() {
        assert_eq!(iterations(b"r=abc,s=c2FsdA==,i=4096"), Some(4096));
        assert_eq!(iterations(b"r=abc,s=c2FsdA==,i=99999999999"), None);
        assert_eq!(iterations(b"r=abc"), None);
    }
}
