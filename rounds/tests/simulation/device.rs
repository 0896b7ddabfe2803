//! What a client of a simulated federation does.

use std::collections::{BTreeSet, VecDeque};

use rondo_proto::{ClientId, Digest, RunId, v1};
use rondo_rounds::{Input, Reply, StoredUpdate, UploadOutcome, WorkKey};

use crate::model::{Course, Measures, Setup, Wrong};
use crate::world::{BASE, DATASET, DELTA, Outcome, PUBLIC, RANK, World, work_of};

/// A client's machine.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) name: ClientId,
    /// Its update is worth 2^index.
    pub(crate) index: usize,
    /// Data sets it has.
    pub(crate) datasets: Vec<&'static str>,
    /// What it says of the base's tokens.
    pub(crate) tokens: Option<&'static str>,
    pub(crate) max_rank: u32,
    /// The rank it asks for; 0 leaves it to the engine.
    pub(crate) asked_rank: u32,
    pub(crate) assignment: Option<v1::Assignment>,
    pub(crate) spool: VecDeque<Packed>,
    pub(crate) sent: Option<Packed>,
    /// Blobs it holds on disk.
    pub(crate) cache: BTreeSet<Digest>,
}

/// An update, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packed {
    pub(crate) work: WorkKey,
    pub(crate) update: StoredUpdate,
}

/// A number that looks drawn, the same for the same words.
pub(crate) fn draw(words: &str) -> u64 {
    let digest = Digest::of(words.as_bytes()).hex();
    u64::from_str_radix(&digest[..12], 16).unwrap()
}

impl Setup {
    /// The client that measures, where one does.
    pub(crate) fn evaluator(&self) -> Option<usize> {
        match self.measures {
            Measures::Everybody => None,
            Measures::ClientZero => Some(0),
            Measures::Outsider => Some(self.clients),
        }
    }

    /// What a client measures.
    pub(crate) fn evaluation(&self, round: u32, client: usize) -> v1::Evaluation {
        let draw = draw(&format!("{} {round} {client}", self.seed));
        let loss = match self.course {
            Course::Level => 0.25,
            Course::Diverging if draw.is_multiple_of(5) => f64::NAN,
            Course::Wild | Course::Diverging => 0.1 + (draw % 1000) as f64 / 1000.0,
        };
        v1::Evaluation { loss, accuracy: 0.75, examples: 8 + client as u64, ..Default::default() }
    }
}

impl Device {
    /// Client `index` of a federation.
    pub(crate) fn new(index: usize, setup: &Setup) -> Self {
        let is_outsider = index >= setup.clients;
        let mut datasets = vec![DATASET];
        if setup.evaluator() == Some(index) {
            datasets.push(PUBLIC);
        }
        if is_outsider {
            datasets.remove(0);
        }
        let mixes = setup.ranks > 0 && setup.mixes_ranks() && !is_outsider && !setup.is_central();
        let drawn = |what: &str| (draw(&format!("{} {what} {index}", setup.ranks)) % u64::from(RANK + 1)) as u32;
        let max_rank = match index {
            5 if !is_outsider && setup.ranks == 0 => RANK / 2,
            _ if mixes => drawn("limit"),
            _ => 0,
        };
        let asked_rank = if mixes { drawn("asked").min(if max_rank == 0 { RANK } else { max_rank }) } else { 0 };
        Self {
            name: ClientId::new(format!("c{index}")).unwrap(),
            index,
            datasets,
            max_rank,
            asked_rank,
            tokens: None,
            assignment: None,
            spool: VecDeque::new(),
            sent: None,
            cache: BTreeSet::new(),
        }
    }
}

/// What a round costs every data owner.
pub(crate) const COST: f64 = 0.4;

impl Packed {
    /// With privacy an update reports what it cost, and nothing else.
    fn kept_private(mut self, setup: &Setup, round: u32, count: u32) -> Self {
        if setup.epsilon.is_none() {
            return self;
        }
        let spent = COST * f64::from(count);
        let report = v1::PrivacyReport {
            unit: "example".to_owned(),
            // So much that it really costs less.
            noise_multiplier: 30.0,
            sampling_rate: 0.1,
            steps: 1,
            total_steps: count,
            delta: DELTA,
            epsilon: spent,
            epsilon_pld: 0.9 * spent,
            next_epsilon: spent + COST,
            ledger_head: format!("blake3:{round}"),
            clip: 1.0,
        };
        self.update = StoredUpdate {
            examples: 0,
            train_loss: 0.0,
            train_seconds: 0.0,
            before: None,
            privacy: (round >= setup.first_paid_round() && !setup.is_central()).then_some(report),
            ..self.update
        };
        self
    }
}

