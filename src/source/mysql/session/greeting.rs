//! The server's greeting, and the beginning of the client's answer (MySQL documentation, "Connection Phase").

/// What a side can do.
pub(super) mod capability {
    pub(in super::super) const LONG_PASSWORD: u32 = 1;
    pub(in super::super) const LONG_FLAG: u32 = 1 << 2;
    pub(in super::super) const PROTOCOL_41: u32 = 1 << 9;
    pub(in super::super) const TLS: u32 = 1 << 11;
    pub(in super::super) const TRANSACTIONS: u32 = 1 << 13;
    pub(in super::super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(in super::super) const PLUGINS: u32 = 1 << 19;
    pub(in super::super) const ATTRIBUTES: u32 = 1 << 20;
    pub(in super::super) const PLUGIN_DATA_LENGTH: u32 = 1 << 21;
    pub(in super::super) const NO_EOF: u32 = 1 << 24;
}

/// What this client asks for. All servers that are supported have it.
pub(super) const CAPABILITIES: u32 = capability::LONG_PASSWORD
    | capability::LONG_FLAG
    | capability::PROTOCOL_41
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::PLUGINS
    | capability::ATTRIBUTES
    | capability::PLUGIN_DATA_LENGTH
    | capability::NO_EOF;

/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;
const PACKET_LENGTH_MAX: u32 = 1 << 30;

/// The first 32 bytes of the client's login.
pub(super) fn beginning(more: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&(CAPABILITIES | more).to_le_bytes());
    bytes[4..8].copy_from_slice(&PACKET_LENGTH_MAX.to_le_bytes());
    bytes[8] = CHARSET;
    bytes
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: String,
    /// The number of the session.
    pub(super) session: u32,
    pub(super) capabilities: u32,
    /// The method of login that the server proposes, with its challenge.
    pub(super) method: String,
    pub(super) challenge: Vec<u8>,
}

impl Greeting {
    /// Reads version 10 of the greeting.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(&[10])?;
        let (version, rest) = text(rest)?;
        let (session, rest) = rest.split_first_chunk::<4>()?;
        let (challenge, rest) = rest.split_at_checked(8)?;
        let (_, rest) = rest.split_first()?;
        let (low, rest) = rest.split_first_chunk::<2>()?;
        // Character set and status.
        let (_, rest) = rest.split_at_checked(3)?;
        let (high, rest) = rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first()?;
        let (_, rest) = rest.split_at_checked(10)?;
        let capabilities = u32::from(u16::from_le_bytes(*high)) << 16 | u32::from(u16::from_le_bytes(*low));
        if capabilities & CAPABILITIES != CAPABILITIES & !capability::LONG_PASSWORD | capabilities & capability::LONG_PASSWORD {
            return None;
        }
        let (more, rest) = rest.split_at_checked(usize::from(*length).saturating_sub(8).max(13))?;
        let challenge = [challenge, more.strip_suffix(&[0]).unwrap_or(more)].concat();
        let method = text(rest).map_or_else(|| String::from_utf8_lossy(rest).into_owned(), |(method, _)| method);
        Some(Self { version, session: u32::from_le_bytes(*session), capabilities, method, challenge })
    }
}

/// A text that ends with a zero, and what follows.
pub(super) fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::{CAPABILITIES, Greeting};

    #[test]
    fn a_greeting_has_its_challenge_in_two_parts() {
        let capabilities = CAPABILITIES.to_le_bytes();
        let packet = [
            &b"\x0a8.4.3\0\x07\0\0\0abcdefgh\0"[..],
            &capabilities[..2],
            &[45, 2, 0],
            &capabilities[2..],
            &[21],
            &[0; 10],
            b"ijklmnopqrst\0caching_sha2_password\0",
        ]
        .concat();
        let greeting = Greeting::parse(&packet).unwrap();
        assert_eq!((&*greeting.version, greeting.session, &*greeting.method), ("8.4.3", 7, "caching_sha2_password"));
        assert_eq!(greeting.challenge, b"abcdefghijklmnopqrst");
        for length in 0..packet.len() - 24 {
            assert_eq!(Greeting::parse(&packet[..length]), None, "{length}");
        }
    }
}
