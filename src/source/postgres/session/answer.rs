//! The result of a query: its columns and its rows, as text.

use crate::source::postgres::error::Error;
use serde::de::DeserializeOwned;

pub(crate) use crate::source::Answer;

impl Answer {
    /// Whether the value is `t`.
    pub(crate) fn is_true(&self, index: usize) -> bool {
        self.get(index) == Some("t")
    }
}

/// The list that a column holds as JSON. An aggregate over nothing is null, which is an empty list. `None` if it is malformed.
pub(crate) fn list<T: DeserializeOwned + Default>(row: &Answer, index: usize) -> Option<T> {
    row.get(index).map_or_else(|| Some(T::default()), |json| serde_json::from_str(json).ok())
}

/// A column of a query's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResultColumn {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
}

/// Reads a `RowDescription` (PostgreSQL documentation, 55.7).
pub(super) fn columns(body: &[u8]) -> Option<Vec<ResultColumn>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        // After the name: table 4, column 2, type 4, length 2, modifier 4, format 2.
        let (facts, after) = rest[end + 1..].split_first_chunk::<18>()?;
        let word = |at: usize| facts[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        columns.push(ResultColumn { name, type_oid: word(6)?, modifier: word(12)?.cast_signed() });
        rest = after;
    }
    Some(columns)
}

/// Reads a `DataRow`.
pub(super) fn row(body: &[u8]) -> Result<Answer, Error> {
    const MALFORMED: Error = Error::Protocol { what: "row of an answer" };
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or(MALFORMED)?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        rest = after;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            values.push(None);
            continue;
        };
        let (value, after) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Ok(Answer::new(values))
}

#[cfg(test)]
mod tests {
    use super::{Answer, list};

    #[test]
    fn only_null_is_an_empty_list() {
        let row = Answer::new(vec![None, Some("[1, 2]".to_owned()), Some("[1, \"a\"]".to_owned()), Some(String::new())]);
        assert_eq!([0, 1, 2, 3].map(|index| list::<Vec<u8>>(&row, index)), [Some(Vec::new()), Some(vec![1, 2]), None, None]);
    }
}
