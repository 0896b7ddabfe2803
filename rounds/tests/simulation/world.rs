//! A federation in memory: a record store with commits, a blob store, an executor and clients,
//! around one engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rondo_proto::{ClientId, Digest, RunId, v1};
use rondo_rounds::{
    AggregatePlan, CohortKey, Effect, Engine, Input, Millis, RecordKey, Rejection, Reply, Snapshot, WorkKey,
};

use crate::device::Device;
use crate::methods;
use crate::model::{Measures, Setup};

/// Digest of the only base model.
/// The digest of what makes the base's tokens.
pub(crate) const TOKENS: &str = "blake3:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
pub(crate) const BASE: &str = "blake3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The only data set.
pub(crate) const DATASET: &str = "reviews";
/// The data set of the one client that measures, where one does.
pub(crate) const PUBLIC: &str = "public";
/// Adapter rank of every run.
pub(crate) const RANK: u32 = 4;
/// Delta of every guarantee.
pub(crate) const DELTA: f64 = 1e-5;
/// Noise multiplier of guarantees per client.
pub(crate) const NOISE: f64 = 4.0;
/// The key of Poisson-sampled cohorts.
pub(crate) const KEY: CohortKey = CohortKey::new([9; 32]);
/// Deadline of every phase.
pub(crate) const DEADLINE_S: u32 = 20;
/// Rest of those who failed before a second attempt.
pub(crate) const REST_S: u32 = 5;
/// Grace time of every phase.
pub(crate) const GRACE_S: u32 = 3;

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
    /// Updates whose sender got the answer that they count.
    pub(crate) acknowledged: BTreeSet<(WorkKey, ClientId, Digest)>,
    /// States of the server optimiser, as the executor made them.
    pub(crate) servers: BTreeSet<Digest>,
    /// The key of Poisson-sampled cohorts.
    pub(crate) key: CohortKey,
    /// How often the executor has drawn noise, over all runs.
    pub(crate) drawn: u32,
}

impl World {
    /// A federation with enrolled clients and one run.
    pub(crate) fn new(setup: Setup) -> Self {
        let outsiders = usize::from(setup.measures == Measures::Outsider);
        let devices = (0..setup.clients + outsiders).map(|index| Device::new(index, &setup)).collect();
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
            acknowledged: BTreeSet::new(),
            servers: BTreeSet::new(),
            key: KEY,
            drawn: 0,
        };
        for index in 0..setup.clients + outsiders {
            world.enrol(index);
        }
        world.create();
        world
    }

    pub(crate) fn run_file(&self) -> String {
        let Setup { rounds, cohort, quorum, over_select, eval_every, max_attempts, seed, .. } = self.setup;
        let method = self.setup.method_id();
        let rollback = self.setup.rollback.map(|percent| format!("rollback = {}", f64::from(percent) / 100.0));
        let keep = if self.setup.keep_best { "best" } else { "last" };
        let refactor = self.setup.refactors().then(|| format!("refactor_every = {}", self.setup.refactor_every));
        let measures = self.setup.evaluator().map(|client| {
            format!("[evaluation]\n            client = \"c{client}\"\n            dataset = \"{PUBLIC}\"\n            public = true")
        });
        let server = self.setup.serves().then_some("[server]\n            optimiser = \"fed-avg-m\"");
        let rollback = rollback.unwrap_or_default();
        let refactor = refactor.unwrap_or_default();
        let measures = measures.unwrap_or_default();
        let server = server.unwrap_or_default();
        let private = self.setup.epsilon.is_some();
        let weighting = if self.setup.weigh_examples && !private { "examples" } else { "uniform" };
        let paid = if self.setup.pays() { "warm_up_clip = 0.5" } else { "" };
        let init = if private && method == "fed-sb" && !self.setup.pays() { "init = \"base-svd\"" } else { "" };
        let central = self.setup.is_central();
        let (unit, over_select) = if central { ("client", 0) } else { ("example", over_select) };
        let rate = if central && self.setup.by_coins { "sampling_rate = 0.5" } else { "" };
        let noise = match (central, self.setup.moves_clip) {
            (true, true) => "noise_multiplier = 0.05\n            clip_quantile = 0.5".to_owned(),
            (true, false) => format!("noise_multiplier = {NOISE}"),
            (false, _) => String::new(),
        };
        let privacy = self.setup.epsilon.map(|tenths| {
            let epsilon = f64::from(tenths) / 10.0;
            format!(
                "[privacy]\n            unit = \"{unit}\"\n            epsilon = {epsilon}\n            delta = {DELTA}\n            clip = 1.0\n            {paid}\n            {noise}\n            {rate}"
            )
        });
        let privacy = privacy.unwrap_or_default();
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
            {refactor}
            {init}
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
            keep = "{keep}"
            {rollback}
            {measures}
            {server}
            {privacy}
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
            token_digest: TOKENS.to_owned(),
        }
    }

    pub(crate) fn create(&mut self) -> Outcome {
        let run = RunId::new(format!("run-{}", self.runs.len())).unwrap();
        let run_file = self.run_file();
        let start_adapter = self.start_adapter().map(Box::new);
        let outcome = self.create_from(Input::CreateRun {
            run: run.clone(),
            run_file,
            base: Self::base(),
            start_adapter,
            key: self.key,
        });
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

    pub(crate) fn put(&mut self, content: &str, worth: u64) -> Digest {
        let digest = Digest::of(content.as_bytes());
        self.blobs.insert(digest, worth);
        digest
    }
}

pub(crate) fn work_of(assignment: &v1::Assignment) -> WorkKey {
    WorkKey { run: RunId::new(&assignment.run).unwrap(), round: assignment.round, attempt: assignment.attempt }
}
