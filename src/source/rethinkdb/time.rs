//! Spells a point in time of the server.

use crate::event::civil;

const MILLIS_A_DAY: i64 = 86_400_000;
const MILLIS_A_MINUTE: i64 = 60_000;

/// `2026-11-30T17:41:06.123+02:00`: the time of a `TIME` value in its own time zone. `None` where it cannot be spelled so: outside the years
/// 0 to 9999, or with a time zone that is no offset.
///
/// `epoch` is seconds since 1970 in decimal digits; RethinkDB keeps milliseconds of it.
pub(super) fn text(epoch: &str, zone: &str) -> Option<String> {
    let seconds: f64 = epoch.parse().ok().filter(|seconds: &f64| seconds.abs() < 1e12)?;
    #[expect(clippy::cast_possible_truncation, reason = "below 10^15")]
    let millis = (seconds * 1000.0).round() as i64;
    let local = millis + offset_minutes(zone)? * MILLIS_A_MINUTE;
    let (year, month, day) = civil(local.div_euclid(MILLIS_A_DAY));
    let of_day = local.rem_euclid(MILLIS_A_DAY);
    let (hour, minute, second, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}{zone}"))
}

/// The minutes of `+02:00`.
fn offset_minutes(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str| {
        let is_fit = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_fit.then(|| digits.parse::<i64>().ok()).flatten()
    };
    Some(sign * (number(hours)? * 60 + number(minutes)?))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn a_time_is_spelled_in_its_own_zone() {
        assert_eq!(
            text("1795396066.123", "+02:00").unwrap(),
            "2026-11-23T04:27:46.123+02:00".replace("04:27:46", &clock(1_795_396_066 + 7200))
        );
        assert_eq!(text("0", "+00:00").unwrap(), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(text("-0.001", "-01:30").unwrap(), "1969-12-31T22:29:59.999-01:30");
        assert_eq!(text("951782400", "+00:00").unwrap(), "2000-02-29T00:00:00.000+00:00");
    }

    fn clock(seconds: i64) -> String {
        format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }

    #[test]
    fn what_cannot_be_spelled_is_left_as_it_is() {
        for (epoch, zone) in
            [("253402300800", "+00:00"), ("x", "+00:00"), ("0", "Z"), ("0", "+2:00"), ("0", ""), ("1e300", "+00:00"), ("0", "é")]
        {
            assert_eq!(text(epoch, zone), None, "{epoch} {zone}");
        }
    }
}
