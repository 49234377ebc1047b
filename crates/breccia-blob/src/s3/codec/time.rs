//! The ways S3 writes a moment: in signatures, in XML, in HTTP headers.
//!
//! It reads no clock; moments are milliseconds since 1970, UTC. Invariant: a moment that is written
//! and read again is the same, as far as the form is precise.

use std::time::{Duration, SystemTime};

/// The last moment with a year of four digits; later ones are written as this one.
pub const LAST_UNIX_MS: u64 = 253_402_300_799_999;

const DAY_S: u64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const CYCLE_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that a leap day is their last.
const EPOCH_DAYS: u64 = 719_468;

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u64,
}

impl Civil {
    /// `20130524`, with room for the time behind it.
    fn date(&self) -> String {
        let mut text = String::with_capacity(16);
        for (number, count) in [(self.year, 4), (self.month, 2), (self.day, 2)] {
            push_digits(&mut text, number, count);
        }
        text
    }

    fn from_unix_ms(unix_ms: u64) -> Civil {
        let unix_ms = unix_ms.min(LAST_UNIX_MS);
        let seconds = unix_ms / 1000;
        let days = seconds / DAY_S + EPOCH_DAYS;
        let of_cycle = days % CYCLE_DAYS;
        // The corrections take the leap days out: one in 4 years, none in 100, one in 400.
        let year_of_cycle =
            (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        // From March on, five months have 153 days.
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Civil {
            year: days / CYCLE_DAYS * 400 + year_of_cycle + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            hour: seconds % DAY_S / 3600,
            minute: seconds % 3600 / 60,
            second: seconds % 60,
            millisecond: unix_ms % 1000,
        }
    }

    fn unix_ms(&self) -> Option<u64> {
        let leap = self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let month_days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        let in_day = self.hour < 24 && self.minute < 60 && self.second < 60;
        if !in_day || self.day == 0 || self.day > month_days || !(1970..=9999).contains(&self.year)
        {
            return None;
        }
        let (year, march_month) = if self.month > 2 {
            (self.year, self.month - 3)
        } else {
            (self.year - 1, self.month + 9)
        };
        let year_of_cycle = year % 400;
        let of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let of_cycle = 365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100 + of_year;
        let days = year / 400 * CYCLE_DAYS + of_cycle - EPOCH_DAYS;
        let seconds = days * DAY_S + self.hour * 3600 + self.minute * 60 + self.second;
        Some(seconds * 1000 + self.millisecond)
    }
}

/// `20130524T000000Z`
pub fn amz_date(unix_ms: u64) -> String {
    let at = Civil::from_unix_ms(unix_ms);
    let mut text = at.date();
    text.push('T');
    for number in [at.hour, at.minute, at.second] {
        push_digits(&mut text, number, 2);
    }
    text.push('Z');
    text
}

/// `20130524`
pub fn scope_date(unix_ms: u64) -> String {
    Civil::from_unix_ms(unix_ms).date()
}

/// Pushes the last `count` decimal digits of a number, two or four. Not by `format!`: every request is signed
/// and verified with dates.
fn push_digits(text: &mut String, number: u64, count: u32) {
    const DIGITS: &str = "\
        0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
        5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    if count == 4 {
        push_digits(text, number / 100, 2);
    }
    let at = usize::try_from(number % 100)
        .unwrap_or_default()
        .saturating_mul(2);
    text.push_str(DIGITS.get(at..at.saturating_add(2)).unwrap_or_default());
}

/// `2026-01-02T03:04:05.678Z`
pub fn iso8601(unix_ms: u64) -> String {
    let at = Civil::from_unix_ms(unix_ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year, at.month, at.day, at.hour, at.minute, at.second, at.millisecond
    )
}

/// `Fri, 24 May 2013 00:00:00 GMT`
pub fn http_date(unix_ms: u64) -> String {
    let since = Duration::from_millis(unix_ms.min(LAST_UNIX_MS));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}

/// Reads `20130524T000000Z`.
pub fn parse_amz_date(text: &str) -> Option<u64> {
    let [year, month, day, hour, minute, second] = fields(text, b"4_2_2_T2_2_2_Z")?;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        millisecond: 0,
    };
    civil.unix_ms()
}

