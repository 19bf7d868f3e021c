//! SCRAM (RFC 5802, RFC 7677) as MongoDB speaks it: SCRAM-SHA-256 and SCRAM-SHA-1, without channel binding, with the user in the client's first
//! message, and at least 4,096 iterations (MongoDB driver specifications, "Authentication").

use super::hex::hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;

/// How often a server may have us hash. MongoDB's own numbers are 10,000 and 15,000.
const ITERATIONS: std::ops::RangeInclusive<usize> = 4096..=1_000_000;
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
    /// The password has characters that cannot be in one.
    #[error("the password has a character that SASLprep (RFC 4013) forbids")]
    Password,
    /// The server did not prove that it knows the password.
    #[error("the server did not prove that it knows the password")]
    Unproven,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed: {0}")]
    Library(#[from] ErrorStack),
}

/// The hash of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    /// The mechanism's name.
    pub(super) const fn mechanism(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
        }
    }

    /// What is hashed in place of the password.
    fn prepare(self, user: &str, password: &str) -> Result<String, ScramError> {
        match self {
            Self::Sha1 => {
                let digest = hash(MessageDigest::md5(), format!("{user}:mongo:{password}").as_bytes())?;
                Ok(hex(&digest))
            }
            Self::Sha256 => stringprep::saslprep(password).map(std::borrow::Cow::into_owned).map_err(|_| ScramError::Password),
        }
    }
}

/// One exchange, seen from the client.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    /// The client's first message without its header.
    first_bare: String,
    /// What the server must prove; `None` before its first message.
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    /// An exchange with a random nonce.
    pub(super) fn new(hash: Hash, user: &str, password: &str) -> Result<Self, ScramError> {
        let mut random = [0; 24];
        rand_bytes(&mut random)?;
        Self::with_nonce(hash, user, password, STANDARD.encode(random))
    }

    fn with_nonce(hash: Hash, user: &str, password: &str, nonce: String) -> Result<Self, ScramError> {
        let password = hash.prepare(user, password)?;
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Ok(Self { hash, password, nonce, first_bare, server_signature: None })
    }

    /// The mechanism's name.
    pub(super) const fn mechanism(&self) -> &'static str {
        self.hash.mechanism()
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
        if !ITERATIONS.contains(&iterations) {
            return Err(malformed("the number of iterations is not between 4,096 and 1,000,000"));
        }
        let digest = self.hash.digest();
        let mut salted = vec![0; digest.size()];
        pbkdf2_hmac(self.password.as_bytes(), &salt, iterations, digest, &mut salted)?;
        let client_key = hmac(digest, &salted, b"Client Key")?;
        let final_bare = format!("{NO_BINDING},r={nonce}");
        let exchanged = format!("{},{server_first},{final_bare}", self.first_bare);
        let mut proof = hmac(digest, &hash(digest, &client_key)?, exchanged.as_bytes())?;
        proof.iter_mut().zip(client_key).for_each(|(proof, key)| *proof ^= key);
        self.server_signature = Some(hmac(digest, &hmac(digest, &salted, b"Server Key")?, exchanged.as_bytes())?);
        Ok(format!("{final_bare},p={}", STANDARD.encode(proof)))
    }

    /// Checks the server's final message: it proves that the server knows the password too.
    pub(super) fn verify(&self, server_final: &str) -> Result<(), ScramError> {
        let proof = server_final.split(',').next().and_then(|part| part.strip_prefix("v=")).ok_or(ScramError::Unproven)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Unproven)?;
        match &self.server_signature {
            Some(expected) if proof.len() == expected.len() && memcmp::eq(&proof, expected) => Ok(()),
            _ => Err(ScramError::Unproven),
        }
    }
}

fn hmac(digest: MessageDigest, key: &[u8], message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::hmac(key)?;
    Signer::new(digest, &key)?.sign_oneshot_to_vec(message)
}

#[cfg(test)]
mod tests {
    use super::{Hash, Scram, ScramError};

    /// The exchanges of the driver specifications, "Authentication", for user `user` with password `pencil`.
    #[test]
    fn an_exchange_is_that_of_the_specification() {
        let mut scram = Scram::with_nonce(Hash::Sha1, "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL".to_owned()).unwrap();
        assert_eq!(scram.first_message(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let first = "r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,s=rQ9ZY3MntBeuP3E1TDVC4w==,i=10000";
        let proof = "c=biws,r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,p=MC2T8BvbmWRckDw8oWl5IVghwCY=";
        assert_eq!(scram.answer(first).unwrap(), proof);
        scram.verify("v=UMWeI25JD1yNYZRMpZ4VHvhZ9e0=").unwrap();

        let mut scram = Scram::with_nonce(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned()).unwrap();
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(scram.answer(first).unwrap(), proof);
        scram.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(matches!(scram.verify("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Err(ScramError::Unproven)));
    }

    #[test]
    fn what_would_weaken_the_exchange_is_refused() {
        for wrong in [
            "",
            "r=other,s=AAAA,i=4096",
            "r=x,s=AAAA,i=4096",
            "r=xy,s=?,i=4096",
            "r=xy,s=AAAA,i=4095",
            "r=xy,s=AAAA,i=1000001",
            "r=xy,s=AAAA",
        ] {
            let mut scram = Scram::with_nonce(Hash::Sha256, "a=b,c", "p", "x".to_owned()).unwrap();
            assert_eq!(scram.first_message(), "n,,n=a=3Db=2Cc,r=x");
            assert!(matches!(scram.answer(wrong), Err(ScramError::Malformed { .. })), "{wrong}");
            assert!(scram.verify("v=AAAA").is_err(), "before its first message");
        }
        assert!(matches!(Scram::with_nonce(Hash::Sha256, "u", "a\u{7}", "x".to_owned()), Err(ScramError::Password)));
    }
}
