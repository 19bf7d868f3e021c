//! Splits a table into key ranges, so that several readers read it at the same time.

use super::estimate::Estimate;
use super::order::Spelling;
use super::reader::Reader;
use super::table::Table;
use crate::source::KeyRange;
use crate::source::mysql::error::Error;

/// The ranges of a table. A small table and a query stay one range, and so does a table whose key does not begin with a whole number: only of
/// these feedline knows what lies between two of them.
pub(super) async fn split(table: &Table, size: Estimate, readers: usize, reader: &mut Reader) -> Result<Vec<KeyRange>, Error> {
    let whole = vec![KeyRange::default()];
    let first = table.key.first().filter(|first| first.spelling == Spelling::Number && !table.is_query);
    let (Some(first), Some(parts)) = (first, KeyRange::parts(size.bytes, readers)) else { return Ok(whole) };
    let bounds = format!("SELECT MIN({0}), MAX({0}) FROM {1}", first.expression, table.from);
    let rows = reader.session().query(&bounds).await?;
    let bound = |index| rows.first().and_then(|row| row.text(index).parse::<i128>().ok());
    let Some((low, high)) = bound(0).zip(bound(1)) else { return Ok(whole) };
    let boundaries = between(low, high, parts);
    Ok(KeyRange::between(boundaries.into_iter().map(|number| vec![number.to_string()]).collect()))
}

/// Numbers that split those from `low` to `high` into equal parts.
fn between(low: i128, high: i128, parts: usize) -> Vec<i128> {
    let parts = i128::try_from(parts).unwrap_or(1).max(1);
    let mut numbers: Vec<_> = (1..parts).map(|part| low + (high - low) * part / parts).collect();
    numbers.dedup();
    numbers.retain(|number| low < *number);
    numbers
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn numbers_lie_between_the_first_and_the_last() {
        assert_eq!(between(0, 100, 4), [25, 50, 75]);
        assert_eq!(between(i64::MIN.into(), u64::MAX.into(), 2), [4_611_686_018_427_387_903]);
        assert_eq!((between(1, 2, 4), between(5, 5, 4), between(1, 9, 1)), (Vec::new(), Vec::new(), Vec::new()));
    }
}
