//! The clock behind a trait, so that tests may hold it.

use std::time::Duration;

use rondo_proto::clock::unix_millis;

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
        unix_millis()
    }
}

/// Time left from `now` until `wake`; zero when it has passed.
pub fn time_left(now: Millis, wake: Millis) -> Duration {
    Duration::from_millis(u64::try_from(wake.saturating_sub(now)).unwrap_or(0))
}
