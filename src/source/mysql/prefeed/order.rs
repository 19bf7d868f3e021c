//! The order in which rows are read, and the values of keys as SQL.
//!
//! `ORDER BY` and the condition that continues a scan compare the same column by its own type and collation, as its unique index does. Text
//! goes back to the server in its own encoding, byte by byte.

use super::field::Sent;
use crate::event::RowError;
use crate::source::Key;
use crate::source::mysql::binlog::{Storage, Text, Value};
use crate::source::mysql::hex::hex;
use crate::source::mysql::kind::Kind;

/// How the values of a key column are written as SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A number.
    Number,
    /// A date or a time.
    Temporal,
    /// The bytes in hexadecimal digits, with what stands before and behind them.
    Bytes { before: String, behind: &'static str },
}

const NO_KEY: RowError = RowError::Malformed { what: "a key that is not null" };

impl Spelling {
    /// How values of this column are written; `None` if they have no order.
    pub(super) fn of(storage: &Storage, kind: &Kind) -> Option<Self> {
        let bytes = |before: String, behind| Self::Bytes { before, behind };
        Some(match (kind, storage) {
            (Kind::JsonText(_) | Kind::Vector, _) | (_, Storage::Json { .. } | Storage::Geometry { .. }) => return None,
            (Kind::Text(charset), _) => bytes(format!("_{} x'", charset.name()), "'"),
            (Kind::Bytes(_), _) => bytes("x'".to_owned(), "'"),
            (Kind::Uuid, _) => bytes("CAST(x'".to_owned(), "' AS UUID)"),
            (Kind::Inet4, _) => bytes("CAST(x'".to_owned(), "' AS INET4)"),
            (Kind::Inet6, _) => bytes("CAST(x'".to_owned(), "' AS INET6)"),
            (
                Kind::Plain,
                Storage::Date
                | Storage::Time { .. }
                | Storage::DateTime { .. }
                | Storage::Timestamp { .. }
                | Storage::OldTime
                | Storage::OldDateTime
                | Storage::OldTimestamp,
            ) => Self::Temporal,
            (Kind::Plain | Kind::Label(_) | Kind::Labels(_), _) => Self::Number,
        })
    }

    /// A value as SQL; `None` if it is not written so. Values come back from the checkpoint, and are not trusted.
    fn sql(&self, value: &str) -> Option<String> {
        let consists_of = |allowed: fn(u8) -> bool| !value.is_empty() && value.bytes().all(allowed);
        match self {
            Self::Number => consists_of(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte)).then(|| value.to_owned()),
            Self::Temporal => consists_of(|byte| byte.is_ascii_digit() || b"-:. ".contains(&byte)).then(|| format!("'{value}'")),
            Self::Bytes { before, behind } => {
                let is_hex = value.len().is_multiple_of(2) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_hex.then(|| format!("{before}{value}{behind}"))
            }
        }
    }
}

/// A value of a key column as text.
pub(super) fn key_value(sent: Option<Sent<'_>>) -> Result<String, RowError> {
    Ok(match sent.ok_or(NO_KEY)? {
        Sent::Digits(digits) => digits.to_owned(),
        Sent::Json(_) => return Err(NO_KEY),
        Sent::Value(value) => match value {
            Value::Signed(number) => number.to_string(),
            Value::Unsigned(number) | Value::Label(number) | Value::Labels(number) => number.to_string(),
            // The server compares it as a number of twice the width: the same number needs all its digits.
            Value::Float(number) => format!("{:e}", f64::from(number)),
            Value::Double(number) => format!("{number:e}"),
            Value::Date(date) => Text::of_date(date).as_str().to_owned(),
            Value::Time(time, digits) => Text::of_time(time, digits).as_str().to_owned(),
            Value::DateTime(date, time, digits) => Text::of_date_time(date, time, digits).as_str().to_owned(),
            // Sessions are in UTC.
            Value::Timestamp(instant, digits) => Text::of_instant(instant, digits).as_str().trim_end_matches("+00").to_owned(),
            Value::Characters(bytes) => hex(bytes),
            Value::Null | Value::Absent | Value::Decimal(_) | Value::Compressed(_) | Value::Json(_) | Value::JsonDiff(_) => {
                return Err(NO_KEY);
            }
        },
    })
}

