//! The executor of a simulated federation.

use rondo_rounds::{Input, Reply, WorkKey};

use crate::world::{Outcome, World};

/// The ledger's head after a release, as the simulated executor has it.
pub(crate) fn head(work: &WorkKey) -> String {
    format!("head of {} {} {}", work.run, work.round, work.attempt)
}

impl World {
    /// Whether the engine waits for the result of this work.
    pub(crate) fn awaits(&self, work: &WorkKey) -> bool {
        let Some(summary) = self.engine.run_summary(&work.run) else { return false };
        let open = summary.open.as_ref().map(|open| (open.round, open.attempt));
        summary.phase == "aggregating" && open == Some((work.round, work.attempt))
    }

    /// The executor takes the oldest order.
    pub(crate) fn aggregate(&mut self) -> Option<Input> {
        let plan = self.queue.pop_front()?;
        let weights: f64 = plan.updates.iter().map(|update| update.weight).sum();
        let by_coins = self.setup.is_central() && self.setup.by_coins;
        let is_whole = (weights - 1.0).abs() < 1e-9 || (by_coins && plan.updates.is_empty());
        assert!(is_whole, "weights sum to {weights}");
        assert!(plan.updates.is_sorted_by(|a, b| a.client < b.client), "updates are not in client order");
        let start_adapter = self.start_adapter().map(|adapter| adapter.digest.parse().unwrap());
        assert_eq!(plan.start_adapter, start_adapter);
        let needed = plan.published.iter().chain(&plan.frozen).chain(&plan.server).chain(&plan.start_adapter);
        let missing = needed.into_iter().find(|digest| !self.blobs.contains_key(digest));
        assert!(missing.is_none() || !self.awaits(&plan.work), "the plan needs {missing:?}");
        // An order that nobody waits for any more, of an attempt that is over or given twice and
        // carried out, may find what it needs dropped; its result would be let go anyway.
        if missing.is_some() {
            return Some(Input::AggregateFailed { work: plan.work, reason: "what it needs is gone".to_owned() });
        }
        let sum = plan.updates.iter().map(|update| self.blobs.get(&update.digest).copied()).sum::<Option<u64>>();
        let Some(sum) = sum else {
            return Some(Input::AggregateFailed { work: plan.work, reason: "updates are gone".to_owned() });
        };
        let trains = plan.kind == rondo_rounds::RoundKind::Train;
        assert_eq!(plan.release.is_some(), (trains || self.setup.pays()) && self.setup.is_central());
        if plan.release.is_some() {
            match self.step(Input::Releasing { work: plan.work.clone() }) {
                Outcome::Answered(Reply::Release { granted: true }) => {
                    self.drawn += 1;
                    self.audit();
                }
                Outcome::Answered(Reply::Release { granted: false }) | Outcome::Rejected(_) | Outcome::Crashed => {
                    return None;
                }
                Outcome::Answered(other) => panic!("a release was answered with {other:?}"),
            }
        }
        let ledger_head = plan.release.as_ref().map_or_else(String::new, |_| head(&plan.work));
        // So that every clip shows how many releases came before it.
        let next_clip =
            plan.release.filter(|release| release.plan.adaptive.is_some()).map(|release| release.clip / 2.0);
        let WorkKey { run, round, attempt } = &plan.work;
        let global = self.put(&format!("{run} {round} {attempt} aggregate {sum}"), sum);
        let refactors = self.setup.refactors() && trains && round.is_multiple_of(self.setup.refactor_every);
        let frozen = (!trains || refactors).then(|| self.put(&format!("{run} {round} frozen {sum}"), 0));
        // A state is made from the one before: its name says where it comes from.
        let before = plan.server.map(|digest| digest.to_string()).unwrap_or_default();
        let server =
            (self.setup.serves() && trains).then(|| self.put(&format!("{run} {round} server {sum} {before}"), 0));
        self.servers.extend(server);
        let result = Input::Aggregated {
            work: plan.work,
            global,
            global_bytes: 100,
            frozen,
            frozen_bytes: 50,
            server,
            error: Some(0.0),
            next_clip,
            ledger_head,
            notes: Vec::new(),
        };
        self.result = Some((result.clone(), sum));
        Some(result)
    }
}
