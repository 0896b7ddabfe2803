//! What handlers and phases work with: one run, open for writing, and the changes of this step.
//! Every write goes through here, so that no changed record is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::Job;
use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::effect::Effect;
use crate::key::{Millis, RecordKey, WorkKey};
use crate::liveness::Liveness;
use crate::state::participation::Participation;
use crate::state::phase::{Measuring, Phase};
use crate::state::publication::ClosedRound;
use crate::state::{Client, ClientStatus, Live, Member, Run};

/// Lines of history kept per run.
const EVENTS_KEPT: usize = 2000;

/// What one step has changed so far.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) now: Millis,
    pub(crate) records: BTreeSet<RecordKey>,
    pub(crate) effects: Vec<Effect>,
    /// Blobs that a run needs no more; dropped unless another run needs them.
    pub(crate) dropped_blobs: BTreeMap<RunId, BTreeSet<Digest>>,
}

impl Changes {
    pub(crate) fn new(now: Millis) -> Self {
        Self { now, records: BTreeSet::new(), effects: Vec::new(), dropped_blobs: BTreeMap::new() }
    }
}

/// One run and what its decisions depend on.
pub(crate) struct RunContext<'a> {
    pub(crate) id: &'a RunId,
    run: &'a mut Run,
    pub(crate) job: &'a Job,
    pub(crate) clients: &'a BTreeMap<ClientId, Client>,
    pub(crate) liveness: &'a Liveness,
    pub(crate) changes: &'a mut Changes,
}

impl<'a> RunContext<'a> {
    pub(crate) fn new(
        id: &'a RunId,
        run: &'a mut Run,
        job: &'a Job,
        clients: &'a BTreeMap<ClientId, Client>,
        liveness: &'a Liveness,
        changes: &'a mut Changes,
    ) -> Self {
        Self { id, run, job, clients, liveness, changes }
    }

    /// The run, to read.
    pub(crate) fn run(&self) -> &Run {
        self.run
    }

    /// The time of this step.
    pub(crate) fn now(&self) -> Millis {
        self.changes.now
    }

    /// The key of the open attempt.
    pub(crate) fn work(&self) -> WorkKey {
        WorkKey { run: self.id.clone(), round: self.run.live.open.round, attempt: self.run.live.open.attempt }
    }

    /// The changing state of the run, to write.
    pub(crate) fn live(&mut self) -> &mut Live {
        self.changes.records.insert(RecordKey::Live(self.id.clone()));
        &mut self.run.live
    }

    /// A client's part in the run, to write; made when there is none.
    pub(crate) fn member(&mut self, client: &ClientId) -> &mut Member {
        self.changes.records.insert(RecordKey::Member(self.id.clone(), client.clone()));
        self.run.members.entry(client.clone()).or_default()
    }

    /// What a client does in the open round, to write.
    pub(crate) fn participation(&mut self, client: &ClientId) -> Option<&mut Participation> {
        let part = self.run.members.get_mut(client)?.participation.as_mut()?;
        self.changes.records.insert(RecordKey::Member(self.id.clone(), client.clone()));
        Some(part)
    }

    /// The measurement at one client, to write.
    pub(crate) fn measuring(&mut self) -> Option<&mut Measuring> {
        let Phase::Publishing(publishing) = &mut self.run.live.phase else { return None };
        self.changes.records.insert(RecordKey::Live(self.id.clone()));
        publishing.measuring.as_deref_mut()
    }

    /// Closed rounds, to write.
    pub(crate) fn close_round(&mut self, round: u32, closed: ClosedRound) {
        self.changes.records.insert(RecordKey::Round(self.id.clone(), round));
        self.run.rounds.insert(round, closed);
    }

    /// Whether the client may be given new work.
    pub(crate) fn is_active(&self, client: &ClientId) -> bool {
        self.clients.get(client).is_some_and(|client| client.status == ClientStatus::Active)
    }

    /// Adds a remark to the open round's record.
    pub(crate) fn note(&mut self, text: String) {
        self.live().open.notes.push(text);
    }

    /// Adds a line to the run's history.
    pub(crate) fn announce(&mut self, client: Option<&ClientId>, text: impl Into<String>) {
        self.record_event(client, text.into(), false);
    }

    /// Adds the line about a round's end.
    pub(crate) fn announce_close(&mut self, text: String) {
        self.record_event(None, text, true);
    }

    fn record_event(&mut self, client: Option<&ClientId>, text: String, closes_round: bool) {
        let live = self.live();
        let sequence = live.next_event;
        let round = live.open.round;
        live.next_event += 1;
        let event = v1::RunEvent {
            sequence,
            at_ms: self.changes.now,
            run: self.id.to_string(),
            round,
            client: client.map(ToString::to_string).unwrap_or_default(),
            text,
            closes_round,
        };
        self.run.events.insert(sequence, event.clone());
        self.changes.records.insert(RecordKey::Event(self.id.clone(), sequence));
        while self.run.events.len() > EVENTS_KEPT {
            let Some((oldest, _)) = self.run.events.pop_first() else { break };
            self.changes.records.insert(RecordKey::Event(self.id.clone(), oldest));
        }
        self.changes.effects.push(Effect::Announce(event));
    }

    /// Marks a blob as needed no more by this run.
    pub(crate) fn discard(&mut self, digest: Digest) {
        self.changes.dropped_blobs.entry(self.id.clone()).or_default().insert(digest);
    }

    /// Adds an effect.
    pub(crate) fn add_effect(&mut self, effect: Effect) {
        self.changes.effects.push(effect);
    }
}

/// Seconds with at most three places, for people.
pub(crate) fn seconds(millis: Millis) -> String {
    if millis % 1000 == 0 { format!("{} s", millis / 1000) } else { format!("{} s", millis as f64 / 1000.0) }
}

/// Text that came from outside, fit for records and terminals: no control characters, at most 400
/// characters.
pub(crate) fn clean(text: &str) -> String {
    let mut clean: String = text.chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(400).is_some() {
        clean.push_str("...");
    }
    clean
}
