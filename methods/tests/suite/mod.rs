//! A small federation for tests: a base with two odd-shaped targets, a job, clients that "train" by
//! moving trained tensors, and coordinators that aggregate their files. Knows no method by name.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod checks;
pub mod outside;
pub mod questions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_methods::init::base_factors;
use rondo_methods::init::seeded::{Identity, uniform};
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{
    AdapterState, AggregateInput, AggregateOutput, BaseFactors, Contribution, Instance, Job, Kind, Matrix, MethodError,
    OptionKind, Probe, Registry, Statistic, Tensor, TensorSet,
};
use rondo_proto::run_file::RunFile;
use rondo_proto::v1;

/// Hidden size 6; targets of shapes [6, 6], [9, 6] and [5, 9], so that a mixed-up dimension shows.
pub fn base() -> v1::BaseModel {
    let linear =
        |name: &str, out: u32, inp: u32| v1::LinearLayer { name: name.to_owned(), out_features: out, in_features: inp };
    v1::BaseModel {
        name: "tiny".into(),
        digest: "blake3:00".into(),
        architecture: "bert".into(),
        hidden_size: 6,
        max_positions: 32,
        linears: vec![
            linear("encoder.layer.0.attention.self.query", 6, 6),
            linear("encoder.layer.0.intermediate.dense", 9, 6),
            linear("encoder.layer.0.output.dense", 5, 9),
            linear("encoder.layer.0.attention.self.key", 6, 6),
        ],
        ..Default::default()
    }
}

