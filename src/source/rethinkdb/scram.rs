//! SCRAM-SHA-256 (RFC 5802 and RFC 7677) as RethinkDB speaks it: without channel binding, with the user in the client's first message, and
//! with any number of iterations from 1 (the server hashes an empty password once).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sha::sha256;
use openssl::sign::Signer;

/// The most iterations that a server may ask for. RethinkDB's own number is 4,096.
const ITERATIONS_MAX: usize = 1_000_000;
/// Bytes of SHA-256.
const HASH_LENGTH: usize = 32;
/// The header of a client that supports no channel binding, in base64 as the final message repeats it.
const NO_BINDING: &str = "c=biws";

/// Why the exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ScramError {
    /// A message of the server is not as the RFC says.
    #[error("the server's SCRAM message is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The server did not prove that it knows the password.
    #[error("the server did not prove that it knows the password")]
    Unproven,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed: {0}")]
    Library(#[from] ErrorStack),
}

/// One exchange, seen from the client.
pub(super) struct Scram {
    password: String,
    nonce: String,
    /// The client's first message without its header.
    first_bare: String,
    /// What the server must prove; `None` before its first message.
    server_signature: Option<[u8; HASH_LENGTH]>,
}

impl Scram {
    /// An exchange with a random nonce.
    pub(super) fn new(user: &str, password: String) -> Result<Self, ScramError> {
        let mut random = [0; 18];
        rand_bytes(&mut random)?;
        Ok(Self::with_nonce(user, password, STANDARD.encode(random)))
    }

    pub(super) fn with_nonce(user: &str, password: String, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { password, nonce, first_bare, server_signature: None }
    }

    /// The client's first message.
    pub(super) fn first_message(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The client's final message, in answer to the server's first one.
    pub(super) fn answer(&mut self, server_first: &str) -> Result<String, ScramError> {
        let malformed = |what| ScramError::Malformed { what };
        let mut parts = server_first.split(',');
        let mut part = |name: &str, what| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(malformed(what));
        let nonce = part("r=", "no nonce")?;
        let salt = STANDARD.decode(part("s=", "no salt")?).map_err(|_| malformed("the salt is not base64"))?;
        let iterations: usize = part("i=", "no iterations")?.parse().map_err(|_| malformed("the iterations are no number"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(malformed("it does not continue our nonce"));
        }
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(malformed("the number of iterations is not between 1 and 1,000,000"));
        }
        let mut salted = [0; HASH_LENGTH];
        pbkdf2_hmac(self.password.as_bytes(), &salt, iterations, MessageDigest::sha256(), &mut salted)?;
        let client_key = hmac(&salted, b"Client Key")?;
        let final_bare = format!("{NO_BINDING},r={nonce}");
        let exchanged = format!("{},{server_first},{final_bare}", self.first_bare);
        let mut proof = hmac(&sha256(&client_key), exchanged.as_bytes())?;
        proof.iter_mut().zip(client_key).for_each(|(proof, key)| *proof ^= key);
        self.server_signature = Some(hmac(&hmac(&salted, b"Server Key")?, exchanged.as_bytes())?);
        Ok(format!("{final_bare},p={}", STANDARD.encode(proof)))
    }

    /// Checks the server's final message: it proves that the server knows the password too.
    pub(super) fn verify(&self, server_final: &str) -> Result<(), ScramError> {
        let proof = server_final.split(',').next().and_then(|part| part.strip_prefix("v=")).ok_or(ScramError::Unproven)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Unproven)?;
        match &self.server_signature {
            Some(expected) if proof.len() == HASH_LENGTH && memcmp::eq(&proof, expected) => Ok(()),
            _ => Err(ScramError::Unproven),
        }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Result<[u8; HASH_LENGTH], ErrorStack> {
    let key = PKey::hmac(key)?;
    let mut code = [0; HASH_LENGTH];
    Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot(&mut code, message)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::{Scram, ScramError};

    const FIRST: &str = "r=/YxHP1k70c5fv3RugVHdTgkf9y+jrim1i8Y09EEIY+5N,s=6GK4tohOpyGE2qLd9BqMkQ==,i=4096";

    fn exchange() -> Scram {
        Scram::with_nonce("cdc", "s3cr:t,=é".to_owned(), "/YxHP1k70c5fv3RugVHdTgkf".to_owned())
    }

    #[test]
    fn an_exchange_is_what_a_real_server_accepted() {
        let mut scram = exchange();
        assert_eq!(scram.first_message(), "n,,n=cdc,r=/YxHP1k70c5fv3RugVHdTgkf");
        let proof = "c=biws,r=/YxHP1k70c5fv3RugVHdTgkf9y+jrim1i8Y09EEIY+5N,p=nm87BtcIT75KZTp1zGHX1RovKLPih4HGmiQ4EhR7OgI=";
        assert_eq!(scram.answer(FIRST).unwrap(), proof);
        scram.verify("v=pP89etFsJz7z1wIn97voBA9tffnTY8gWW2pAX6/Zy0g=").unwrap();
    }

    #[test]
    fn an_empty_password_is_hashed_once() {
        let mut scram = Scram::with_nonce("admin", String::new(), "NyoM+pLRmchPAnhgAGKjGMSM".to_owned());
        let proof = "c=biws,r=NyoM+pLRmchPAnhgAGKjGMSMa82gDPCp1bog/T9wXY9c,p=v0Mt8MPrclHeQ8IQb2bAg0X+GMD8l+SmbpVrKE5rWf8=";
        assert_eq!(scram.answer("r=NyoM+pLRmchPAnhgAGKjGMSMa82gDPCp1bog/T9wXY9c,s=AM2Wy9o1ntxd5dv6bYNoGA==,i=1").unwrap(), proof);
        scram.verify("v=Fz8ZMPUTvFWRvLa5+H52GtoPwxTbduxO0YUST9golcY=").unwrap();
    }

    #[test]
    fn a_server_that_proves_nothing_is_refused() {
        let mut scram = exchange();
        let proof = "v=pP89etFsJz7z1wIn97voBA9tffnTY8gWW2pAX6/Zy0g=";
        assert!(matches!(scram.verify(proof), Err(ScramError::Unproven)), "before its first message");
        scram.answer(FIRST).unwrap();
        for wrong in ["", "v=", "v=AAAA", "e=other-error", "v=pP89etFsJz7z1wIn97voBA9tffnTY8gWW2pAX6/Zy0h="] {
            assert!(matches!(scram.verify(wrong), Err(ScramError::Unproven)), "{wrong}");
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let wrongs = [
            "",
            "r=/YxHP1k70c5fv3RugVHdTgkf,s=AAAA,i=1",
            "r=other,s=AAAA,i=1",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=?,i=1",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA,i=0",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA,i=1000001",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA,i=many",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA",
        ];
        for wrong in wrongs {
            assert!(matches!(exchange().answer(wrong), Err(ScramError::Malformed { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_user_is_escaped() {
        assert_eq!(Scram::with_nonce("a=b,c", String::new(), "x".to_owned()).first_message(), "n,,n=a=3Db=2Cc,r=x");
    }
}