/// Reads `2026-01-02T03:04:05.678Z`, with a fraction of 1 to 9 digits or without one.
pub fn parse_iso8601(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, rest)) => (whole, rest.strip_suffix('Z')?),
        None => (text.strip_suffix('Z')?, "0"),
    };
    let digits = fraction.len();
    if !(1..=9).contains(&digits) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction.chars().chain("00".chars()).take(3).collect();
    let [year, month, day, hour, minute, second] = fields(whole, b"4_-2_-2_T2_:2_:2_")?;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        millisecond: padded.parse().ok()?,
    };
    civil.unix_ms()
}

/// Reads any of the three forms of an HTTP date.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let at = httpdate::parse_http_date(text).ok()?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Six numbers by a pattern: a digit is a number's width, `_` ends it, the rest is literal.
fn fields(text: &str, pattern: &[u8]) -> Option<[u64; 6]> {
    let mut rest = text.as_bytes();
    let mut numbers = [0; 6];
    let mut slots = numbers.iter_mut();
    for mark in pattern {
        match mark {
            b'_' => {}
            b'2' | b'4' => {
                let (digits, tail) = rest.split_at_checked(usize::from(mark - b'0'))?;
                let slot = slots.next()?;
                for digit in digits {
                    if !digit.is_ascii_digit() {
                        return None;
                    }
                    *slot = *slot * 10 + u64::from(digit - b'0');
                }
                rest = tail;
            }
            literal => rest = rest.strip_prefix(&[*literal])?,
        }
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_written_and_read() {
        let check = |unix_ms: u64, amz: &str, iso: &str, http: &str| {
            assert_eq!(amz_date(unix_ms), amz);
            assert_eq!(scope_date(unix_ms), amz.split('T').next().unwrap());
            assert_eq!(iso8601(unix_ms), iso);
            assert_eq!(http_date(unix_ms), http);
            assert_eq!(parse_amz_date(amz), Some(unix_ms / 1000 * 1000));
            assert_eq!(parse_iso8601(iso), Some(unix_ms));
            assert_eq!(parse_http_date(http), Some(unix_ms / 1000 * 1000));
        };
        check(
            0,
            "19700101T000000Z",
            "1970-01-01T00:00:00.000Z",
            "Thu, 01 Jan 1970 00:00:00 GMT",
        );
        check(
            1_369_353_600_000,
            "20130524T000000Z",
            "2013-05-24T00:00:00.000Z",
            "Fri, 24 May 2013 00:00:00 GMT",
        );
        check(
            951_827_696_789,
            "20000229T123456Z",
            "2000-02-29T12:34:56.789Z",
            "Tue, 29 Feb 2000 12:34:56 GMT",
        );
        check(
            LAST_UNIX_MS,
            "99991231T235959Z",
            "9999-12-31T23:59:59.999Z",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        );
        assert_eq!(amz_date(u64::MAX), "99991231T235959Z");
    }

    #[test]
    fn fractions_may_be_short_long_or_absent() {
        let check = |text: &str, millisecond: u64| {
            assert_eq!(parse_iso8601(text), Some(1000 + millisecond), "{text}");
        };
        check("1970-01-01T00:00:01Z", 0);
        check("1970-01-01T00:00:01.5Z", 500);
        check("1970-01-01T00:00:01.067Z", 67);
        check("1970-01-01T00:00:01.123456789Z", 123);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "20130524",
            "20130524T000000",
            "20130524T000000Zx",
            "20130524T240000Z",
            "20130524T006000Z",
            "20130229T000000Z",
            "21000229T000000Z",
            "20131324T000000Z",
            "20130024T000000Z",
            "20130500T000000Z",
            "19691231T235959Z",
            "+0130524T000000Z",
            "2013052éT00000Z",
        ] {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
        for text in ["2013-05-24", "2013-05-24T00:00:00", "2013-05-24T00:00:00.Z"] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_survives_the_round_trip(unix_ms in 0..=LAST_UNIX_MS) {
            prop_assert_eq!(parse_iso8601(&iso8601(unix_ms)), Some(unix_ms));
            prop_assert_eq!(parse_amz_date(&amz_date(unix_ms)), Some(unix_ms / 1000 * 1000));
            prop_assert_eq!(parse_http_date(&http_date(unix_ms)), Some(unix_ms / 1000 * 1000));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            let _answers = (parse_amz_date(&text), parse_iso8601(&text), parse_http_date(&text));
        }
    }
}
