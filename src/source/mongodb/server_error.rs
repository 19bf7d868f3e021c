//! Errors as the server reports them in a reply.

use super::bson::{Document, Malformed};
use std::fmt;

/// The longest text of the server that is shown.
const TEXT_MAX: usize = 160;

/// What kind of error a reply is (MongoDB source, `src/mongo/base/error_codes.yml`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The login failed.
    Authentication,
    /// The user may not do this.
    Privilege,
    /// The server does not know the command or the stage.
    Unknown,
    /// The log no longer holds what comes next, or the resume token is not one of it.
    LogLost,
    /// An image that the change stream requires is not stored.
    ImageMissing,
    /// An event is larger than a document may be.
    TooLarge,
    /// It may pass by itself: an election, a shutdown, a cursor or a snapshot that is gone.
    Passing,
    /// The collection or database does not exist.
    Missing,
    /// Any other.
    Other,
}

impl ErrorKind {
    const fn of(code: i64) -> Self {
        match code {
            18 => Self::Authentication,
            13 => Self::Privilege,
            59 | 40_324 => Self::Unknown,
            26 => Self::Missing,
            // ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, CappedPositionLost; a token that is malformed.
            286 | 280 | 260 | 136 | 40_647 | 50_811 => Self::LogLost,
            47 => Self::ImageMissing,
            10_334 => Self::TooLarge,
            // HostUnreachable, HostNotFound, CursorNotFound, MaxTimeMSExpired, StaleShardVersion, NetworkTimeout, ShutdownInProgress, WriteConflict,
            // FailedToSatisfyReadPreference, StaleEpoch, QueryPlanKilled, PrimarySteppedDown, SnapshotTooOld, CursorKilled, SnapshotUnavailable,
            // ExceededTimeLimit, SocketException, NotWritablePrimary, InterruptedAtShutdown, Interrupted, InterruptedDueToReplStateChange,
            // NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary, RetryChangeStream, StaleConfig.
            6 | 7 | 43 | 50 | 63 | 89 | 91 | 112 | 133 | 150 | 175 | 189 | 239 | 237 | 246 | 262 | 9001 | 10_107 | 11_600 | 11_601
            | 11_602 | 13_435 | 13_436 | 234 | 13_388 => Self::Passing,
            _ => Self::Other,
        }
    }
}

/// An error of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Its kind.
    pub kind: ErrorKind,
    /// Its number.
    pub code: i64,
    /// The server's text, fit to be shown.
    pub text: String,
}

impl ServerError {
    /// The error that a reply is; `None` where it is none.
    pub(super) fn of(reply: Document<'_>) -> Result<Option<Self>, Malformed> {
        if reply.is_true("ok")? {
            return Ok(None);
        }
        let code = reply.number("code")?.unwrap_or(0);
        let text = reply.text("errmsg")?.unwrap_or("an error without a text");
        let mut kind = ErrorKind::of(code);
        // A server may know errors that pass and that this version does not know.
        let labels = reply.get("errorLabels")?.and_then(super::bson::Value::array);
        let passing = ["ResumableChangeStreamError", "TransientTransactionError", "RetryableWriteError", "RetryableReadError"];
        let is_labelled = labels.is_some_and(|labels| {
            labels.elements().flatten().any(|label| label.value.text().is_some_and(|label| passing.contains(&label)))
        });
        if kind == ErrorKind::Other && is_labelled {
            kind = ErrorKind::Passing;
        }
        Ok(Some(Self { kind, code, text: shown(text) }))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (code {})", self.text, self.code)
    }
}

/// The text of somebody else, on one line and without control characters, cut to a length that fits a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::{ErrorKind, ServerError};

    fn error(reply: Writer) -> Option<ServerError> {
        ServerError::of(Document::new(&reply.finish()).unwrap()).unwrap()
    }

    #[test]
    fn a_reply_is_an_error_unless_it_says_ok() {
        assert_eq!(error(Writer::new().double("ok", 1.0)), None);
        let lost = error(Writer::new().double("ok", 0.0).int("code", 286).text("errmsg", "a\nb")).unwrap();
        assert_eq!((lost.kind, lost.text.as_str()), (ErrorKind::LogLost, "a b"));
        let other = Writer::new().double("ok", 0.0).int("code", 424_242).text("errmsg", "x");
        assert_eq!(error(other.clone()).unwrap().kind, ErrorKind::Other);
        assert_eq!(error(other.texts("errorLabels", ["ResumableChangeStreamError"])).unwrap().kind, ErrorKind::Passing);
        assert_eq!(error(Writer::new()).unwrap().code, 0);
    }
}