/// A run file for a method; `options` are further lines of its `[method]` table.
pub fn run_file(id: &str, rank: usize, options: &str, rest: &str) -> RunFile {
    let text = format!(
        r#"
        name = "suite"
        base = {{ model = "tiny" }}
        [task]
        kind = "classification"
        dataset = "none"
        labels = ["no", "perhaps", "yes"]
        [method]
        id = "{id}"
        rank = {rank}
        targets = ["query", "intermediate.dense", "output.dense"]
        {options}
        [train]
        local_steps = 1
        batch = 1
        lr = 0.01
        seed = 7
        [rounds]
        count = 3
        cohort = 1
        quorum = 1
        {rest}
        "#
    );
    RunFile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Deterministic noise in (-bound, bound).
pub fn noise(salt: &str, shape: &[usize], bound: f64) -> Tensor {
    uniform(Identity { seed: 99, name: salt, fresh: None }, shape, bound)
}

/// Option lines under which a method is examined: none, and every option moved once.
pub fn variants(registry: &Registry, id: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for option in registry.get(id).unwrap().options() {
        match option.kind {
            OptionKind::Choice(words) => lines.extend(words.iter().map(|word| format!("{} = \"{word}\"", option.name))),
            // Also 2: what happens every so many rounds then happens between rounds that it does
            // not touch.
            OptionKind::Count { min, max } => {
                let counts = std::collections::BTreeSet::from([1.clamp(min, max), 2.clamp(min, max)]);
                lines.extend(counts.iter().map(|count| format!("{} = {count}", option.name)));
            }
            OptionKind::Positive | OptionKind::Fraction => lines.push(format!("{} = 0.25", option.name)),
            OptionKind::NonNegative => lines.extend([0.0, 0.25].map(|x| format!("{} = {x:?}", option.name))),
            OptionKind::Toggle => lines.extend([true, false].map(|x| format!("{} = {x}", option.name))),
            OptionKind::Counts { min, max } => {
                let second = (min + 1).min(max);
                lines.extend([format!("{} = [{min}]", option.name), format!("{} = [{second}, {min}]", option.name)]);
            }
            OptionKind::Names => lines.push(format!("{} = [\"query\", \"other\"]", option.name)),
        }
    }
    // A method may refuse a scale, but then it says so.
    match Job::new(registry, &run_file(id, 2, "alpha = 5.0", ""), &base()) {
        Ok(_) => lines.push("alpha = 5.0".into()),
        Err(error) => {
            assert!(matches!(error, MethodError::OptionValue { ref option, .. } if option == "alpha"), "{error}")
        }
    }
    lines
}

/// A run in progress.
pub struct Federation {
    pub job: Job,
    pub dir: tempfile::TempDir,
    pub frozen: Option<PathBuf>,
    pub published: Vec<PathBuf>,
    pub server_state: Option<PathBuf>,
    pub round: u32,
}

/// A client's trained adapter.
#[derive(Clone)]
pub struct Trained {
    pub client: String,
    pub weight: f64,
    pub rank: usize,
    pub tensors: TensorSet,
}

impl Federation {
    /// Starts a run and, when the method asks, does its warm-up with three clients.
    pub fn start(registry: &Registry, id: &str, rank: usize, options: &str, rest: &str) -> Self {
        let run = run_file(id, rank, options, rest);
        Self::of(Job::new(registry, &run, &base()).unwrap_or_else(|error| panic!("{id} {options}: {error}")))
    }

    /// The same for a job that is there already.
    pub fn of(job: Job) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut federation = Self { job, dir, frozen: None, published: Vec::new(), server_state: None, round: 0 };
        if federation.job.needs_warm_up() {
            let updates = federation.statistics(&[("a", 0.25), ("b", 0.25), ("c", 0.5)]);
            federation.finish(Kind::WarmUp, updates).unwrap();
        }
        federation.round = 1;
        federation
    }

    /// A client's adapter in this round.
    pub fn instance<'a>(&self, client: &'a str, rank: usize) -> Instance<'a> {
        Instance::in_round(self.round).with_rank(rank).of_client(client)
    }

    pub fn state(&self, client: &str, rank: usize) -> AdapterState {
        self.job.state(self.round, client, rank, self.frozen.as_deref(), &self.published).unwrap()
    }

    /// A client's state with everything that trains in this round moved by noise of its own.
    pub fn train(&self, client: &str, weight: f64, rank: usize, salt: &str) -> Trained {
        let mut trained = self.idle(client, weight, rank);
        for named in self.job.layout(self.instance(client, rank)) {
            let Some(shape) = named.spec.trained_shape() else { continue };
            let whole = trained.tensors.remove(&named.name).unwrap();
            let mut block = whole.leading(shape);
            let step = noise(&format!("{salt} {} {}", self.round, named.name), shape, 0.5);
            block.data.iter_mut().zip(&step.data).for_each(|(x, dx)| *x += dx);
            trained.tensors.insert(named.name, whole.with_leading(&block));
        }
        trained
    }

    /// A client that changed nothing.
    pub fn idle(&self, client: &str, weight: f64, rank: usize) -> Trained {
        let state = self.state(client, rank);
        Trained { client: client.to_owned(), weight, rank, tensors: state.tensors }
    }

    /// Three clients of different weight; of different rank where the method mixes ranks.
    pub fn three(&self) -> Vec<Trained> {
        let rank = self.job.rank();
        let second = if self.job.mixed_ranks() { rank - 1 } else { rank };
        self.three_of([rank, second, rank])
    }

    /// Three clients of different weight and of these ranks.
    pub fn three_of(&self, ranks: [usize; 3]) -> Vec<Trained> {
        let clients = [("anna", 0.2), ("bert", 0.3), ("carl", 0.5)];
        clients.iter().zip(ranks).map(|(&(name, weight), rank)| self.train(name, weight, rank, name)).collect()
    }

    pub fn upload(&self, trained: &Trained) -> Contribution {
        let path = self.dir.path().join(format!("{}-{}.safetensors", self.round, trained.client));
        self.job
            .write_update(Kind::Train, self.instance(&trained.client, trained.rank), &trained.tensors, &path)
            .unwrap();
        Contribution { client: trained.client.clone(), weight: trained.weight, rank: trained.rank, path }
    }

    pub fn aggregate(
        &self,
        kind: Kind,
        updates: Vec<Contribution>,
        folder: &str,
    ) -> Result<AggregateOutput, MethodError> {
        let out_dir = self.dir.path().join(folder);
        std::fs::create_dir_all(&out_dir).unwrap();
        let (frozen, published) = (self.frozen.clone(), self.published.clone());
        let input = AggregateInput {
            kind,
            round: self.round,
            updates,
            frozen,
            published,
            server: self.job.server(),
            server_state: self.server_state.clone(),
            out_dir: &out_dir,
            progress: &|_, _| {},
        };
        self.job.aggregate(input)
    }

    /// Aggregates and publishes; the next round begins.
    pub fn finish(&mut self, kind: Kind, updates: Vec<Contribution>) -> Result<AggregateOutput, MethodError> {
        let output = self.aggregate(kind, updates, &format!("round-{}", self.round))?;
        self.published.push(output.global.clone());
        self.frozen = output.frozen.clone().or(self.frozen.take());
        self.server_state = output.server_state.clone().or(self.server_state.take());
        self.round += 1;
        Ok(output)
    }

    /// A round of these clients, without keeping it: the dense delta of every target afterwards.
    pub fn outcome(&self, trained: &[Trained], folder: &str) -> Vec<Matrix> {
        let updates = trained.iter().map(|trained| self.upload(trained)).collect();
        let output = self.aggregate(Kind::Train, updates, folder).unwrap();
        let mut published = self.published.clone();
        published.push(output.global);
        let frozen = output.frozen.or(self.frozen.clone());
        self.deltas(&self.job.state(self.round + 1, "observer", 0, frozen.as_deref(), &published).unwrap())
    }

    /// The whole change of every target.
    pub fn deltas(&self, state: &AdapterState) -> Vec<Matrix> {
        (0..self.job.targets().len()).map(|target| self.job.dense_delta(state, target).unwrap()).collect()
    }

    /// The changes of one client's own adapter, without what was merged before.
    pub fn own_deltas(&self, trained: &Trained) -> Vec<Matrix> {
        let instance = self.instance(&trained.client, trained.rank);
        let dense = |(index, target): (usize, &rondo_methods::Target)| {
            self.job.delta(index, instance).dense(&parts_of(&trained.tensors, &target.name)).unwrap()
        };
        self.job.targets().iter().enumerate().map(dense).collect()
    }

    /// The changes that a client's whole model holds: its own adapter and what was merged before.
    pub fn models(&self, trained: &Trained) -> Vec<Matrix> {
        let merged = self.state(&trained.client, trained.rank).merged;
        let (round, rank, tensors) = (self.round, trained.rank, trained.tensors.clone());
        self.deltas(&AdapterState { round, client: trained.client.clone(), rank, tensors, merged })
    }

    /// Warm-up uploads of these clients.
    pub fn statistics(&self, clients: &[(&str, f64)]) -> Vec<Contribution> {
        let plan = self.job.warm_up();
        let upload = |&(client, weight): &(&str, f64)| {
            let mut tensors = TensorSet::new();
            for probe in plan.iter().flat_map(|step| step.probes.iter().map(|probe| (step.statistic, probe))) {
                tensors.extend(match probe {
                    (Statistic::Base(factors), probe) => self.base_factors(factors, probe),
                    (Statistic::Gradient, probe) => self.probe_gradients(client, probe),
                });
            }
            let path = self.dir.path().join(format!("warm-up-{client}.safetensors"));
            self.job.write_update(Kind::WarmUp, Instance::in_round(0).of_client(client), &tensors, &path).unwrap();
            Contribution { client: client.to_owned(), weight, rank: self.job.rank(), path }
        };
        clients.iter().map(upload).collect()
    }

    /// A base weight, which every client has.
    pub fn base_weight(&self, target: usize) -> Matrix {
        let target = &self.job.targets()[target];
        noise(&format!("base {}", target.name), &[target.out, target.inp], 1.0).to_matrix()
    }

    fn base_factors(&self, factors: BaseFactors, probe: &Probe) -> TensorSet {
        let rank = base_factors::rank_of(factors, probe.layout.iter().map(|named| &named.spec)).unwrap();
        let parts = base_factors::compute(factors, &self.base_weight(probe.target), rank).unwrap();
        let target = &self.job.targets()[probe.target].name;
        parts.into_iter().map(|(part, tensor)| (full_name(target, &part), tensor)).collect()
    }

    /// The true full gradient of a client, which no real client forms.
    pub fn gradient(&self, client: &str, target: usize) -> Matrix {
        let target = &self.job.targets()[target];
        noise(&format!("gradient {client} {}", target.name), &[target.out, target.inp], 1.0).to_matrix()
    }

    /// dL/dX of every trained part X of the probe: the delta is linear in each while the others are
    /// zero, so the derivative is the inner product of the gradient with the delta of a unit entry.
    fn probe_gradients(&self, client: &str, asked: &Probe) -> TensorSet {
        let mut probe = self.job.warm_up_initial();
        let mut gradients = TensorSet::new();
        for named in asked.layout.iter().filter(|named| named.spec.travel.goes_up()) {
            let name = self.job.targets()[asked.target].name.clone();
            let gradient = self.gradient(client, asked.target);
            let mut values = Tensor::zeros(&named.spec.shape);
            for index in 0..values.len() {
                probe.get_mut(&named.name).unwrap().data[index] = 1.0;
                let delta = asked.delta.dense(&parts_of(&probe, &name)).unwrap();
                values.data[index] = delta.data().iter().zip(gradient.data()).map(|(d, g)| d * g).sum::<f64>() as f32;
                probe.get_mut(&named.name).unwrap().data[index] = 0.0;
            }
            gradients.insert(named.name.clone(), values);
        }
        gradients
    }
}

/// sum_k w_k M_k, target by target.
pub fn weighted(terms: &[(f64, Vec<Matrix>)]) -> Vec<Matrix> {
    let mut sums: Vec<Matrix> = terms[0].1.iter().map(|matrix| Matrix::zeros(matrix.rows(), matrix.cols())).collect();
    for (weight, matrices) in terms {
        sums.iter_mut().zip(matrices).for_each(|(sum, matrix)| sum.add_scaled(*weight, matrix));
    }
    sums
}

/// ||a - b|| / ||b|| over all targets together.
pub fn distance(a: &[Matrix], b: &[Matrix]) -> f64 {
    let square = |matrices: &[Matrix]| matrices.iter().map(|matrix| matrix.norm().powi(2)).sum::<f64>();
    let difference = weighted(&[(1.0, a.to_vec()), (-1.0, b.to_vec())]);
    if square(&difference) == 0.0 { 0.0 } else { (square(&difference) / square(b)).sqrt() }
}

pub fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Bytes of a tensor file behind its header.
pub fn data_bytes(path: &Path) -> u64 {
    let bytes = bytes_of(path);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes.len() as u64 - 8 - header
}

pub fn no_metadata() -> BTreeMap<String, String> {
    BTreeMap::new()
}
