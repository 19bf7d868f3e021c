//! Writes timestamps as RFC 3339 text.

use crate::event::Timestamp;

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

/// Year, month and day of a day number since 1970-01-01. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`. Its years begin in March, so that the leap day is the last day.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{civil, write};
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

    #[test]
    fn days_follow_the_calendar() {
        let mut days = -719_528; // 0000-01-01
        for year in 0..=2400_i64 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, length) in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
                for day in 1..=length {
                    assert_eq!(civil(days), (year, i64::try_from(month).unwrap() + 1, day));
                    days += 1;
                }
            }
        }
    }
}
