//! The global settings of the server.

use super::error::Error;
use super::session::Session;
use std::collections::HashMap;

/// Settings by their names in lower case. A setting that the product or its version does not have is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    /// Reads all.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        Self::shown(session, "SHOW GLOBAL VARIABLES").await
    }

    /// Reads only these.
    pub(super) async fn read_some(session: &mut Session, names: &[&str]) -> Result<Self, Error> {
        Self::shown(session, &format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('{}')", names.join("', '"))).await
    }

    async fn shown(session: &mut Session, statement: &str) -> Result<Self, Error> {
        let rows = session.query(statement).await?;
        Ok(Self(rows.iter().map(|row| (row.text(0).to_ascii_lowercase(), row.text(1).to_owned())).collect()))
    }

    /// The value; `None` if the server has no such setting.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether it is this word, which is compared without case.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|known| known.eq_ignore_ascii_case(value))
    }

    /// Whether it is there, and another word.
    pub(super) fn is_not(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|known| !known.eq_ignore_ascii_case(value))
    }

    /// The value as a number; `None` if the server has no such setting.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        // Some are written with a fraction: `expire_logs_days`.
        let text = self.get(name)?;
        text.split('.').next()?.parse().ok()
    }
}

#[cfg(test)]
impl Variables {
    /// These settings.
    pub(super) fn of(settings: &[(&str, &str)]) -> Self {
        Self(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}
