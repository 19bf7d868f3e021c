//! SCRAM (RFC 5802, RFC 7677) as databases speak it that are no SASL library: without channel binding, with the user in the client's first
//! message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;
use std::ops::RangeInclusive;

/// The most iterations that a server may ask for: it decides how long the client computes.
const ITERATIONS_MAX: usize = 1_000_000;
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
    /// The server wants fewer or more iterations than the client accepts.
    #[error("the server's SCRAM message asks for {asked} iterations, and {least} to {most} are accepted")]
    Iterations {
        /// What the server asks for.
        asked: usize,
        /// The least that the client accepts.
        least: usize,
        /// The most that it accepts.
        most: usize,
    },
    /// The server did not prove that it knows the password.
    #[error("the server did not prove that it knows the password")]
    Unproven,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed: {0}")]
    Library(#[from] ErrorStack),
}

/// The hash of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl ScramHash {
    /// The mechanism's name.
    #[must_use]
    pub const fn mechanism(self) -> &'static str {
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
}

/// One exchange, seen from the client.
pub struct Scram {
    hash: ScramHash,
    iterations: RangeInclusive<usize>,
    password: String,
    nonce: String,
    /// The client's first message without its header.
    first_bare: String,
    /// What the server must prove; `None` before its first message.
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    /// An exchange with a random nonce. `password` is prepared as the server's protocol wants it.
    ///
    /// # Errors
    /// The library gives no random bytes.
    pub fn new(hash: ScramHash, iterations_min: usize, user: &str, password: String) -> Result<Self, ScramError> {
        let mut random = [0; 18];
        rand_bytes(&mut random)?;
        Ok(Self::with_nonce(hash, iterations_min, user, password, STANDARD.encode(random)))
    }

    /// The same with this nonce: for tests, which compare with exchanges that were recorded.
    #[must_use]
    pub fn with_nonce(hash: ScramHash, iterations_min: usize, user: &str, password: String, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { hash, iterations: iterations_min..=ITERATIONS_MAX, password, nonce, first_bare, server_signature: None }
    }

