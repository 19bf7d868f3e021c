//! Dates and times, and their text.
//!
//! Source: MySQL 9.7 `mysys/my_time.cc` (`my_datetime_packed_from_binary` and its neighbours); MariaDB 11.4 `sql/compat56.cc`.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each part is cut to its bits, or is in its range")]

use super::bytes::{Malformed, Reader, big, little};
use crate::event::{civil, day_number};

/// A date. Each part may be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    /// 0 to 9999.
    pub year: u16,
    /// 0 to 12.
    pub month: u8,
    /// 0 to 31.
    pub day: u8,
}

/// A time of a day, or a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whether it is a span that goes back.
    pub is_negative: bool,
    /// 0 to 838.
    pub hours: u16,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// 0 to 999,999.
    pub micros: u32,
}

/// A point in time, in UTC; all zero for the date 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Seconds since 1970.
    pub seconds: u32,
    /// 0 to 999,999.
    pub micros: u32,
}

impl Instant {
    /// A date and a time in UTC; the date 0 is all zero. `None` for what a `TIMESTAMP` cannot hold.
    #[must_use]
    pub fn of_utc(date: Date, time: Time) -> Option<Self> {
        if date == Date::default() {
            return Some(Self { seconds: 0, micros: 0 });
        }
        let days = day_number(date.year.into(), date.month.into(), date.day.into());
        let seconds = days * 86_400 + i64::from(time.hours) * 3600 + i64::from(time.minutes) * 60 + i64::from(time.seconds);
        Some(Self { seconds: u32::try_from(seconds).ok()?, micros: time.micros })
    }
}

/// How many bytes store this many digits of a second's fraction.
pub(super) const fn fraction_length(digits: u8) -> usize {
    digits.div_ceil(2) as usize
}

/// A fraction of a second: the digits that are stored, an even number of them.
fn fraction(bytes: &[u8]) -> u32 {
    big(bytes) as u32 * 10_u32.pow(6_u32.saturating_sub(2 * bytes.len() as u32))
}

/// `DATE`: 15 bits for the year, 4 for the month, 5 for the day.
pub(super) fn date(bytes: [u8; 3]) -> Date {
    let packed = little(&bytes);
    Date { year: (packed >> 9) as u16, month: (packed >> 5 & 15) as u8, day: (packed & 31) as u8 }
}

/// `DATETIME`: a sign, year times 13 plus month in 17 bits, day in 5, hour in 5, minute and second in 6; then the fraction.
pub(super) fn date_time(bytes: &[u8]) -> Result<(Date, Time), Malformed> {
    let mut reader = Reader::new(bytes, "value: DATETIME");
    let packed = big(reader.take(5)?) & 0x7F_FFFF_FFFF;
    Ok(unpack(packed, fraction(reader.rest())))
}

/// Date and time, without the sign.
pub(super) fn unpack(packed: u64, micros: u32) -> (Date, Time) {
    let months = packed >> 22;
    let date = Date { year: (months / 13) as u16, month: (months % 13) as u8, day: (packed >> 17 & 31) as u8 };
    (date, clock(packed & 0x1_FFFF, micros))
}

/// Hours from bit 12 on, minutes and seconds in 6 bits.
pub(super) const fn clock(packed: u64, micros: u32) -> Time {
    Time {
        is_negative: false,
        hours: (packed >> 12 & 0x3FF) as u16,
        minutes: (packed >> 6 & 63) as u8,
        seconds: (packed & 63) as u8,
        micros,
    }
}

/// `TIME`: one number with its fraction, of which half of the range is negative.
pub(super) fn time(bytes: &[u8]) -> Result<Time, Malformed> {
    let fraction_bytes = bytes.len().checked_sub(3).filter(|length| *length <= 3).ok_or(Malformed("value: TIME"))?;
    let half = 1_i64 << (8 * bytes.len() - 1);
    let value = big(bytes).cast_signed() - half;
    let bits = 8 * fraction_bytes;
    let magnitude = value.unsigned_abs();
    let stored = (magnitude & ((1 << bits) - 1)) as u32;
    let micros = stored * 10_u32.pow(6 - 2 * fraction_bytes as u32);
    Ok(Time { is_negative: value < 0, ..clock(magnitude >> bits, micros) })
}

/// `TIMESTAMP`: seconds since 1970, then the fraction.
pub(super) fn instant(bytes: &[u8]) -> Result<Instant, Malformed> {
    let mut reader = Reader::new(bytes, "value: TIMESTAMP");
    let seconds = u32::from_be_bytes(reader.array()?);
    Ok(Instant { seconds, micros: fraction(reader.rest()) })
}

/// `TIME` as servers before MySQL 5.6 store it: the digits of hours, minutes and seconds as a number.
pub(super) fn old_time(bytes: [u8; 3]) -> Time {
    let number = i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) >> 8;
    let digits = number.unsigned_abs();
    Time {
        is_negative: number < 0,
        hours: (digits / 10_000) as u16,
        minutes: (digits / 100 % 100) as u8,
        seconds: (digits % 100) as u8,
        micros: 0,
    }
}

/// `DATETIME` as servers before MySQL 5.6 store it: its digits as a number.
pub(super) fn old_date_time(bytes: [u8; 8]) -> (Date, Time) {
    let digits = u64::from_le_bytes(bytes);
    let (date, time) = (digits / 1_000_000, digits % 1_000_000);
    let date = Date { year: (date / 10_000) as u16, month: (date / 100 % 100) as u8, day: (date % 100) as u8 };
    let time = Time {
        is_negative: false,
        hours: (time / 10_000) as u16,
        minutes: (time / 100 % 100) as u8,
        seconds: (time % 100) as u8,
        micros: 0,
    };
    (date, time)
}

