//! The `V1_0` handshake (RethinkDB documentation, "Writing RethinkDB drivers"): what is said, without a socket.
//!
//! Both sides send JSON that ends with a zero byte. The server's messages may arrive in any pieces; whoever has a socket splits them.

use super::server_error::shown;
use crate::net::{Scram, ScramError, ScramHash};
use serde::Deserialize;
use std::borrow::Cow;

/// The protocol's first bytes: `V1_0`, little endian.
const MAGIC: [u8; 4] = [0xC3, 0xBD, 0xC2, 0x34];
/// The version of the protocol inside `V1_0`.
const PROTOCOL: u32 = 0;
/// The fewest iterations that are accepted. The server hashes an empty password once.
const ITERATIONS_MIN: usize = 1;
/// The longest message of the server that is accepted. Those of 2.4.4 have less than 300 bytes.
pub(super) const MESSAGE_MAX: usize = 4096;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server does not speak this protocol.
    #[error("it does not speak the protocol V1_0 of RethinkDB 2.3 and later: {answer:?}")]
    NotSpoken {
        /// What it said.
        answer: String,
    },
    /// The server refused the login, or the protocol's version.
    #[error("{text} (code {code})")]
    Refused {
        /// The server's code: 10 to 20 are about the login, lower ones about the protocol.
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The exchange of proofs failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// A message of the server.
#[derive(Deserialize)]
struct Message<'m> {
    success: bool,
    #[serde(borrow, default)]
    authentication: Option<Cow<'m, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'m, str>>,
    #[serde(default)]
    error_code: Option<u32>,
    #[serde(default)]
    min_protocol_version: Option<u32>,
    #[serde(default)]
    max_protocol_version: Option<u32>,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Version,
    ServerFirst,
    ServerFinal,
    Nothing,
}

/// One handshake.
pub(super) struct Handshake {
    scram: Scram,
    expected: Expected,
}

impl Handshake {
    /// Begins a handshake: appends what is sent first. The login may follow the magic number at once.
    pub(super) fn begin(user: &str, password: String, out: &mut Vec<u8>) -> Result<Self, HandshakeError> {
        Ok(Self::with(Scram::new(ScramHash::Sha256, ITERATIONS_MIN, user, password)?, out))
    }

    fn with(scram: Scram, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        let first = serde_json::json!({
            "protocol_version": PROTOCOL,
            "authentication_method": scram.mechanism(),
            "authentication": scram.first_message(),
        });
        put(&first, out);
        Self { scram, expected: Expected::Version }
    }

    /// Takes a message of the server, without its zero byte. Appends what is sent in answer.
    pub(super) fn receive(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let not_spoken = || HandshakeError::NotSpoken { answer: shown(&String::from_utf8_lossy(message)) };
        let message: Message<'_> = serde_json::from_slice(message).map_err(|_| not_spoken())?;
        if !message.success {
            let text = shown(message.error.as_deref().unwrap_or("refused without a reason"));
            return Err(HandshakeError::Refused { code: message.error_code.unwrap_or(0), text });
        }
        let authentication = message.authentication.as_deref();
        match self.expected {
            Expected::Version => {
                let (least, most) = (message.min_protocol_version, message.max_protocol_version);
                if !least.zip(most).is_some_and(|(least, most)| (least..=most).contains(&PROTOCOL)) {
                    return Err(not_spoken());
                }
                self.expected = Expected::ServerFirst;
            }
            Expected::ServerFirst => {
                let proof = self.scram.answer(authentication.ok_or_else(not_spoken)?)?;
                put(&serde_json::json!({ "authentication": proof }), out);
                self.expected = Expected::ServerFinal;
            }
            Expected::ServerFinal => {
                self.scram.verify(authentication.ok_or(ScramError::Unproven)?)?;
                self.expected = Expected::Nothing;
            }
            Expected::Nothing => return Err(not_spoken()),
        }
        Ok(())
    }

    /// Whether both sides have proved that they know the password.
    pub(super) fn is_complete(&self) -> bool {
        self.expected == Expected::Nothing
    }
}

