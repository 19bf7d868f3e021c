//! MariaDB's login by Ed25519: the password itself is the seed of the key.
//!
//! Source: MariaDB 11.4 `plugin/auth_ed25519/ref10/sign.c`. It is RFC 8032 but for the seed, which there has 32 bytes.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use openssl::sha::{Sha512, sha512};

/// Signs a challenge.
pub(super) fn sign(password: &[u8], challenge: &[u8]) -> [u8; 64] {
    let seed = sha512(password);
    let (secret, prefix) = seed.split_at(32);
    let mut clamped = [0; 32];
    clamped.copy_from_slice(secret);
    let secret = Scalar::from_bytes_mod_order(clamp_integer(clamped));
    let public = EdwardsPoint::mul_base(&secret).compress();
    let nonce = scalar(&[prefix, challenge]);
    let commitment = EdwardsPoint::mul_base(&nonce).compress();
    let proof = nonce + scalar(&[commitment.as_bytes(), public.as_bytes(), challenge]) * secret;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(commitment.as_bytes());
    signature[32..].copy_from_slice(proof.as_bytes());
    signature
}

/// The hash of these bytes, as a number.
fn scalar(parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    Scalar::from_bytes_mod_order_wide(&hash.finish())
}

#[cfg(test)]
mod tests {
    use super::sign;

    /// The first test of RFC 8032, 7.1: there too the seed is what is hashed.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let hex = |text: &str| -> Vec<u8> {
            text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(sign(&seed, b"").to_vec(), hex(expected));
    }
}
