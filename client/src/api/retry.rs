//! Trying again: exponential pauses with jitter, so that a coordinator that
//! comes back is not met by all clients at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ApiError;

/// Growing pauses.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that double from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next pause: drawn evenly between half of the present length and all of it.
    pub fn pause(&mut self) -> Duration {
        let length = self.next.min(self.most);
        self.next = length.saturating_mul(2).min(self.most);
        // Without randomness the pause is only less spread out.
        let share = getrandom::u32().map_or(1.0, |drawn| f64::from(drawn) / f64::from(u32::MAX));
        length.mul_f64(0.5 + 0.5 * share)
    }

    /// Starts again from the first length; call it after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// How often and how long a call is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// Give up after so long; `None` = never.
    pub within: Option<Duration>,
}

impl Retry {
    /// Calls until it succeeds, fails for good, or the
    /// time is over; the last error is the answer then.
    ///
    /// # Errors
    /// A call fails for good, or the next pause would end after `within`.
    pub async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let end = self.within.map(|within| Instant::now() + within);
        let mut backoff = self.backoff();
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) if !error.is_passing() => return Err(error),
                Err(error) => error,
            };
            let pause = backoff.pause();
            if end.is_some_and(|end| Instant::now() + pause >= end) {
                return Err(error);
            }
            tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "the coordinator does not answer");
            sleep(pause).await;
        }
    }

    /// The pauses alone.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(self.first, self.most)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rondo_proto::error::ErrorCode;

    use super::*;

    fn error(code: ErrorCode) -> ApiError {
        ApiError { call: "poll", code, message: "no".to_owned(), hint: None }
    }

    fn quick(within: Option<Duration>) -> Retry {
        Retry { first: Duration::from_millis(1), most: Duration::from_millis(4), within }
    }

    #[test]
    fn pauses_double_up_to_the_most_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for length in [1, 2, 4, 8, 10, 10] {
            let pause = backoff.pause().as_secs_f64();
            assert!((length as f64 * 0.5..=length as f64).contains(&pause), "{pause} for {length}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn passing_errors_are_tried_again_and_others_are_not() {
        let calls = AtomicU32::new(0);
        let answer = quick(None)
            .call(|| async {
                match calls.fetch_add(1, Ordering::SeqCst) {
                    0..3 => Err(error(ErrorCode::Unavailable)),
                    n => Ok(n),
                }
            })
            .await;
        assert_eq!(answer, Ok(3));
        let refused = quick(None).call(|| async { Err::<(), _>(error(ErrorCode::NotFound)) }).await;
        assert_eq!(refused, Err(error(ErrorCode::NotFound)));
        let retry = quick(Some(Duration::from_millis(30)));
        let late = retry.call(|| async { Err::<(), _>(error(ErrorCode::Unavailable)) }).await;
        assert_eq!(late, Err(error(ErrorCode::Unavailable)));
    }
}
