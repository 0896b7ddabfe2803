//! What a phase works with: one run, open for writing, and the notes of the step in hand. Every write goes through here,
//! so that no changed record is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::Job;
use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::Millis;
use crate::effect::Effect;
use crate::input::WorkKey;
use crate::phases::{Measuring, Phase};
use crate::presence::Presence;
use crate::record::RecordKey;
use crate::state::{Client, Live, Member, Part, Run, Standing};

/// Lines of history kept per run.
const EVENTS_KEPT: usize = 2000;

/// Notes of one step.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) now: Millis,
    pub(crate) changed: BTreeSet<RecordKey>,
    pub(crate) effects: Vec<Effect>,
    /// Blobs that a run let go of; dropped unless some run still needs them.
    pub(crate) garbage: BTreeMap<RunId, BTreeSet<Digest>>,
}

impl Turn {
    pub(crate) fn new(now: Millis) -> Self {
        Self { now, changed: BTreeSet::new(), effects: Vec::new(), garbage: BTreeMap::new() }
    }
}

/// One run and what its decisions depend on.
pub(crate) struct Desk<'a> {
    pub(crate) id: &'a RunId,
    run: &'a mut Run,
    pub(crate) job: &'a Job,
    pub(crate) clients: &'a BTreeMap<ClientId, Client>,
    pub(crate) presence: &'a Presence,
    pub(crate) turn: &'a mut Turn,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        id: &'a RunId,
        run: &'a mut Run,
        job: &'a Job,
        clients: &'a BTreeMap<ClientId, Client>,
        presence: &'a Presence,
        turn: &'a mut Turn,
    ) -> Self {
        Self { id, run, job, clients, presence, turn }
    }

    /// The run, to read.
    pub(crate) fn run(&self) -> &Run {
        self.run
    }

    /// The time of this step.
    pub(crate) fn now(&self) -> Millis {
        self.turn.now
    }

    /// The key of the open attempt.
    pub(crate) fn work(&self) -> WorkKey {
        WorkKey { run: self.id.clone(), round: self.run.live.open.round, attempt: self.run.live.open.attempt }
    }

    /// Where the run stands, to write.
    pub(crate) fn live(&mut self) -> &mut Live {
        self.turn.changed.insert(RecordKey::Live(self.id.clone()));
        &mut self.run.live
    }

    /// A client's part in the run, to write; made when there is none.
    pub(crate) fn member(&mut self, client: &ClientId) -> &mut Member {
        self.turn.changed.insert(RecordKey::Member(self.id.clone(), client.clone()));
        self.run.members.entry(client.clone()).or_default()
    }

    /// What a client does in the open round, to write.
    pub(crate) fn part(&mut self, client: &ClientId) -> Option<&mut Part> {
        let part = self.run.members.get_mut(client)?.part.as_mut()?;
        self.turn.changed.insert(RecordKey::Member(self.id.clone(), client.clone()));
        Some(part)
    }

    /// The measurement at one client, to write.
    pub(crate) fn measuring(&mut self) -> Option<&mut Measuring> {
        let Phase::Publishing(publishing) = &mut self.run.live.phase else { return None };
        self.turn.changed.insert(RecordKey::Live(self.id.clone()));
        publishing.measuring.as_deref_mut()
    }

    /// Closed rounds, to write.
    pub(crate) fn close_round(&mut self, round: u32, closed: crate::state::ClosedRound) {
        self.turn.changed.insert(RecordKey::Round(self.id.clone(), round));
        self.run.rounds.insert(round, closed);
    }

    /// Whether the client may be given new work.
    pub(crate) fn is_active(&self, client: &ClientId) -> bool {
        self.clients.get(client).is_some_and(|client| client.standing == Standing::Active)
    }

    /// Adds a remark to the open round's record.
    pub(crate) fn note(&mut self, text: String) {
        self.live().open.notes.push(text);
    }

    /// Adds a line to the run's history.
    pub(crate) fn announce(&mut self, client: Option<&ClientId>, text: impl Into<String>) {
        self.tell(client, text.into(), false);
    }

    /// Adds the line that tells of a round's end.
    pub(crate) fn announce_close(&mut self, text: String) {
        self.tell(None, text, true);
    }

    fn tell(&mut self, client: Option<&ClientId>, text: String, closes_round: bool) {
        let live = self.live();
        let (sequence, round) = (live.next_event, live.open.round);
        live.next_event += 1;
        let event = v1::RunEvent {
            sequence,
            at_ms: self.turn.now,
            run: self.id.to_string(),
            round,
            client: client.map(ToString::to_string).unwrap_or_default(),
            text,
            closes_round,
        };
        self.run.events.insert(sequence, event.clone());
        self.turn.changed.insert(RecordKey::Event(self.id.clone(), sequence));
        while self.run.events.len() > EVENTS_KEPT {
            let Some((oldest, _)) = self.run.events.pop_first() else { break };
            self.turn.changed.insert(RecordKey::Event(self.id.clone(), oldest));
        }
        self.turn.effects.push(Effect::Announce(event));
    }

    /// Lets go of a blob.
    pub(crate) fn discard(&mut self, digest: Digest) {
        self.turn.garbage.entry(self.id.clone()).or_default().insert(digest);
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, effect: Effect) {
        self.turn.effects.push(effect);
    }
}

/// Seconds with at most three places, for people.
pub(crate) fn seconds(millis: Millis) -> String {
    if millis % 1000 == 0 { format!("{} s", millis / 1000) } else { format!("{} s", millis as f64 / 1000.0) }
}

/// Text that came from outside, fit for records and terminals: no control characters, at most 400 characters.
pub(crate) fn clean(text: &str) -> String {
    let mut clean: String = text.chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(400).is_some() {
        clean.push_str("...");
    }
    clean
}
