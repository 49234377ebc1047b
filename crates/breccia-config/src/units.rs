//! Durations and sizes as people write them.
//!
//! Whole numbers only: `"1.5s"` is `"1500ms"`. Invariant: what `show_*` prints, `parse_*` reads
//! back as the same value.

use std::time::Duration;

/// `"500ms"`, `"1s"`, `"2m"`, `"1h"`, `"7d"`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

/// `"64KiB"`, `"1MiB"`, `"10MB"`, `"512"`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The number in front, and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// A duration in its largest whole unit.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    for (factor, unit) in units {
        if ms >= factor && ms.is_multiple_of(factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

/// A size in its largest whole binary unit.
pub(crate) fn show_size(size: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let factor = 1_u64 << shift;
        if size >= factor && size.is_multiple_of(factor) {
            return format!("{}{unit}", size / factor);
        }
    }
    size.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_whole_number_and_a_unit() {
        let check = |text, wanted_ms: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                wanted_ms.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("500ms", Some(500));
        check("1s", Some(1_000));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("7d", Some(604_800_000));
        check("0s", Some(0));
        for text in [
            "",
            "s",
            "5",
            "1.5s",
            "-1s",
            " 1s",
            "1 s",
            "1S",
            "1w",
            "99999999999999999999s",
        ] {
            check(text, None);
        }
        check("18446744073709551615h", None);
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        let check = |text, wanted: Option<u64>| assert_eq!(parse_size(text), wanted, "{text:?}");
        check("512", Some(512));
        check("512B", Some(512));
        check("64KiB", Some(65_536));
        check("64kib", Some(65_536));
        check("1MiB", Some(1_048_576));
        check("10MB", Some(10_000_000));
        check("2GiB", Some(2_147_483_648));
        check("1TB", Some(1_000_000_000_000));
        for text in [
            "",
            "KiB",
            "1.5MiB",
            "-1",
            "1 MiB",
            "1XB",
            "1K",
            "18446744073709551615KB",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [
            0,
            1,
            999,
            1_000,
            1_500,
            60_000,
            3_600_000,
            90_000_000,
            604_800_000,
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for size in [
            0,
            1,
            1_000,
            1_024,
            1_536,
            1 << 20,
            3 << 30,
            1 << 40,
            u64::MAX,
        ] {
            assert_eq!(parse_size(&show_size(size)), Some(size));
        }
    }
}