impl World {
    /// The client asks what to do.
    pub(crate) fn poll(&mut self, client: usize) -> Option<v1::poll_reply::Next> {
        let Device { name, max_rank, datasets, tokens, .. } = self.devices[client].clone();
        let input = Input::Poll {
            client: name,
            datasets: datasets.iter().map(|name| (*name).to_owned()).collect(),
            bases: vec![BASE.to_owned()],
            tokens: tokens
                .map(|digest| v1::BaseTokens { base: BASE.into(), token_digest: digest.into() })
                .into_iter()
                .collect(),
            max_rank,
            version: "0.1.0".to_owned(),
        };
        match self.step(input) {
            Outcome::Answered(Reply::Poll(reply)) => {
                self.audit_message(client, &reply);
                reply.next
            }
            Outcome::Answered(other) => panic!("a poll was answered with {other:?}"),
            Outcome::Rejected(_) | Outcome::Crashed => None,
        }
    }

    pub(crate) fn answer(&mut self, client: usize, run: &RunId, accept: bool) -> Outcome {
        let Device { name, asked_rank, .. } = self.devices[client].clone();
        let reason = "policy".to_owned();
        self.step(Input::Answer { client: name, run: run.clone(), accept, reason, rank: asked_rank })
    }

    /// What the client makes of its assignment.
    pub(crate) fn pack(&self, client: usize, assignment: &v1::Assignment, variant: &str) -> Packed {
        let device = &self.devices[client];
        let v1::Assignment { run, round, kind, .. } = assignment;
        let content = format!("{run} {round} {kind} {}{variant}", device.name);
        let evaluation = v1::Evaluation { loss: 0.5, accuracy: 0.25, examples: 8, ..Default::default() };
        Packed {
            work: work_of(assignment),
            update: StoredUpdate {
                digest: Digest::of(content.as_bytes()),
                examples: 10 + device.index as u64,
                rank: assignment.rank,
                base_version: assignment.state.as_ref().map_or(0, |state| state.published.len() as u32),
                train_loss: 0.5,
                train_seconds: 1.5,
                norm: 2.0,
                bytes_up: 1000,
                before: assignment.evaluate_before.then_some(evaluation),
                min_group: 0,
                metrics_withheld: false,
                privacy: None,
            },
        }
        .kept_private(&self.setup, *round, self.rounds_of(client, assignment) + 1)
    }

    /// Rounds of a run before this one in which the client's update was taken.
    fn rounds_of(&self, client: usize, assignment: &v1::Assignment) -> u32 {
        let name = &self.devices[client].name;
        let before = |work: &WorkKey| {
            work.run.as_str() == assignment.run
                && (self.setup.first_paid_round()..assignment.round).contains(&work.round)
        };
        self.acknowledged.iter().filter(|(work, client, _)| client == name && before(work)).count() as u32
    }

    /// The client uploads, and validation accepts it.
    pub(crate) fn upload(&mut self, client: usize, packed: &Packed) -> Outcome {
        let device = &self.devices[client];
        let name = device.name.clone();
        let worth = 1 << device.index;
        let Packed { work, update } = packed.clone();
        let digest = update.digest;
        self.blobs.insert(digest, worth);
        self.devices[client].sent = Some(packed.clone());
        let outcome = self.step(Input::UpdateStored { client: name.clone(), work: work.clone(), update });
        match &outcome {
            Outcome::Answered(Reply::Upload(UploadOutcome::Accepted)) => {
                self.acknowledged.insert((work, name, digest));
            }
            Outcome::Answered(Reply::Upload(_)) | Outcome::Crashed => {}
            Outcome::Answered(other) => panic!("an update was answered with {other:?}"),
            Outcome::Rejected(_) => {
                if !self.engine.references(&digest) {
                    self.blobs.remove(&digest);
                }
            }
        }
        outcome
    }

    /// An update with something wrong.
    pub(crate) fn spoil(packed: &Packed, wrong: Wrong) -> Packed {
        let mut packed = packed.clone();
        let work = &mut packed.work;
        let update = &mut packed.update;
        match wrong {
            Wrong::Empty => update.examples = 0,
            Wrong::Loss => update.train_loss = f64::NAN,
            Wrong::Norm => update.norm = f64::INFINITY,
            Wrong::Rank => update.rank += 1,
            Wrong::Version => update.base_version += 1,
            Wrong::Round => work.round = work.round.saturating_sub(1),
            Wrong::Attempt => work.attempt += 1,
        }
        packed
    }
}
