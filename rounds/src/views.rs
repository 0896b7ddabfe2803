//! The state as operators and clients see it.

use rondo_methods::Job;
use rondo_proto::run_file::Keep;
use rondo_proto::{ClientId, RunId, v1};

use crate::engine::Engine;
use crate::guarantee;
use crate::round_record::open_record;
use crate::state::phase::Phase;
use crate::state::{Client, Run};

/// A record as it is shown. With privacy per client it leaves out the digests of updates: training
/// can be repeated to the bit, and whoever guesses a client's data could check the guess by the
/// digest.
fn redacted(run: &Run, mut record: v1::RoundRecord) -> v1::RoundRecord {
    if run.spec.central.is_some() && run.is_private_round(record.round) {
        record.participants.iter_mut().for_each(|participant| participant.update_digest.clear());
    }
    record
}

impl Engine {
    /// All runs, by id.
    pub fn runs(&self) -> Vec<v1::RunSummary> {
        self.state.runs.iter().map(|(id, run)| self.summary(id, run)).collect()
    }

    /// A run.
    pub fn run_summary(&self, run: &RunId) -> Option<v1::RunSummary> {
        self.state.runs.get_key_value(run).map(|(id, run)| self.summary(id, run))
    }

    fn summary(&self, id: &RunId, run: &Run) -> v1::RunSummary {
        let ended = match &run.live.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        };
        let is_open = !run.rounds.contains_key(&run.live.open.round);
        let adapter = run.result();
        let best = run.best();
        let evaluator = run.spec.evaluator.as_ref();
        let answers = run.members.iter().filter_map(|(client, member)| Some((client, member.answer.as_ref()?)));
        v1::RunSummary {
            run: id.to_string(),
            name: run.spec.name.clone(),
            phase: run.live.phase.name().to_owned(),
            paused: run.live.paused_at.is_some(),
            outcome: ended.map(|ended| ended.outcome.to_string()).unwrap_or_default(),
            round: run.live.open.round,
            rounds: run.spec.policy.rounds,
            method: run.spec.method.clone(),
            base: run.spec.base.name.clone(),
            dataset: run.spec.dataset.clone(),
            created_at_ms: run.spec.created_at,
            ended_at_ms: ended.map_or(0, |ended| ended.at),
            deadline_ms: run.live.phase.deadline().unwrap_or_default(),
            privacy: guarantee::statement(run),
            exactness: run.spec.exactness.clone(),
            willing: answers
                .map(|(client, answer)| v1::Willing {
                    client: client.to_string(),
                    accepted: answer.accepted,
                    rank: answer.rank,
                    reason: answer.reason.clone(),
                    undecided: answer.undecided,
                })
                .collect(),
            open: is_open.then(|| redacted(run, open_record(id, run, &self.liveness))),
            latest: run.rounds.values().next_back().map(|closed| redacted(run, closed.record.clone())),
            adapter: (!adapter.published.is_empty() || adapter.frozen.is_some()).then(|| adapter.message()),
            best_round: best.map(|(round, _)| round),
            best_loss: best.map(|(_, loss)| loss),
            keep: match run.spec.policy.keep {
                Keep::Last => "last".to_owned(),
                Keep::Best => "best".to_owned(),
            },
            evaluation_client: evaluator.map(|evaluator| evaluator.client.to_string()).unwrap_or_default(),
            evaluation_dataset: evaluator.map(|evaluator| evaluator.dataset.clone()).unwrap_or_default(),
            initial_digest: run.spec.start_adapter_digest(),
        }
    }

    /// Those of some run ids whose run has ended or was never here.
    pub fn ended_among(&self, runs: Vec<String>) -> Vec<String> {
        let is_live = |id: &String| {
            let known = RunId::new(id.as_str()).ok().and_then(|id| self.state.runs.get(&id));
            known.is_some_and(|run| !matches!(run.live.phase, Phase::Ended(_)))
        };
        runs.into_iter().filter(|id| !is_live(id)).collect()
    }

    /// The text of a run's file.
    pub fn run_file(&self, run: &RunId) -> Option<&str> {
        self.state.runs.get(run).map(|run| run.spec.run_file.as_str())
    }

    /// The base model of a run.
    pub fn base(&self, run: &RunId) -> Option<&v1::BaseModel> {
        self.state.runs.get(run).map(|run| &run.spec.base)
    }

    /// A run resolved against its method; absent once it has ended.
    pub fn job(&self, run: &RunId) -> Option<&Job> {
        self.jobs.get(run)
    }

    /// A run's rounds: the closed ones and then the open one.
    pub fn rounds(&self, run: &RunId) -> Vec<v1::RoundRecord> {
        let Some((id, run)) = self.state.runs.get_key_value(run) else { return Vec::new() };
        let closed = run.rounds.values().map(|closed| closed.record.clone());
        let open = !run.rounds.contains_key(&run.live.open.round);
        closed.chain(open.then(|| open_record(id, run, &self.liveness))).map(|record| redacted(run, record)).collect()
    }

    /// One round of a run, closed or open.
    pub fn round_record(&self, run: &RunId, round: u32) -> Option<v1::RoundRecord> {
        let (id, run) = self.state.runs.get_key_value(run)?;
        let record = match run.rounds.get(&round) {
            Some(closed) => Some(closed.record.clone()),
            None => (run.live.open.round == round).then(|| open_record(id, run, &self.liveness)),
        };
        record.map(|record| redacted(run, record))
    }

    /// Lines of a run's history with a number above `after`, oldest first.
    pub fn events(&self, run: &RunId, after: u64) -> Vec<v1::RunEvent> {
        let Some(run) = self.state.runs.get(run) else { return Vec::new() };
        run.events.range(after.saturating_add(1)..).map(|(_, event)| event.clone()).collect()
    }

    /// All clients, by name.
    pub fn clients(&self) -> Vec<v1::ClientInfo> {
        self.state.clients.iter().map(|(id, client)| self.client_info(id, client)).collect()
    }

    /// A client.
    pub fn client(&self, client: &ClientId) -> Option<v1::ClientInfo> {
        self.state.clients.get_key_value(client).map(|(id, client)| self.client_info(id, client))
    }

    fn client_info(&self, id: &ClientId, client: &Client) -> v1::ClientInfo {
        v1::ClientInfo {
            client: id.to_string(),
            state: client.status.as_str().to_owned(),
            enrolled_at_ms: client.enrolled_at,
            last_seen_ms: self.liveness.seen(id).unwrap_or(client.seen_at),
            datasets: client.datasets.iter().cloned().collect(),
            bases: client.bases.iter().cloned().collect(),
            tokens: client.base_tokens(),
            max_rank: client.max_rank,
            version: client.version.clone(),
            certificate_fingerprint: client.fingerprint.clone(),
            certificate_expires_ms: client.expires,
            run: self.runs_at_work(id).first().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The blobs from which a run's adapter is built: after `round`, also when that was rolled
    /// back, or what the run hands out. Absent when there is no such run or nothing was published
    /// for that round.
    pub fn adapter_state(&self, run: &RunId, round: Option<u32>) -> Option<v1::AdapterState> {
        let run = self.state.runs.get(run)?;
        if round.is_some_and(|round| !run.publications().any(|(number, _)| number == round)) {
            return None;
        }
        let adapter = if round.is_some() { run.adapter(round) } else { run.result() };
        (!adapter.published.is_empty() || adapter.frozen.is_some()).then(|| adapter.message())
    }
}
