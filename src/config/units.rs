//! Parses and writes sizes and periods, such as `64MiB` and `500ms`.

use std::num::NonZeroU64;
use std::time::Duration;

const SIZES: [(&str, u64); 7] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

const PERIODS: [(&str, u64); 5] = [("h", 3_600_000), ("min", 60_000), ("ms", 1), ("s", 1_000), ("m", 60_000)];

/// Splits `64 MiB` into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim_start()))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Parses a size in bytes; `None` without a known unit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZES)
}

/// Parses a rate in bytes per second, such as `20MiB/s`; `None` without a known unit, or for 0.
#[must_use]
pub fn parse_rate(text: &str) -> Option<NonZeroU64> {
    parse_size(text.trim_end().strip_suffix("/s")?).and_then(NonZeroU64::new)
}

/// Parses a period; `None` without a known unit.
#[must_use]
pub fn parse_period(text: &str) -> Option<Duration> {
    scaled(text, &PERIODS).map(Duration::from_millis)
}

/// Writes a size in the largest binary unit that gives a whole number.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (unit, factor) = SIZES[..3].iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)).unwrap_or(&SIZES[6]);
    format!("{}{unit}", bytes / factor)
}

/// Writes a period in the largest unit that gives a whole number.
#[must_use]
pub fn period(period: Duration) -> String {
    let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = [("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)]
        .into_iter()
        .find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", millis / factor)
}

#[cfg(test)]
mod tests {
    use super::{parse_period, parse_rate, parse_size, period, size};
    use std::time::Duration;

    #[test]
    fn a_rate_is_a_size_a_second() {
        assert_eq!(parse_rate("20MiB/s").map(u64::from), Some(20 << 20));
        for wrong in ["20MiB", "0B/s", "/s", "20/s"] {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_without_a_unit_is_refused() {
        for (text, expected) in [
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("10kB", Some(10_000)),
            ("64", None),
            ("64MIB", None),
            ("-1B", None),
            ("", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn a_period_without_a_unit_is_refused() {
        for (text, expected) in [("500ms", Some(500)), ("1min", Some(60_000)), ("20 s", Some(20_000)), ("20", None), ("1.5s", None)] {
            assert_eq!(parse_period(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for bytes in [0, 1, 1023, 1024, 32 << 20, 3 << 30] {
            assert_eq!(parse_size(&size(bytes)), Some(bytes));
        }
        for millis in [0, 1, 500, 1000, 60_000, 90_000, 7_200_000] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_period(&period(length)), Some(length));
        }
    }
}
