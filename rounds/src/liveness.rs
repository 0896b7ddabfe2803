//! What may be lost at a restart: when clients were last heard of and how far their work is.

use std::collections::BTreeMap;

use rondo_proto::ClientId;

use crate::key::{Millis, WorkKey};

/// Liveness and progress, in memory only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Liveness {
    /// The first time of this process; a client is not taken for lost because the coordinator was
    /// down.
    since: Option<Millis>,
    /// The latest time of this process.
    latest: Millis,
    seen: BTreeMap<ClientId, Millis>,
    progress: BTreeMap<ClientId, Progress>,
}

/// How far a client is with one piece of work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progress {
    pub(crate) work: WorkKey,
    pub(crate) state: String,
    pub(crate) step: u32,
    pub(crate) steps: u32,
    pub(crate) loss: Option<f64>,
}

impl Liveness {
    /// Takes note of the time. When the clock was set back, what was heard "in the future" was
    /// heard just now.
    pub(crate) fn tick(&mut self, now: Millis) {
        if now < self.latest {
            self.seen.values_mut().for_each(|seen| *seen = (*seen).min(now));
            self.since = self.since.map(|since| since.min(now));
        }
        self.since.get_or_insert(now);
        self.latest = now;
    }

    /// Records that the client was heard of.
    pub(crate) fn saw(&mut self, client: &ClientId, now: Millis) {
        self.seen.insert(client.clone(), now);
    }

    /// When the client was last heard of in this process.
    pub(crate) fn seen(&self, client: &ClientId) -> Option<Millis> {
        self.seen.get(client).copied()
    }

    /// Whether the client was heard of within `silence`.
    pub(crate) fn is_reachable(&self, client: &ClientId, now: Millis, silence: Millis) -> bool {
        let last = self.seen.get(client).copied().or(self.since).unwrap_or(now);
        now.saturating_sub(last) < silence
    }

    /// The client reported progress.
    pub(crate) fn report(&mut self, client: &ClientId, progress: Progress) {
        self.progress.insert(client.clone(), progress);
    }

    /// Progress of exactly this work.
    pub(crate) fn progress(&self, client: &ClientId, work: &WorkKey) -> Option<&Progress> {
        self.progress.get(client).filter(|progress| progress.work == *work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Millis = 1000;

    fn client() -> ClientId {
        ClientId::new("a").unwrap()
    }

    #[test]
    fn silence_makes_a_client_unreachable() {
        let mut liveness = Liveness::default();
        liveness.tick(0);
        liveness.saw(&client(), 0);
        assert!(liveness.is_reachable(&client(), 999, SILENCE));
        assert!(!liveness.is_reachable(&client(), 1000, SILENCE));
    }

    #[test]
    fn nobody_is_lost_because_the_coordinator_was_away() {
        let mut liveness = Liveness::default();
        liveness.tick(50_000);
        assert!(liveness.is_reachable(&client(), 50_500, SILENCE));
        assert!(!liveness.is_reachable(&client(), 51_000, SILENCE));
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_reachable_for_long() {
        let mut liveness = Liveness::default();
        liveness.tick(1_000_000);
        liveness.saw(&client(), 1_000_000);
        liveness.tick(0);
        assert!(liveness.is_reachable(&client(), 999, SILENCE));
        assert!(!liveness.is_reachable(&client(), 1000, SILENCE));
    }
}
