//! Errors as the server reports them in a response.

use std::fmt;

/// The longest text of the server that is shown.
const TEXT_MAX: usize = 200;

/// What kind of error a response is: its field `t`, and for run-time errors its field `e`
/// (RethinkDB 2.4, `ql2.proto`, `Response.ResponseType` and `Response.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The driver made a mistake (`CLIENT_ERROR`).
    Client,
    /// The query is malformed (`COMPILE_ERROR`).
    Compile,
    /// An error inside the server (`INTERNAL`). A missing permission is reported as one when a feed is opened.
    Internal,
    /// A limit of the server was reached (`RESOURCE_LIMIT`).
    ResourceLimit,
    /// The query makes no sense (`QUERY_LOGIC`, `NON_EXISTENCE`, `USER`).
    Logic,
    /// The server could not do it now (`OP_FAILED`, `OP_INDETERMINATE`).
    Unavailable,
    /// The user lacks a permission (`PERMISSION_ERROR`).
    Permission,
    /// One that this version does not know.
    Unknown,
}

impl ErrorKind {
    /// The kind of a response of this type with this error code; `None` where it is no error.
    pub(super) const fn of(response_type: u8, code: Option<u32>) -> Option<Self> {
        Some(match (response_type, code) {
            (16, _) => Self::Client,
            (17, _) => Self::Compile,
            (18, Some(1_000_000)) => Self::Internal,
            (18, Some(2_000_000)) => Self::ResourceLimit,
            (18, Some(3_000_000 | 3_100_000 | 5_000_000)) => Self::Logic,
            (18, Some(4_100_000 | 4_200_000)) => Self::Unavailable,
            (18, Some(6_000_000)) => Self::Permission,
            (18, _) => Self::Unknown,
            _ => return None,
        })
    }
}

/// An error of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Its kind.
    pub kind: ErrorKind,
    /// The server's text, fit to be shown.
    pub text: String,
}

impl ServerError {
    pub(super) fn new(kind: ErrorKind, text: &str) -> Self {
        Self { kind, text: shown(text) }
    }

    /// Whether the user lacks a permission. The server does not always say so by the code.
    pub(super) fn is_permission(&self) -> bool {
        self.kind == ErrorKind::Permission || (self.kind == ErrorKind::Internal && self.text.contains("does not have the required"))
    }

    /// Whether a table or database is missing. The server reports it under the code of what passes.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Logic) && self.text.contains("does not exist")
    }

    /// Whether it may pass by itself.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::ResourceLimit) && !self.is_missing()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The text of somebody else, on one line and without control characters, cut to a length that fits a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, ServerError, shown};

    fn error(code: u32, text: &str) -> ServerError {
        ServerError::new(ErrorKind::of(18, Some(code)).unwrap(), text)
    }

    #[test]
    fn the_text_tells_what_the_code_does_not() {
        let missing = error(4_100_000, "Table `test.nope` does not exist.");
        assert!(missing.is_missing() && !missing.is_passing());
        let aborted = error(4_100_000, "Changefeed aborted (unavailable).");
        assert!(aborted.is_passing() && !aborted.is_missing());
        assert!(error(1_000_000, "Unexpected exception: User `cdc` does not have the required `read` permission.").is_permission());
        assert!(error(4_200_000, "Query terminated by the `rethinkdb.jobs` table.").is_passing());
        assert_eq!(ErrorKind::of(3, None), None);
    }

    #[test]
    fn a_text_of_the_server_cannot_forge_a_line() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), 200);
    }
}
