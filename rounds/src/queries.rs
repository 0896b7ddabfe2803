//! Questions to the state that more than one part asks: who is in the attempt, what counts, which blobs are needed.

use std::collections::{BTreeMap, BTreeSet};

use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::effect::RoundKind;
use crate::phases::Phase;
use crate::state::{Frozen, Part, PartState, Publication, Run, State, Update};

/// The blobs that make up the adapter after some round.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterBlobs {
    /// The latest round that is part of it; 0 when nothing was published.
    pub round: u32,
    /// What is merged into the base before everything else: digest, and size by formula.
    pub initial: Option<(Digest, u64)>,
    /// Frozen tensors, if any.
    pub frozen: Option<Frozen>,
    /// Published entries by round, oldest first.
    pub published: Vec<(u32, Publication)>,
    /// The server optimiser's state, if the run has one. It is no part of what travels.
    pub server: Option<Digest>,
}

impl AdapterBlobs {
    /// Every blob that travels, with its size by formula.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        let frozen = self.frozen.iter().map(|frozen| (frozen.digest, frozen.layout_bytes));
        self.initial
            .into_iter()
            .chain(frozen)
            .chain(self.published.iter().map(|(_, entry)| (entry.global, entry.layout_bytes)))
    }

    /// Published entries, as the version of the base that a client trains on.
    pub fn version(&self) -> u32 {
        self.published.len() as u32
    }

    /// As it travels.
    pub fn message(&self) -> v1::AdapterState {
        v1::AdapterState {
            round: self.round,
            frozen_digest: self.frozen.as_ref().map(|frozen| frozen.digest.to_string()).unwrap_or_default(),
            published: self
                .published
                .iter()
                .map(|(round, entry)| v1::Published {
                    round: *round,
                    digest: entry.global.to_string(),
                    bytes: entry.bytes,
                })
                .collect(),
            initial_digest: self.initial.map(|(digest, _)| digest.to_string()).unwrap_or_default(),
        }
    }
}

impl Run {
    /// The largest norm of an upload that is let in now. It is a limit on updates: a warm-up's statistic has another
    /// scale.
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

    /// Parts of the open attempt, in client-id order.
    pub fn parts(&self) -> impl Iterator<Item = (&ClientId, &Part)> {
        let attempt = self.live.open.attempt;
        self.members
            .iter()
            .filter_map(|(client, member)| Some((client, member.part.as_ref()?)))
            .filter(move |(_, part)| part.attempt == attempt)
    }

    /// Parts whose update counts, in client-id order.
    pub fn accepted(&self) -> impl Iterator<Item = (&ClientId, &Part, &Update)> {
        self.parts()
            .filter(|(_, part)| part.state == PartState::Accepted)
            .filter_map(|(client, part)| Some((client, part, part.update.as_ref()?)))
    }

    /// Whether this client has work of this run in hand, or would get it at its next poll.
    pub fn is_open_for(&self, client: &ClientId) -> bool {
        match &self.live.phase {
            Phase::WarmUp(_) | Phase::Training(_) => {
                self.parts().any(|(id, part)| id == client && part.state.is_open())
            }
            Phase::Publishing(_) => self.evaluation_of(client).is_open(),
            Phase::Recruiting(_) | Phase::Aggregating(_) | Phase::Ended(_) => false,
        }
    }

    /// Shares of the updates that count, in client-id order; they sum to 1. Always computed from the example counts, so
    /// that a restart finds the same bits.
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
        let initial = self.spec.initial.iter().map(|initial| initial.digest);
        initial.chain(published).chain(self.update_blobs()).chain(self.server_blobs())
    }
}

impl State {
    /// Every blob that some run needs.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        self.runs.values().flat_map(Run::blobs).collect()
    }

    /// Clients that have work of another run in hand and are not free for `run`. Work of a paused run does not bind.
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
