//! The login: SCRAM, or the certificate of the connection (MongoDB driver specifications, "Authentication").

use super::bson::{Document, Value, Writer};
use super::error::Error;
use super::hex::hex;
use super::options::Login;
use super::server_error::{ErrorKind, ServerError};
use super::wire::Wire;
use crate::net::{Scram, ScramError, ScramHash};
use openssl::hash::{MessageDigest, hash};

/// The fewest iterations that a client accepts.
const ITERATIONS_MIN: usize = 4096;
/// Messages of an exchange. SCRAM has three.
const ROUNDS_MAX: usize = 5;

/// Logs in.
pub(super) async fn log_in(wire: &mut Wire, login: &Login, has_sha1_only: bool) -> Result<(), Error> {
    match login {
        Login::Scram { user, password, database } => {
            let hash = if has_sha1_only { ScramHash::Sha1 } else { ScramHash::Sha256 };
            let prepared = prepare(hash, user, &password.reveal());
            let scram = prepared.and_then(|password| Ok(Scram::new(hash, ITERATIONS_MIN, user, password)?));
            let scram = scram.map_err(|error| refused(wire, user, error.to_string()))?;
            converse(wire, scram, user, database).await
        }
        Login::X509 => {
            let command = Writer::new().int("authenticate", 1).text("mechanism", "MONGODB-X509").text("$db", "$external").finish();
            let reply = wire.exchange(&command).await?;
            match ServerError::of(Document::new(&reply)?)? {
                None => Ok(()),
                Some(error) => Err(not_accepted(wire, login.user(), error)),
            }
        }
    }
}

/// Why a password cannot be used.
#[derive(Debug, thiserror::Error)]
enum PasswordError {
    #[error("the password has a character that SASLprep (RFC 4013) forbids")]
    Forbidden,
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// What is hashed in place of the password.
fn prepare(mechanism: ScramHash, user: &str, password: &str) -> Result<String, PasswordError> {
    match mechanism {
        ScramHash::Sha1 => {
            let digest = hash(MessageDigest::md5(), format!("{user}:mongo:{password}").as_bytes()).map_err(ScramError::from)?;
            Ok(hex(&digest))
        }
        ScramHash::Sha256 => stringprep::saslprep(password).map(std::borrow::Cow::into_owned).map_err(|_| PasswordError::Forbidden),
    }
}

/// The exchange of SCRAM's messages.
async fn converse(wire: &mut Wire, mut scram: Scram, user: &str, database: &str) -> Result<(), Error> {
    let options = Writer::new().boolean("skipEmptyExchange", true).finish();
    let first = scram.first_message();
    let start = Writer::new().int("saslStart", 1).text("mechanism", scram.mechanism()).binary("payload", first.as_bytes());
    let mut command = start.document("options", &options);
    let mut is_proven = false;
    for round in 0..ROUNDS_MAX {
        let reply = wire.exchange(&command.text("$db", database).finish()).await?;
        let reply = Document::new(&reply)?;
        if let Some(error) = ServerError::of(reply)? {
            return Err(not_accepted(wire, user, error));
        }
        let payload = match reply.get("payload")? {
            Some(Value::Binary { bytes, .. }) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => "",
        };
        let answer = match round {
            0 => scram.answer(payload),
            1 => scram.verify(payload).map(|()| {
                is_proven = true;
                String::new()
            }),
            _ => Ok(String::new()),
        };
        let answer = answer.map_err(|error| refused(wire, user, error.to_string()))?;
        if reply.is_true("done")? {
            // A server that says so early has proved nothing.
            return if is_proven { Ok(()) } else { Err(refused(wire, user, ScramError::Unproven.to_string())) };
        }
        let conversation = reply.number("conversationId")?.and_then(|id| i32::try_from(id).ok()).unwrap_or(1);
        command = Writer::new().int("saslContinue", 1).int("conversationId", conversation).binary("payload", answer.as_bytes());
    }
    Err(refused(wire, user, "the login does not end".to_owned()))
}

/// A member that shuts down or becomes a secondary says nothing about the user.
fn not_accepted(wire: &Wire, user: &str, error: ServerError) -> Error {
    match error.kind {
        ErrorKind::Passing => Error::Refused { action: "log in", error },
        _ => refused(wire, user, error.to_string()),
    }
}

fn refused(wire: &Wire, user: &str, reason: String) -> Error {
    Error::Authentication { address: wire.address().to_owned(), user: user.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::{PasswordError, prepare};
    use crate::net::ScramHash;

    #[test]
    fn a_password_is_prepared_as_its_mechanism_wants() {
        assert_eq!(prepare(ScramHash::Sha1, "user", "pencil").unwrap(), "1c33006ec1ffd90f9cadcbcc0e118200");
        assert_eq!(prepare(ScramHash::Sha256, "user", "I\u{ad}X").unwrap(), "IX", "an example of RFC 4013");
        assert!(matches!(prepare(ScramHash::Sha256, "user", "a\u{7}"), Err(PasswordError::Forbidden)));
    }
}
