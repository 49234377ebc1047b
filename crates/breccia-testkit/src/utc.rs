//! Points in time as the texts that signatures and JSON want.
//!
//! Not a calendar library: UTC only, years 1970 to 9999. Invariant: the same milliseconds give the
//! same fields in every form.

use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time, split into what a text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    millisecond: u64,
    days: u64,
}

impl Utc {
    pub(crate) fn now() -> Utc {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since.map_or(0, |since| since.as_millis());
        Utc::from_unix_ms(u64::try_from(ms).unwrap_or_default())
    }

    /// So many seconds later, or earlier.
    pub(crate) fn plus_seconds(self, seconds: i64) -> Utc {
        let own = (self.days * 86_400 + self.second_of_day) * 1_000 + self.millisecond;
        Utc::from_unix_ms(own.saturating_add_signed(seconds * 1_000))
    }

    /// Counts years from March, so that the leap day is the last of its year.
    pub(crate) fn from_unix_ms(ms: u64) -> Utc {
        let days = ms / 86_400_000;
        let since_march_0 = days + 719_468;
        let era = since_march_0 / 146_097;
        let day_of_era = since_march_0 % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Utc {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            second_of_day: ms / 1_000 % 86_400,
            millisecond: ms % 1_000,
            days,
        }
    }

    fn clock(self) -> (u64, u64, u64) {
        let second = self.second_of_day;
        (second / 3_600, second / 60 % 60, second % 60)
    }

    /// `20260131T235959Z`, the form of AWS.
    pub(crate) fn compact(self) -> String {
        let (hour, minute, second) = self.clock();
        let (year, month, day) = (self.year, self.month, self.day);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// `2026-01-31T23:59:59.123Z`.
    pub(crate) fn rfc3339(self) -> String {
        let (hour, minute, second) = self.clock();
        let (year, month, day, ms) = (self.year, self.month, self.day, self.millisecond);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }

    /// `Sat, 31 Jan 2026 23:59:59 GMT`, the form of HTTP.
    pub(crate) fn http(self) -> String {
        let names = |list: &'static str, index: u64| {
            let at = usize::try_from(index).unwrap_or_default() * 3;
            list.get(at..at + 3).unwrap_or_default()
        };
        let weekday = names("ThuFriSatSunMonTueWed", self.days % 7);
        let month = names("JanFebMarAprMayJunJulAugSepOctNovDec", self.month - 1);
        let (hour, minute, second) = self.clock();
        let (year, day) = (self.year, self.day);
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

#[cfg(test)]
mod tests {
    use super::Utc;

    #[test]
    fn a_point_in_time_reads_the_same_in_every_form() {
        let check = |ms, compact, http| {
            let utc = Utc::from_unix_ms(ms);
            assert_eq!(
                (utc.compact().as_str(), utc.http().as_str()),
                (compact, http)
            );
        };
        check(0, "19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT");
        check(
            951_827_696_000,
            "20000229T123456Z",
            "Tue, 29 Feb 2000 12:34:56 GMT",
        );
        check(
            1_704_067_199_000,
            "20231231T235959Z",
            "Sun, 31 Dec 2023 23:59:59 GMT",
        );
        check(
            1_709_251_200_000,
            "20240301T000000Z",
            "Fri, 01 Mar 2024 00:00:00 GMT",
        );
        assert_eq!(
            Utc::from_unix_ms(784_111_777_042).rfc3339(),
            "1994-11-06T08:49:37.042Z"
        );
    }
}
