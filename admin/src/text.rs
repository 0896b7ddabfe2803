//! Numbers, times and sizes as a person reads them.

use std::time::Duration;

use time::OffsetDateTime;

fn utc(ms: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok().filter(|_| ms > 0)
}

/// A day and time in UTC; empty for 0, which stands for "never".
pub fn moment(ms: i64) -> String {
    let text = |time: OffsetDateTime| format!("{} {} UTC", time.date(), clock(ms));
    utc(ms).map(text).unwrap_or_default()
}

/// A time of day in UTC.
pub fn clock(ms: i64) -> String {
    let text = |time: OffsetDateTime| format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    utc(ms).map(text).unwrap_or_default()
}

/// How long ago, in the largest unit that fits; "never" for 0.
pub fn ago(ms: i64, now_ms: i64) -> String {
    if ms <= 0 { "never".to_owned() } else { format!("{} ago", span(now_ms.saturating_sub(ms).max(0))) }
}

/// A length of time in the largest unit that fits.
pub fn span(ms: i64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A size in bytes.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Bytes on the wire beside what the layout's formula gives.
pub fn size_against(bytes: u64, formula: u64) -> String {
    match (bytes, formula) {
        (0, 0) => "-".to_owned(),
        (bytes, 0) => size(bytes),
        (bytes, formula) => {
            let over = (bytes as f64 - formula as f64) / formula as f64 * 100.0;
            format!("{} ({over:+.1} %)", size(bytes))
        }
    }
}

/// An aggregation error.
pub fn relative_error(error: Option<f64>) -> String {
    error.map_or_else(|| "-".to_owned(), |error| format!("{error:.1e}"))
}

/// Seconds as "90s", "15m", "24h" or "7d"; a bare number is seconds.
///
/// # Errors
/// The text is no whole number with one of these units, is 0, or is too large.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is no length of time: write 90s, 15m, 24h or 7d");
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(problem()),
    };
    let count: u64 = digits.parse().map_err(|_| problem())?;
    count.checked_mul(factor).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_spans_read_well() {
        assert_eq!(
            (size(0), size(1023), size(1536), size(5 << 30)),
            ("0 B".into(), "1023 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
        assert_eq!(size_against(1030, 1000), "1.0 KiB (+3.0 %)");
        assert_eq!((moment(0), moment(1_700_000_000_000)), (String::new(), "2023-11-14 22:13:20 UTC".to_owned()));
        assert_eq!(ago(0, 5), "never");
        assert_eq!((ago(1000, 61_000), span(7_200_000)), ("60 s ago".to_owned(), "2 h".to_owned()));
        assert_eq!(relative_error(Some(3.14e-8)), "3.1e-8");
    }

    #[test]
    fn lengths_of_time_are_parsed_or_refused() {
        assert_eq!(parse_span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "h", "0s", "-1s", "1 h", "1w", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