/// The longest text: `YYYY-MM-DD HH:MM:SS.ffffff+00`.
const TEXT_LENGTH_MAX: usize = 32;

/// Text of a date or a time, in a space of its own.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; TEXT_LENGTH_MAX],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; TEXT_LENGTH_MAX], length: 0 }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// `YYYY-MM-DD`.
    #[must_use]
    pub fn of_date(date: Date) -> Self {
        let mut text = Self::new();
        text.date(date);
        text
    }

    /// `[-]HH:MM:SS[.fraction]`, with three digits of hours if there are as many.
    #[must_use]
    pub fn of_time(time: Time, digits: u8) -> Self {
        let mut text = Self::new();
        if time.is_negative {
            text.push(b"-");
        }
        text.time(time, digits);
        text
    }

    /// `YYYY-MM-DD HH:MM:SS[.fraction]`.
    #[must_use]
    pub fn of_date_time(date: Date, time: Time, digits: u8) -> Self {
        let mut text = Self::of_date(date);
        text.push(b" ");
        text.time(time, digits);
        text
    }

    /// `YYYY-MM-DD HH:MM:SS[.fraction]+00`. The server prints the date 0 for 0, which is no point in time and has no time zone here.
    #[must_use]
    pub fn of_instant(instant: Instant, digits: u8) -> Self {
        if instant == (Instant { seconds: 0, micros: 0 }) {
            return Self::of_date_time(Date::default(), Time::default(), digits);
        }
        let (days, seconds) = (instant.seconds / 86_400, instant.seconds % 86_400);
        let (year, month, day) = civil(days.into());
        let date = Date { year: year as u16, month: month as u8, day: day as u8 };
        let time = Time {
            is_negative: false,
            hours: (seconds / 3600) as u16,
            minutes: (seconds / 60 % 60) as u8,
            seconds: (seconds % 60) as u8,
            micros: instant.micros,
        };
        let mut text = Self::of_date_time(date, time, digits);
        text.push(b"+00");
        text
    }

    fn push(&mut self, bytes: &[u8]) {
        let space = self.bytes[self.length..].iter_mut();
        self.length += space.zip(bytes).map(|(place, byte)| *place = *byte).count();
    }

    fn digits(&mut self, mut number: u32, count: usize) {
        let mut digits = [0; 6];
        for digit in digits[..count].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.push(&digits[..count]);
    }

    fn date(&mut self, date: Date) {
        self.digits(date.year.into(), 4);
        self.push(b"-");
        self.digits(date.month.into(), 2);
        self.push(b"-");
        self.digits(date.day.into(), 2);
    }

    fn time(&mut self, time: Time, digits: u8) {
        self.digits(time.hours.into(), if time.hours < 100 { 2 } else { 3 });
        self.push(b":");
        self.digits(time.minutes.into(), 2);
        self.push(b":");
        self.digits(time.seconds.into(), 2);
        if 0 < digits {
            let digits = digits.min(6);
            self.push(b".");
            self.digits(time.micros / 10_u32.pow(6 - u32::from(digits)), digits.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Instant, Text, Time, date, date_time, instant, old_date_time, old_time, time};

    #[test]
    fn dates_and_times_are_printed_as_the_server_prints_them() {
        let (day, clock) = date_time(&[0x99, 0xB2, 0xBB, 0x7E, 0xFB, 0x01, 0xE2, 0x40]).unwrap();
        assert_eq!(Text::of_date_time(day, clock, 6).as_str(), "2024-02-29 23:59:59.123456");
        assert_eq!(Text::of_date_time(day, clock, 0).as_str(), "2024-02-29 23:59:59");
        assert_eq!(Text::of_date(date([0x5D, 0xD0, 0x0F])).as_str(), "2024-02-29");
        assert_eq!(Text::of_date(date([0, 0, 0])).as_str(), "0000-00-00");
        assert_eq!(Text::of_instant(instant(&[0x65, 0xE1, 0x1A, 0x7F, 12]).unwrap(), 2).as_str(), "2024-02-29 23:59:59.12+00");
        assert_eq!(Text::of_instant(Instant { seconds: 0, micros: 0 }, 3).as_str(), "0000-00-00 00:00:00.000");
        assert_eq!(Text::of_instant(Instant { seconds: u32::MAX, micros: 1 }, 6).as_str(), "2106-02-07 06:28:15.000001+00");
    }

    #[test]
    fn a_time_may_be_negative_and_longer_than_a_day() {
        let print = |bytes: &[u8], digits| Text::of_time(time(bytes).unwrap(), digits).as_str().to_owned();
        assert_eq!(print(&[0x80, 0, 0], 0), "00:00:00");
        assert_eq!(print(&[0xB4, 0x6E, 0xFB], 0), "838:59:59");
        assert_eq!(print(&[0x4B, 0x91, 0x05], 0), "-838:59:59");
        assert_eq!(print(&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 6), "-00:00:00.000001");
        assert_eq!(print(&[0x80, 0, 0, 0x13, 0x88], 3), "00:00:00.500");
        assert!(time(&[1, 2]).is_err() && time(&[0; 7]).is_err());
    }

    #[test]
    fn old_formats_hold_their_digits() {
        let number = |number: i32| old_time(number.to_le_bytes()[..3].try_into().unwrap());
        assert_eq!(number(-8_385_959), Time { is_negative: true, hours: 838, minutes: 59, seconds: 59, micros: 0 });
        let (day, clock) = old_date_time(20_240_229_235_959_u64.to_le_bytes());
        assert_eq!(Text::of_date_time(day, clock, 0).as_str(), "2024-02-29 23:59:59");
    }
}