    /// The mechanism's name.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        self.hash.mechanism()
    }

    /// The client's first message.
    #[must_use]
    pub fn first_message(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The client's final message, in answer to the server's first one.
    ///
    /// # Errors
    /// The message is malformed, is no answer to ours, or wants a number of iterations that is not accepted.
    pub fn answer(&mut self, server_first: &str) -> Result<String, ScramError> {
        let malformed = |what| ScramError::Malformed { what };
        let mut parts = server_first.split(',');
        let mut part = |name: &str, what| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(malformed(what));
        let nonce = part("r=", "no nonce")?;
        let salt = STANDARD.decode(part("s=", "no salt")?).map_err(|_| malformed("the salt is not base64"))?;
        let asked: usize = part("i=", "no iterations")?.parse().map_err(|_| malformed("the iterations are no number"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(malformed("it does not continue our nonce"));
        }
        if !self.iterations.contains(&asked) {
            return Err(ScramError::Iterations { asked, least: *self.iterations.start(), most: *self.iterations.end() });
        }
        let digest = self.hash.digest();
        let mut salted = vec![0; digest.size()];
        pbkdf2_hmac(self.password.as_bytes(), &salt, asked, digest, &mut salted)?;
        let client_key = hmac(digest, &salted, b"Client Key")?;
        let final_bare = format!("{NO_BINDING},r={nonce}");
        let exchanged = format!("{},{server_first},{final_bare}", self.first_bare);
        let mut proof = hmac(digest, &hash(digest, &client_key)?, exchanged.as_bytes())?;
        proof.iter_mut().zip(client_key).for_each(|(proof, key)| *proof ^= key);
        self.server_signature = Some(hmac(digest, &hmac(digest, &salted, b"Server Key")?, exchanged.as_bytes())?);
        Ok(format!("{final_bare},p={}", STANDARD.encode(proof)))
    }

    /// Checks the server's final message: it proves that the server knows the password too.
    ///
    /// # Errors
    /// It proves nothing.
    pub fn verify(&self, server_final: &str) -> Result<(), ScramError> {
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
    use super::{Scram, ScramError, ScramHash};

    const FIRST: &str = "r=/YxHP1k70c5fv3RugVHdTgkf9y+jrim1i8Y09EEIY+5N,s=6GK4tohOpyGE2qLd9BqMkQ==,i=4096";

    fn exchange() -> Scram {
        Scram::with_nonce(ScramHash::Sha256, 1, "cdc", "s3cr:t,=é".to_owned(), "/YxHP1k70c5fv3RugVHdTgkf".to_owned())
    }

    #[test]
    fn an_exchange_is_what_a_real_server_accepted() {
        let mut scram = exchange();
        assert_eq!(scram.first_message(), "n,,n=cdc,r=/YxHP1k70c5fv3RugVHdTgkf");
        let proof = "c=biws,r=/YxHP1k70c5fv3RugVHdTgkf9y+jrim1i8Y09EEIY+5N,p=nm87BtcIT75KZTp1zGHX1RovKLPih4HGmiQ4EhR7OgI=";
        assert_eq!(scram.answer(FIRST).unwrap(), proof);
        scram.verify("v=pP89etFsJz7z1wIn97voBA9tffnTY8gWW2pAX6/Zy0g=").unwrap();
    }

    /// The exchanges of the MongoDB driver specifications, "Authentication", for user `user` with password `pencil`.
    #[test]
    fn an_exchange_is_that_of_the_specification() {
        // Of `user:mongo:pencil`.
        let md5 = "1c33006ec1ffd90f9cadcbcc0e118200".to_owned();
        let mut scram = Scram::with_nonce(ScramHash::Sha1, 4096, "user", md5, "fyko+d2lbbFgONRv9qkxdawL".to_owned());
        assert_eq!(scram.first_message(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let first = "r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,s=rQ9ZY3MntBeuP3E1TDVC4w==,i=10000";
        let proof = "c=biws,r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,p=MC2T8BvbmWRckDw8oWl5IVghwCY=";
        assert_eq!(scram.answer(first).unwrap(), proof);
        scram.verify("v=UMWeI25JD1yNYZRMpZ4VHvhZ9e0=").unwrap();

        let mut scram = Scram::with_nonce(ScramHash::Sha256, 4096, "user", "pencil".to_owned(), "rOprNGfwEbeRWgbNEkqO".to_owned());
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(scram.answer(first).unwrap(), proof);
        scram.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(matches!(scram.verify("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Err(ScramError::Unproven)));
    }

    #[test]
    fn an_empty_password_is_hashed_once() {
        let mut scram = Scram::with_nonce(ScramHash::Sha256, 1, "admin", String::new(), "NyoM+pLRmchPAnhgAGKjGMSM".to_owned());
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
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA,i=many",
            "r=/YxHP1k70c5fv3RugVHdTgkfx,s=AAAA",
        ];
        for wrong in wrongs {
            assert!(matches!(exchange().answer(wrong), Err(ScramError::Malformed { .. })), "{wrong}");
        }
    }

    #[test]
    fn too_few_and_too_many_iterations_are_refused() {
        for (least, asked) in [(1, 0), (4096, 4095), (1, 1_000_001)] {
            let mut scram = Scram::with_nonce(ScramHash::Sha256, least, "u", "p".to_owned(), "x".to_owned());
            let refused = scram.answer(&format!("r=xy,s=AAAA,i={asked}"));
            assert!(matches!(refused, Err(ScramError::Iterations { .. })), "{asked}: {refused:?}");
        }
    }

    #[test]
    fn a_user_is_escaped() {
        assert_eq!(Scram::with_nonce(ScramHash::Sha256, 1, "a=b,c", String::new(), "x".to_owned()).first_message(), "n,,n=a=3Db=2Cc,r=x");
    }
}
