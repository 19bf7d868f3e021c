//! An error that the server reports.

use std::fmt;

/// An `ERR` packet (MySQL documentation, "Generic Response Packets").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The number of the error.
    pub number: u16,
    /// The SQLSTATE; empty where the server gives none.
    pub sqlstate: String,
    /// The text.
    pub message: String,
}

impl ServerError {
    /// Reads a packet that begins with 0xFF.
    pub(super) fn parse(packet: &[u8]) -> Self {
        let number = packet.get(1..3).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
        let rest = packet.get(3..).unwrap_or_default();
        let (sqlstate, message) = match rest.strip_prefix(b"#").and_then(|rest| rest.split_at_checked(5)) {
            Some((sqlstate, message)) => (sqlstate, message),
            None => (&b""[..], rest),
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { number, sqlstate: text(sqlstate), message: text(message) }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerError;

    #[test]
    fn an_error_may_lack_its_state() {
        let error = ServerError::parse(b"\xFF\x15\x04#28000Access denied");
        assert_eq!((error.number, &*error.sqlstate, &*error.message), (1045, "28000", "Access denied"));
        assert_eq!(ServerError::parse(b"\xFF\x10\x04Too many connections").message, "Too many connections");
        assert_eq!(ServerError::parse(b"\xFF").number, 0);
    }
}
