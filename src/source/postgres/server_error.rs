//! Errors and notices as the server reports them.

use std::fmt;

/// An error or a notice of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The SQLSTATE: five characters.
    pub sqlstate: String,
    /// What happened.
    pub message: String,
    /// More about it; may be empty.
    pub detail: String,
    /// Advice of the server; may be empty.
    pub hint: String,
    /// Where it happened; may be empty.
    pub context: String,
}

impl ServerError {
    /// Reads the fields of an `ErrorResponse` or `NoticeResponse` (PostgreSQL documentation, 55.8). Fields that are cut off are left out.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|&byte| byte == 0) {
            let Some((&kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                b'W' => error.context = text,
                _ => {}
            }
        }
        error
    }

    /// Whether a lock was not available in time (`lock_not_available`).
    pub(super) fn is_lock_timeout(&self) -> bool {
        self.sqlstate == "55P03"
    }

    /// Whether it says that the publication did not exist at this position of the log.
    pub(super) fn is_publication_missing(&self) -> bool {
        self.sqlstate == "42704" && self.message.contains("publication")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        for (name, text) in [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)] {
            if !text.is_empty() {
                write!(formatter, "; {name}: {}", text.replace('\n', " "))?;
            }
        }
        Ok(())
    }
}
