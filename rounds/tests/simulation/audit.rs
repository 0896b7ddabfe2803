//! What must hold after every step, beside the engine's own invariants.

use rondo_proto::{Digest, RunId, v1};
use rondo_rounds::AggregatePlan;

use crate::world::{PUBLIC, World};

impl World {
    /// What must hold once a step is committed.
    pub(crate) fn audit(&self) {
        self.engine.check().unwrap();
        let charged = self.engine.state().runs.values().filter_map(|run| run.live.charged.as_ref());
        let charged: u32 = charged.map(|charged| charged.releases).sum();
        assert!(charged >= self.drawn, "noise was drawn {} times and charged {charged} times", self.drawn);
        self.audit_records();
        for run in &self.runs {
            self.audit_sums(run);
            self.audit_course(run);
        }
    }

    /// The state can be rebuilt from what was committed, to the byte.
    fn audit_records(&self) {
        let records = self.engine.records().records;
        assert!(records.keys().eq(self.store.keys()), "other records exist than were committed");
        for (key, bytes) in &records {
            assert!(*bytes == self.store[key], "{key} changed without being committed");
        }
    }

    /// R2 and R3 with other eyes: the sum that was aggregated holds every recorded client once, and
    /// whoever got the answer that its update counts is among them.
    fn audit_sums(&self, run: &RunId) {
        for record in self.engine.rounds(run) {
            if record.global_digest.is_empty() {
                continue;
            }
            let sum = self.blobs.get(&record.global_digest.parse().unwrap()).copied().unwrap_or_default();
            let accepted = record.participants.iter().filter(|participant| participant.state == "accepted");
            let recorded: u64 = accepted.map(|participant| worth(&participant.client)).sum();
            assert_eq!(sum, recorded, "round {} of {run} aggregated other updates than it records", record.round);
            for (work, client, digest) in &self.acknowledged {
                if (&work.run, work.round, work.attempt) != (run, record.round, record.attempt) {
                    continue;
                }
                let part = record.participants.iter().find(|participant| participant.client == client.as_str());
                // With privacy per client the digest is not shown.
                let is_that = |shown: &str| {
                    shown == digest.to_string()
                        || (shown.is_empty()
                            && record.round >= self.setup.first_paid_round()
                            && self.setup.is_central())
                };
                let is_kept = part.is_some_and(|part| part.state == "accepted" && is_that(&part.update_digest));
                let was_revoked = part.is_some_and(|part| part.reason == "revoked");
                assert!(
                    is_kept || was_revoked,
                    "{client} got the answer that {digest} counts in round {}",
                    record.round
                );
            }
        }
    }

    /// Best, roll-back and the state of the server optimiser with other eyes: the course of a run
    /// is computed again from what clients measured, and must end where the engine is.
    fn audit_course(&self, run: &RunId) {
        let setup = &self.setup;
        let mut lineage: Vec<v1::RoundRecord> = Vec::new();
        let mut best: Option<(f64, v1::RoundRecord, Vec<v1::RoundRecord>)> = None;
        for record in self.engine.rounds(run).into_iter().filter(|record| record.ended_at_ms != 0) {
            self.audit_measurers(&record);
            lineage.push(record.clone());
            let measured: Vec<f64> = shares(&record);
            let diverged = record.notes.iter().any(|note| note.contains("evaluation failed: loss "));
            let is_measured = !measured.is_empty() && !diverged;
            assert_eq!(record.held_out_loss.is_some(), is_measured, "{record:?}");
            if let Some(found) = record.held_out_loss {
                let loss: f64 = measured.iter().sum();
                assert!((found - loss).abs() < 1e-9, "round {}: {found} is not {loss}", record.round);
            }
            let percent = setup.rollback.map(f64::from);
            let limit = best.as_ref().zip(percent).map(|((best, ..), percent)| best * (1.0 + percent / 100.0));
            let is_bad = diverged || record.held_out_loss.zip(limit).is_some_and(|(loss, limit)| loss > limit);
            assert_eq!(record.rolled_back_to.is_some(), is_bad && setup.rollback.is_some(), "{record:?}");
            if record.held_out_loss.is_some_and(|loss| best.as_ref().is_none_or(|(best, ..)| loss < *best)) {
                best = Some((record.held_out_loss.unwrap(), record.clone(), lineage.clone()));
            } else if let Some(to) = record.rolled_back_to {
                // Exactly what stood after the best round stands again; before any, what stood
                // before training.
                lineage.retain(|before| best.is_none() && before.round == 0);
                if let Some((_, round, stood)) = &best {
                    assert_eq!(to, round.round);
                    lineage.clone_from(stood);
                }
            }
            assert_eq!(record.best_round, best.as_ref().map(|(_, round, _)| round.round));
        }
        let summary = self.engine.run_summary(run).unwrap();
        assert_eq!(summary.best_round, best.as_ref().map(|(_, round, _)| round.round));
        // An order that was given twice may outlive its round, and then says what stood before it.
        let is_next = |plan: &&AggregatePlan| plan.work.run == *run && self.awaits(&plan.work);
        if let Some(plan) = self.queue.iter().rev().find(is_next) {
            let digests = |of: fn(&v1::RoundRecord) -> &String| latest(&lineage, of);
            let text = |digest: Option<Digest>| digest.map(|d| d.to_string()).unwrap_or_default();
            assert_eq!(text(plan.frozen), digests(|record| &record.frozen_digest));
            assert_eq!(text(plan.server), digests(|record| &record.server_digest));
        }
        if summary.phase == "publishing" {
            return;
        }
        if summary.phase == "ended"
            && setup.keep_best
            && let Some((_, _, stood)) = best
        {
            lineage = stood;
        }
        let state = summary.adapter.unwrap_or_default();
        let stands: Vec<&String> = state.published.iter().map(|entry| &entry.digest).collect();
        let all: Vec<&String> = lineage.iter().map(|record| &record.global_digest).collect();
        let expected = if setup.accumulates() { &all[..] } else { &all[all.len().saturating_sub(1)..] };
        assert_eq!(stands, expected, "the adapter is not made of the rounds that stand");
        assert_eq!(state.frozen_digest, latest(&lineage, |record| &record.frozen_digest));
    }

