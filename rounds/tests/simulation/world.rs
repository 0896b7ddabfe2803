//! A federation in memory: a record store with commits, a blob store, an executor and clients, around one engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rondo_proto::{ClientId, Digest, RunId, v1};
use rondo_rounds::{
    AggregatePlan, Effect, Engine, Input, Millis, RecordKey, Rejection, Reply, Snapshot, StoredUpdate, UploadOutcome,
    WorkKey,
};

use crate::methods;
use crate::model::{Setup, Wrong};

/// Digest of the only base model.
const BASE: &str = "blake3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The only data set.
const DATASET: &str = "reviews";
/// Adapter rank of every run.
pub(crate) const RANK: u32 = 4;
/// Deadline of every phase.
pub(crate) const DEADLINE_S: u32 = 20;
/// Grace time of every phase.
pub(crate) const GRACE_S: u32 = 3;

/// A client's machine.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) name: ClientId,
    /// Its update is worth 2^index.
    pub(crate) index: usize,
    pub(crate) max_rank: u32,
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

/// When the coordinator dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    BeforeCommit,
    AfterCommit,
}

/// What became of an input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Answered(Reply),
    Rejected(Rejection),
    /// The coordinator died; the sender hears nothing.
    Crashed,
}

impl Outcome {
    pub(crate) fn rejection(self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection,
            other => panic!("expected a rejection, got {other:?}"),
        }
    }

    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Answered(reply) => reply,
            other => panic!("expected a reply, got {other:?}"),
        }
    }
}

/// The federation.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Millis,
    pub(crate) engine: Engine,
    /// Records as committed.
    pub(crate) store: BTreeMap<RecordKey, Vec<u8>>,
    /// Blobs, by what they are worth: an update 2^k, an aggregate the sum, frozen tensors 0.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    /// Aggregations that were ordered.
    pub(crate) queue: VecDeque<AggregatePlan>,
    pub(crate) devices: Vec<Device>,
    pub(crate) runs: Vec<RunId>,
    pub(crate) crash: Option<Crash>,
    pub(crate) last: Option<Input>,
    /// The executor's latest result, and what it is worth.
    pub(crate) result: Option<(Input, u64)>,
    /// Updates whose sender was told that they count.
    pub(crate) promised: BTreeSet<(WorkKey, ClientId, Digest)>,
}

impl World {
    /// A federation with enrolled clients and one run.
    pub(crate) fn new(setup: Setup) -> Self {
        let devices = (0..setup.clients)
            .map(|index| Device {
                name: ClientId::new(format!("c{index}")).unwrap(),
                index,
                max_rank: if index == 5 { RANK / 2 } else { 0 },
                assignment: None,
                spool: VecDeque::new(),
                sent: None,
                cache: BTreeSet::new(),
            })
            .collect();
        let mut world = Self {
            setup,
            now: 1_000_000,
            engine: Engine::new(methods::registry()),
            store: BTreeMap::new(),
            blobs: BTreeMap::new(),
            queue: VecDeque::new(),
            devices,
            runs: Vec::new(),
            crash: None,
            last: None,
            result: None,
            promised: BTreeSet::new(),
        };
        for index in 0..setup.clients {
            world.enrol(index);
        }
        world.create();
        world
    }

    pub(crate) fn run_file(&self) -> String {
        let Setup { method, rounds, cohort, quorum, over_select, eval_every, max_attempts, seed, .. } = self.setup;
        let method = methods::IDS[method % methods::IDS.len()];
        let weighting = if self.setup.weigh_examples { "examples" } else { "uniform" };
        format!(
            r#"name = "simulated"
            base = {{ model = "tiny", digest = "{BASE}" }}
            [task]
            kind = "classification"
            dataset = "{DATASET}"
            labels = ["no", "yes"]
            [method]
            id = "{method}"
            rank = {RANK}
            targets = ["query"]
            [train]
            local_steps = 1
            batch = 1
            lr = 0.001
            seed = {seed}
            [rounds]
            count = {rounds}
            cohort = {cohort}
            quorum = {quorum}
            over_select = {over_select}
            deadline_s = {DEADLINE_S}
            grace_s = {GRACE_S}
            eval_every = {eval_every}
            max_attempts = {max_attempts}
            weighting = "{weighting}"
            "#
        )
    }

