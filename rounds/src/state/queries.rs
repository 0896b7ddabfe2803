//! Questions about the state that more than one file asks: who is in the attempt, what counts,
//! which blobs are needed.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::{Job, Registry};
use rondo_proto::run_file::RunFile;
use rondo_proto::{ClientId, Digest, RunId};

use crate::key::{RoundKind, WorkKey};
use crate::rejection::Rejection;
use crate::state::participation::{EvaluationState, Participation, ParticipationState, Update};
use crate::state::phase::{Measuring, Phase};
use crate::state::publication::Publication;
use crate::state::{Run, Spec, State};

impl Run {
    /// The largest L2 norm of an upload that is accepted now; absent = any finite one. It is a
    /// limit on updates: a warm-up's statistic has another scale.
    pub fn update_norm_limit(&self) -> Option<f64> {
        self.spec.max_update_norm.filter(|_| self.live.open.kind == RoundKind::Train)
    }

    /// Publications by round: closed rounds and, while its adapter is measured, the open one.
    pub fn publications(&self) -> impl Iterator<Item = (u32, &Publication)> {
        let open = match &self.live.phase {
            Phase::Publishing(publishing) => Some((self.live.open.round, &publishing.publication)),
            _ => None,
        };
        // A round that is closing is in both places for a moment.
        let open = open.filter(|(round, _)| !self.rounds.contains_key(round));
        self.rounds.iter().map(|(round, closed)| (*round, &closed.publication)).chain(open)
    }

    /// Participations in the open attempt, in client-id order.
    pub fn participations(&self) -> impl Iterator<Item = (&ClientId, &Participation)> {
        let attempt = self.live.open.attempt;
        self.members
            .iter()
            .filter_map(|(client, member)| Some((client, member.participation.as_ref()?)))
            .filter(move |(_, part)| part.attempt == attempt)
    }

    /// Participations whose update counts, in client-id order.
    pub fn accepted(&self) -> impl Iterator<Item = (&ClientId, &Participation, &Update)> {
        self.participations()
            .filter(|(_, part)| part.state == ParticipationState::Accepted)
            .filter_map(|(client, part)| Some((client, part, part.update.as_ref()?)))
    }

    /// Whether this client has assigned work of this run, or gets it at its next poll.
    pub fn is_open_for(&self, client: &ClientId) -> bool {
        match &self.live.phase {
            Phase::WarmUp(_) | Phase::Training(_) => {
                self.participations().any(|(id, part)| id == client && part.state.is_open())
            }
            Phase::Publishing(_) => self.evaluation_of(client).is_open(),
            Phase::Recruiting(_) | Phase::Aggregating(_) | Phase::Ended(_) => false,
        }
    }

    /// Shares of the updates that count, in client-id order; they sum to 1. Always computed from
    /// the example counts, so that a restart finds the same bits.
    pub fn weights(&self) -> BTreeMap<ClientId, f64> {
        let (clients, examples): (Vec<ClientId>, Vec<u64>) =
            self.accepted().map(|(client, _, update)| (client.clone(), update.examples)).unzip();
        clients.into_iter().zip(self.spec.policy.weights(&examples)).collect()
    }

    /// Update blobs that are needed still.
    pub fn update_blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let needed = matches!(self.live.phase, Phase::WarmUp(_) | Phase::Training(_) | Phase::Aggregating(_));
        self.accepted().filter(move |_| needed).map(|(_, _, update)| update.digest)
    }

    /// Every blob that this run needs.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let published = self.publications().flat_map(|(_, publication)| {
            std::iter::once(publication.global).chain(publication.frozen.as_ref().map(|frozen| frozen.digest))
        });
        let start_adapter = self.spec.start_adapter.iter().map(|adapter| adapter.digest);
        start_adapter.chain(published).chain(self.update_blobs()).chain(self.server_blobs())
    }

    /// The measurement at one client, while it is under way.
    pub(crate) fn measuring(&self) -> Option<&Measuring> {
        match &self.live.phase {
            Phase::Publishing(publishing) => publishing.measuring.as_deref(),
            _ => None,
        }
    }

    /// How far a client is with measuring the adapter that was just published.
    pub fn evaluation_of(&self, client: &ClientId) -> EvaluationState {
        match (&self.live.phase, self.measuring()) {
            (Phase::Publishing(_), Some(measuring)) if measuring.client == *client => measuring.state,
            (Phase::Publishing(_), None) => self
                .participations()
                .find(|(id, _)| *id == client)
                .map_or(EvaluationState::None, |(_, part)| part.evaluation),
            _ => EvaluationState::None,
        }
    }

    /// The rejection of something about a round or attempt that is not open.
    pub(crate) fn not_open(&self, work: &WorkKey) -> Rejection {
        Rejection::WrongRound {
            run: work.run.clone(),
            round: self.live.open.round,
            attempt: self.live.open.attempt,
            phase: self.live.phase.name(),
            got_round: work.round,
            got_attempt: work.attempt,
        }
    }

    /// Fingerprint of the accepted set: who, what, how much.
    pub(crate) fn accepted_fingerprint(&self) -> Digest {
        let lines: Vec<String> = self
            .accepted()
            .map(|(client, part, update)| format!("{client} {} {} {}\n", update.digest, update.examples, part.rank))
            .collect();
        Digest::of(lines.concat().as_bytes())
    }
}

impl State {
    /// Every blob that some run needs.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        self.runs.values().flat_map(Run::blobs).collect()
    }

    /// Clients that work for another run and are not free for `run`. Work of a paused
    /// run does not bind.
    pub fn engaged_elsewhere(&self, run: &RunId) -> BTreeSet<ClientId> {
        let others = self.runs.iter().filter(|(id, other)| *id != run && other.live.paused_at.is_none());
        let mut engaged = BTreeSet::new();
        for (_, other) in others {
            let evaluator = other.spec.evaluator.iter().map(|evaluator| &evaluator.client);
            engaged.extend(other.members.keys().chain(evaluator).filter(|client| other.is_open_for(client)).cloned());
        }
        engaged
    }
}

impl Spec {
    /// Whether clients measure the model before they train: in the first round, so that a run can
    /// show what it changed. Where one client measures, those who train do not.
    pub(crate) fn measures_before_training(&self, round: u32) -> bool {
        round == 1 && self.policy.eval_every > 0 && self.evaluator.is_none()
    }

    /// The run resolved against a registry.
    ///
    /// # Errors
    /// A run file, method or base that this program does not accept.
    pub(crate) fn job(&self, registry: &Registry) -> Result<Job, Rejection> {
        Ok(Job::new(registry, &RunFile::parse(&self.run_file)?, &self.base)?)
    }
}
