//! The clock behind a trait, so that tests may hold it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The present time, Unix milliseconds.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        // A clock before 1970 reads as 0: certificates then fail as "not yet valid" instead of this call failing.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Time left from `now` until `wake`; zero when it has passed.
pub fn until(now: Millis, wake: Millis) -> Duration {
    Duration::from_millis(u64::try_from(wake.saturating_sub(now)).unwrap_or(0))
}