    pub(crate) fn base() -> v1::BaseModel {
        let linear = |layer: u32| v1::LinearLayer {
            name: format!("encoder.layer.{layer}.attention.self.query"),
            out_features: 16,
            in_features: 16,
        };
        v1::BaseModel {
            name: "tiny".to_owned(),
            digest: BASE.to_owned(),
            architecture: "bert".to_owned(),
            parameters: 1000,
            hidden_size: 16,
            max_positions: 128,
            linears: vec![linear(0), linear(1)],
            files: Vec::new(),
        }
    }

    pub(crate) fn create(&mut self) -> Outcome {
        let run = RunId::new(format!("run-{}", self.runs.len())).unwrap();
        let input = Input::CreateRun { run: run.clone(), run_file: self.run_file(), base: Self::base() };
        let outcome = self.step(input);
        if !matches!(outcome, Outcome::Rejected(_)) && self.engine.run_file(&run).is_some() {
            self.runs.push(run);
        }
        outcome
    }

    pub(crate) fn enrol(&mut self, client: usize) -> Outcome {
        let client = self.devices[client].name.clone();
        self.step(Input::Enrolled { client, fingerprint: "00".to_owned(), expires: i64::MAX, approved: true })
    }

    /// Gives one input to the coordinator, which commits and then acts.
    pub(crate) fn step(&mut self, input: Input) -> Outcome {
        self.last = Some(input.clone());
        let before = self.engine.state().clone();
        let step = match self.engine.step(self.now, input) {
            Ok(step) => step,
            Err(rejection) => {
                assert!(*self.engine.state() == before, "a rejection changed the state: {rejection}");
                return Outcome::Rejected(rejection);
            }
        };
        let crash = self.crash.take();
        if crash == Some(Crash::BeforeCommit) {
            self.restart();
            return Outcome::Crashed;
        }
        for key in &step.changed {
            self.commit(key);
        }
        self.audit();
        // Whatever was due is done, so a driver that sleeps until then does not spin.
        if let Some(wake) = self.engine.next_wake() {
            assert!(wake > self.now, "asks to be woken at {wake}, but it is {}", self.now);
        }
        if crash == Some(Crash::AfterCommit) {
            self.restart();
            return Outcome::Crashed;
        }
        for effect in step.effects {
            self.perform(effect);
        }
        self.audit_blobs();
        Outcome::Answered(step.reply)
    }

