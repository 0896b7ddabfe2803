//! The machine's clock, as the number that records and messages carry.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present time of the machine's clock, in milliseconds since the Unix epoch.
///
/// A clock before 1970 reads as 0: certificates then fail as "not yet valid" and nothing panics.
pub fn unix_millis() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_milliseconds_since_1970() {
        let before = unix_millis();
        // 2024-01-01 and 2200-01-01.
        assert!((1_704_067_200_000..7_258_118_400_000).contains(&before), "{before}");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(unix_millis() >= before + 4);
    }
}