/// Appends a message.
fn put(message: &serde_json::Value, out: &mut Vec<u8>) {
    out.extend_from_slice(message.to_string().as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::{Handshake, HandshakeError, ITERATIONS_MIN, MAGIC, Scram, ScramError, ScramHash};
    use serde_json::Value;

    const AUTH_OK: (&[u8], &[u8]) = (
        include_bytes!("../../../tests/golden/rethinkdb/auth_ok.c2s.bin"),
        include_bytes!("../../../tests/golden/rethinkdb/auth_ok.s2c.bin"),
    );

    fn messages(bytes: &[u8]) -> Vec<&[u8]> {
        bytes.split_inclusive(|byte| *byte == 0).filter_map(|part| part.strip_suffix(&[0])).collect()
    }

    fn read(message: &[u8]) -> Value {
        serde_json::from_slice(message).unwrap()
    }

    /// The nonce that the recorded client used.
    fn nonce(sent: &[u8]) -> String {
        let first = read(messages(&sent[4..])[0]);
        first["authentication"].as_str().unwrap().rsplit_once("r=").unwrap().1.to_owned()
    }

    fn replayed(user: &str, password: &str, (sent, received): (&[u8], &[u8])) -> Result<Vec<u8>, HandshakeError> {
        let mut out = Vec::new();
        let mut handshake =
            Handshake::with(Scram::with_nonce(ScramHash::Sha256, ITERATIONS_MIN, user, password.to_owned(), nonce(sent)), &mut out);
        for message in messages(received) {
            if handshake.is_complete() {
                break;
            }
            handshake.receive(message, &mut out)?;
        }
        assert!(handshake.is_complete());
        Ok(out)
    }

    #[test]
    fn it_says_what_a_recorded_client_said() {
        let admin: (&[u8], &[u8]) =
            (include_bytes!("../../../tests/golden/rethinkdb/t5.c2s.bin"), include_bytes!("../../../tests/golden/rethinkdb/t5.s2c.bin"));
        for (user, password, transcript) in [("cdc", "s3cr:t,=é", AUTH_OK), ("admin", "", admin)] {
            let said = replayed(user, password, transcript).unwrap();
            assert_eq!(said[..4], MAGIC);
            let (ours, recorded) = (messages(&said[4..]), messages(&transcript.0[4..]));
            for (ours, recorded) in ours.iter().zip(recorded).take(2) {
                assert_eq!(read(ours), read(recorded), "{user}");
            }
        }
    }

    #[test]
    fn a_refused_login_has_the_servers_code() {
        let wrong: (&[u8], &[u8]) = (
            include_bytes!("../../../tests/golden/rethinkdb/auth_wrong_password.c2s.bin"),
            include_bytes!("../../../tests/golden/rethinkdb/auth_wrong_password.s2c.bin"),
        );
        let unknown: (&[u8], &[u8]) = (
            include_bytes!("../../../tests/golden/rethinkdb/auth_unknown_user.c2s.bin"),
            include_bytes!("../../../tests/golden/rethinkdb/auth_unknown_user.s2c.bin"),
        );
        for (user, expected, text, transcript) in [("cdc", 12, "Wrong password", wrong), ("nobody", 17, "Unknown user", unknown)] {
            let refused = replayed(user, "x", transcript).unwrap_err();
            assert!(matches!(&refused, HandshakeError::Refused { code, text: said } if *code == expected && said == text), "{refused}");
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let refused = replayed("cdc", "another", AUTH_OK).unwrap_err();
        assert!(matches!(refused, HandshakeError::Scram(ScramError::Unproven)), "{refused}");
    }

    #[test]
    fn what_is_no_rethinkdb_is_shown() {
        for wrong in [&b"ERROR: Received an unsupported protocol version"[..], b"", b"{}", br#"{"success":true}"#, b"\xFF"] {
            let mut handshake =
                Handshake::with(Scram::with_nonce(ScramHash::Sha256, ITERATIONS_MIN, "a", String::new(), "x".to_owned()), &mut Vec::new());
            assert!(matches!(handshake.receive(wrong, &mut Vec::new()), Err(HandshakeError::NotSpoken { .. })), "{wrong:?}");
        }
    }
}