/// Which rows a condition selects, relative to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Rows after the key.
    After,
    /// Rows before the key, and the row with the key itself.
    Until,
}

/// A column by which rows are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyColumn {
    /// What is compared, as SQL.
    pub(super) expression: String,
    /// Its index among the columns that are asked for.
    pub(super) index: usize,
    pub(super) spelling: Spelling,
}

/// The `ORDER BY` list.
pub(super) fn order_by(columns: &[KeyColumn]) -> String {
    columns.iter().map(|column| column.expression.as_str()).collect::<Vec<_>>().join(", ")
}

/// The SQL condition for rows on this side of a key, or of its first columns; `None` if the key is not one of these columns. For each column: the
/// columns before it are equal and it differs. The optimizers turn that into ranges of an index, which they do not do with a comparison of rows.
pub(super) fn condition(columns: &[KeyColumn], key: &Key, side: Side) -> Option<String> {
    if columns.len() < key.len() || key.is_empty() {
        return None;
    }
    let values = columns.iter().zip(key).map(|(column, value)| column.spelling.sql(value)).collect::<Option<Vec<_>>>()?;
    let operator = if side == Side::After { ">" } else { "<" };
    let mut equal = String::new();
    let mut terms = Vec::new();
    for (index, (column, value)) in columns.iter().zip(&values).enumerate() {
        let is_last = index + 1 == key.len();
        let or_equal = if is_last && side == Side::Until { "=" } else { "" };
        terms.push(format!("{equal}{} {operator}{or_equal} {value}", column.expression));
        equal = format!("{equal}{} = {value} AND ", column.expression);
    }
    Some(format!("({})", terms.join(" OR ")))
}

#[cfg(test)]
mod tests {
    use super::{KeyColumn, Side, Spelling, Value, condition, key_value, order_by};
    use crate::source::mysql::prefeed::field::Sent;

    fn columns() -> [KeyColumn; 3] {
        let text = Spelling::Bytes { before: "_latin1 x'".to_owned(), behind: "'" };
        let column = |expression: &str, spelling| KeyColumn { expression: expression.to_owned(), index: 0, spelling };
        [column("`a`", Spelling::Number), column("`b`", text), column("`c`", Spelling::Temporal)]
    }

    fn key(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn rows_follow_a_key_column_by_column() {
        let columns = columns();
        assert_eq!(order_by(&columns), "`a`, `b`, `c`");
        assert_eq!(
            condition(&columns, &key(&["-1", "e9", "10:00:00"]), Side::After).unwrap(),
            "(`a` > -1 OR `a` = -1 AND `b` > _latin1 x'e9' OR `a` = -1 AND `b` = _latin1 x'e9' AND `c` > '10:00:00')"
        );
        assert_eq!(condition(&columns[..1], &key(&["7"]), Side::Until).unwrap(), "(`a` <= 7)");
        assert_eq!(condition(&columns[1..2], &key(&[""]), Side::After).unwrap(), "(`b` > _latin1 x'')");
        // Ranges may end at the first columns alone.
        assert_eq!(condition(&columns, &key(&["7"]), Side::Until).unwrap(), "(`a` <= 7)");
    }

    #[test]
    fn what_a_checkpoint_holds_is_not_taken_for_sql() {
        let columns = columns();
        for bad in [["1 OR 1", "e9", "1"], ["1", "e", "1"], ["1", "zz", "1"], ["1", "e9", "' OR ''='"], ["", "e9", "1"]] {
            assert_eq!(condition(&columns, &key(&bad), Side::After), None, "{bad:?}");
        }
        assert_eq!((condition(&columns, &key(&[]), Side::After), condition(&columns[..1], &key(&["1", "2"]), Side::After)), (None, None));
    }

    #[test]
    fn a_key_keeps_all_of_its_value() {
        let value = |value| key_value(Some(Sent::Value(value))).unwrap();
        assert_eq!(value(Value::Float(0.1)), "1.0000000149011612e-1");
        assert_eq!((value(Value::Double(-0.5)), value(Value::Unsigned(u64::MAX))), ("-5e-1".to_owned(), u64::MAX.to_string()));
        assert_eq!(value(Value::Characters(b"\xE9a")), "e961");
        assert!(key_value(None).is_err());
    }
}
