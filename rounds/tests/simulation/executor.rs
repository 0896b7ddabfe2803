//! The executor of a simulated federation.

use rondo_rounds::{Input, WorkKey};

use crate::world::World;

impl World {
    /// The executor takes the oldest order.
    pub(crate) fn aggregate(&mut self) -> Option<Input> {
        let plan = self.queue.pop_front()?;
        let weights: f64 = plan.updates.iter().map(|update| update.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9, "weights sum to {weights}");
        assert!(plan.updates.is_sorted_by(|a, b| a.client < b.client), "updates are not in client order");
        let initial = self.initial().map(|initial| initial.digest.parse().unwrap());
        assert_eq!(plan.initial, initial);
        let needed = plan.published.iter().chain(&plan.frozen).chain(&plan.server).chain(&plan.initial);
        let missing = needed.into_iter().find(|digest| !self.blobs.contains_key(digest));
        assert!(missing.is_none(), "the plan needs {missing:?}");
        // An order of an attempt that is over may find its updates dropped; its result would be let go anyway.
        let sum = plan.updates.iter().map(|update| self.blobs.get(&update.digest).copied()).sum::<Option<u64>>();
        let WorkKey { run, round, attempt } = &plan.work;
        let Some(sum) = sum else {
            return Some(Input::AggregateFailed { work: plan.work, reason: "updates are gone".to_owned() });
        };
        let global = self.put(&format!("{run} {round} {attempt} aggregate {sum}"), sum);
        let trains = plan.kind == rondo_rounds::RoundKind::Train;
        let refactors = self.setup.refactors() && trains && round.is_multiple_of(self.setup.refactor_every);
        let frozen = (!trains || refactors).then(|| self.put(&format!("{run} {round} frozen {sum}"), 0));
        // A state is made from the one before: what it is called tells where it comes from.
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
            notes: Vec::new(),
        };
        self.result = Some((result.clone(), sum));
        Some(result)
    }
}