    /// Who measured a closed round.
    fn audit_measurers(&self, record: &v1::RoundRecord) {
        match self.setup.evaluator() {
            None => assert_eq!(record.measurement, None),
            Some(index) => {
                assert!(record.participants.iter().all(|part| part.after.is_none() && part.before.is_none()));
                let measured = record.measurement.iter();
                measured.for_each(|measured| assert_eq!(measured.client, format!("c{index}")));
            }
        }
    }

    /// What a client sees: nothing of the server optimiser, and to measure only where it is the
    /// one who measures.
    pub(crate) fn audit_message(&self, client: usize, reply: &v1::PollReply) {
        let seen = format!("{reply:?}");
        for server in &self.servers {
            assert!(!seen.contains(&server.to_string()), "a client hears of the server optimiser's state");
            let name = &self.devices[client].name;
            let may = self.runs.iter().any(|run| self.engine.may_download(name, run, server));
            assert!(!may, "{name} may fetch the server optimiser's state");
        }
        self.audit_start_adapter(reply);
        let Some(v1::poll_reply::Next::Assignment(assignment)) = &reply.next else { return };
        let measures = assignment.kind() == v1::WorkKind::Evaluate;
        let evaluator = self.setup.evaluator();
        assert!(!measures || evaluator.is_none_or(|evaluator| evaluator == client), "c{client} is asked to measure");
        let named = measures && evaluator.is_some();
        assert_eq!(assignment.dataset, if named { PUBLIC } else { "" });
        assert!(evaluator.is_none() || !assignment.evaluate_before);
    }

    pub(crate) fn audit_blobs(&self) {
        self.engine.check_blobs(&|digest| self.blobs.contains_key(digest)).unwrap();
        let needed = self.engine.blobs();
        let left = self.blobs.keys().find(|digest| !needed.contains(digest));
        assert_eq!(left, None, "nobody needs this blob, and nobody dropped it");
    }
}

/// The losses that a round was measured with, each times its share by examples.
fn shares(record: &v1::RoundRecord) -> Vec<f64> {
    let one = record.measurement.iter().filter_map(|measured| measured.after.as_ref());
    let own = record.participants.iter().filter_map(|part| part.after.as_ref());
    let all: Vec<(f64, f64)> = own.chain(one).map(|after| (after.loss, after.examples as f64)).collect();
    let total: f64 = all.iter().map(|(_, examples)| examples).sum();
    all.into_iter().map(|(loss, examples)| loss * examples / total).collect()
}

/// The latest of some digest; empty where no round has one.
fn latest(records: &[v1::RoundRecord], of: fn(&v1::RoundRecord) -> &String) -> String {
    records.iter().rev().map(of).find(|digest| !digest.is_empty()).cloned().unwrap_or_default()
}

fn index(client: &str) -> usize {
    client[1..].parse().unwrap()
}

fn worth(client: &str) -> u64 {
    1 << index(client)
}