    fn commit(&mut self, key: &RecordKey) {
        let is_final = matches!(key, RecordKey::Spec(_) | RecordKey::Round(..));
        match self.engine.record(key) {
            Some(bytes) => {
                let before = self.store.insert(key.clone(), bytes);
                assert!(before.is_none() || !is_final, "{key} was written twice");
            }
            None => {
                self.store.remove(key);
                assert!(!is_final, "{key} was deleted");
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Aggregate(plan) => self.queue.push_back(*plan),
            Effect::DropBlobs { digests, .. } => digests.iter().for_each(|digest| {
                self.blobs.remove(digest);
            }),
            Effect::Announce(event) => assert!(!event.text.is_empty()),
        }
    }

    /// The coordinator dies and comes back with what was committed.
    pub(crate) fn restart(&mut self) {
        let snapshot = Snapshot { records: self.store.clone() };
        let (engine, effects) = Engine::resume(snapshot, methods::registry()).unwrap();
        self.engine = engine;
        self.queue.clear();
        let needed = self.engine.blobs();
        self.blobs.retain(|digest, _| needed.contains(digest));
        for effect in effects {
            assert!(matches!(effect, Effect::Aggregate(_)), "{effect:?} after a restart");
            self.perform(effect);
        }
        self.audit();
        self.audit_blobs();
    }

    /// The executor takes the oldest order.
    pub(crate) fn aggregate(&mut self) -> Option<Input> {
        let plan = self.queue.pop_front()?;
        let weights: f64 = plan.updates.iter().map(|update| update.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9, "weights sum to {weights}");
        assert!(plan.updates.is_sorted_by(|a, b| a.client < b.client), "updates are not in client order");
        let missing = plan.published.iter().chain(&plan.frozen).find(|digest| !self.blobs.contains_key(digest));
        assert!(missing.is_none(), "the plan needs {missing:?}");
        // An order of an attempt that is over may find its updates dropped; its result would be let go anyway.
        let sum = plan.updates.iter().map(|update| self.blobs.get(&update.digest).copied()).sum::<Option<u64>>();
        let WorkKey { run, round, attempt } = &plan.work;
        let Some(sum) = sum else {
            return Some(Input::AggregateFailed { work: plan.work, reason: "updates are gone".to_owned() });
        };
        let global = self.put(&format!("{run} {round} {attempt} aggregate {sum}"), sum);
        let frozen =
            (plan.kind == rondo_rounds::RoundKind::WarmUp).then(|| self.put(&format!("{run} frozen {sum}"), 0));
        let result = Input::Aggregated {
            work: plan.work,
            global,
            global_bytes: 100,
            frozen,
            frozen_bytes: 50,
            error: Some(0.0),
            notes: Vec::new(),
        };
        self.result = Some((result.clone(), sum));
        Some(result)
    }

    pub(crate) fn put(&mut self, content: &str, worth: u64) -> Digest {
        let digest = Digest::of(content.as_bytes());
        self.blobs.insert(digest, worth);
        digest
    }

    /// The client asks what to do.
    pub(crate) fn poll(&mut self, client: usize) -> Option<v1::poll_reply::Next> {
        let Device { name, max_rank, .. } = self.devices[client].clone();
        let input = Input::Poll {
            client: name,
            datasets: vec![DATASET.to_owned()],
            bases: vec![BASE.to_owned()],
            max_rank,
            version: "0.1.0".to_owned(),
        };
        match self.step(input) {
            Outcome::Answered(Reply::Poll(reply)) => reply.next,
            Outcome::Answered(other) => panic!("a poll was answered with {other:?}"),
            Outcome::Rejected(_) | Outcome::Crashed => None,
        }
    }

    pub(crate) fn answer(&mut self, client: usize, run: &RunId, accept: bool) -> Outcome {
        let (client, reason) = (self.devices[client].name.clone(), "policy".to_owned());
        self.step(Input::Answer { client, run: run.clone(), accept, reason, rank: 0 })
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
            },
        }
    }

    /// The client uploads, and the door lets it in.
    pub(crate) fn upload(&mut self, client: usize, packed: &Packed) -> Outcome {
        let device = &self.devices[client];
        let (name, worth) = (device.name.clone(), 1 << device.index);
        let Packed { work, update } = packed.clone();
        let digest = update.digest;
        self.blobs.insert(digest, worth);
        self.devices[client].sent = Some(packed.clone());
        let outcome = self.step(Input::UpdateStored { client: name.clone(), work: work.clone(), update });
        match &outcome {
            Outcome::Answered(Reply::Upload(UploadOutcome::Accepted)) => {
                self.promised.insert((work, name, digest));
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
        let (work, update) = (&mut packed.work, &mut packed.update);
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

pub(crate) fn work_of(assignment: &v1::Assignment) -> WorkKey {
    WorkKey { run: RunId::new(&assignment.run).unwrap(), round: assignment.round, attempt: assignment.attempt }
}
