//! Writes timestamps as RFC 3339 text.

use crate::event::{Timestamp, civil};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Appends the timestamp as a JSON string, or `null` where RFC 3339 cannot express it.
pub(super) fn write(timestamp: Timestamp, out: &mut Vec<u8>) {
    let Some(text) = rfc3339(timestamp) else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    out.extend_from_slice(&text);
    out.push(b'"');
}

/// The timestamp in UTC, with six digits for microseconds. `None` outside the years 0 to 9999, which RFC 3339 cannot express.
pub(in crate::format) fn rfc3339(timestamp: Timestamp) -> Option<[u8; 27]> {
    let (year, month, day) = civil(timestamp.0.div_euclid(MICROS_PER_DAY));
    let micros = timestamp.0.rem_euclid(MICROS_PER_DAY);
    let (second, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], second / 3600);
    digits(&mut text[14..16], second / 60 % 60);
    digits(&mut text[17..19], second % 60);
    digits(&mut text[20..26], fraction);
    Some(text)
}

fn digits(text: &mut [u8], mut number: i64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit of a non-negative number");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::event::Timestamp;

    fn written(micros: i64) -> String {
        let mut out = Vec::new();
        write(Timestamp(micros), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_are_written_in_utc_with_six_digits() {
        for (micros, text) in [
            (0, r#""1970-01-01T00:00:00.000000Z""#),
            (-1, r#""1969-12-31T23:59:59.999999Z""#),
            (1_763_882_728_123_456, r#""2025-11-23T07:25:28.123456Z""#),
            (951_782_400_000_000, r#""2000-02-29T00:00:00.000000Z""#),
            (-62_167_219_200_000_000, r#""0000-01-01T00:00:00.000000Z""#),
            (253_402_300_799_999_999, r#""9999-12-31T23:59:59.999999Z""#),
            (253_402_300_800_000_000, "null"),
            (i64::MAX, "null"),
            (i64::MIN, "null"),
        ] {
            assert_eq!(written(micros), text);
        }
    }
}
