//! Aggregation, files in and files out. Goes target by target and holds one target of one update at a time, so memory
//! does not grow with the number of clients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::Dtype;

use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::{TensorFile, TensorWriter};
use crate::job::{Job, Kind};
use crate::law::{LawKind, Part, stack_delta};
use crate::layout::{NamedSpec, Start};
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet, full_name, parts_of};

/// One client's accepted update.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// The client.
    pub client: String,
    /// Its share; all shares sum to 1 (see [`crate::law::shares`]).
    pub weight: f64,
    /// The rank it trained with.
    pub rank: usize,
    /// Its update file, which has passed the door.
    pub path: PathBuf,
}

/// What to aggregate, and where to.
pub struct AggregateInput<'a> {
    /// Statistic or training update.
    pub kind: Kind,
    /// The round, counted from 1; 0 is the warm-up.
    pub round: u32,
    /// The updates; they are taken in client-id order, whatever their order here.
    pub updates: Vec<Contribution>,
    /// The frozen artefact in force, if any.
    pub frozen: Option<PathBuf>,
    /// Every file published before; their count is the version of the base that clients trained on.
    pub published: Vec<PathBuf>,
    /// Existing folder for the files to be made.
    pub out_dir: &'a Path,
    /// Called with (done, total) pieces of work.
    pub progress: &'a dyn Fn(usize, usize),
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateOutput {
    /// The published file.
    pub global: PathBuf,
    /// A new frozen artefact, when this round made one.
    pub frozen: Option<PathBuf>,
    /// ||aggregate - dense weighted mean|| / ||dense weighted mean|| over all targets; none for a warm-up.
    pub error: Option<f64>,
    /// Remarks for the round record.
    pub notes: Vec<String>,
}

impl Job {
    /// Aggregates a round's updates, or a warm-up's statistics, into `out_dir/global.safetensors` and, when tensors were
    /// newly frozen, `out_dir/frozen.safetensors`. Safe to repeat: equal input gives equal bytes.
    pub fn aggregate(&self, mut input: AggregateInput<'_>) -> Result<AggregateOutput, MethodError> {
        input.updates.sort_by(|a, b| a.client.cmp(&b.client));
        self.check_contributions(&input)?;
        let ranks: Vec<usize> = input.updates.iter().map(|update| update.rank).collect();
        let global = input.out_dir.join("global.safetensors");
        let metadata = BTreeMap::from([
            ("rondo.method".to_owned(), self.method().id().to_owned()),
            ("rondo.round".to_owned(), input.round.to_string()),
            (crate::job::VERSION.to_owned(), input.published.len().to_string()),
            (crate::job::SEEDS.to_owned(), self.seeds_digest()),
        ]);
        let mut publisher =
            TensorWriter::create(&global, self.published_tensors(&ranks), self.wire_dtype(), &metadata)?;
        let mut froze = Frozen { path: input.out_dir.join("frozen.safetensors"), tensors: TensorSet::new() };
        let mut work = Work { job: self, input: &input, done: 0, error: AggregationError::default() };
        for target in 0..self.targets().len() {
            let made = match input.kind {
                Kind::WarmUp => work.warm_up(target)?,
                Kind::Train => work.train(target)?,
            };
            for (name, tensor) in made.published {
                publisher.write(&name, &tensor)?;
            }
            froze.tensors.extend(made.frozen);
        }
        for (name, tensor) in work.head()? {
            publisher.write(&name, &tensor)?;
        }
        let error = work.error.relative().filter(|_| input.kind == Kind::Train);
        publisher.finish()?;
        let mut notes = Vec::new();
        let frozen = froze.write(self, &metadata)?;
        if frozen.is_some() && input.kind == Kind::Train {
            notes.push(format!("frozen tensors were derived anew after round {}", input.round));
        }
        if error.is_none() && input.kind == Kind::Train {
            notes.push("the dense weighted mean is zero, so there is no relative aggregation error".into());
        }
        Ok(AggregateOutput { global, frozen, error, notes })
    }

    fn check_contributions(&self, input: &AggregateInput<'_>) -> Result<(), MethodError> {
        let refuse = |problem: String| Err(MethodError::Contributions(problem));
        if input.updates.is_empty() {
            return refuse("there are no updates".into());
        }
        if input.kind == Kind::WarmUp && !self.needs_warm_up() {
            return refuse(format!("method `{}` has no warm-up", self.method().id()));
        }
        if let Some(pair) = input.updates.windows(2).find(|pair| pair[0].client == pair[1].client) {
            return refuse(format!("client {} comes twice", pair[0].client));
        }
        let sum: f64 = input.updates.iter().map(|update| update.weight).sum();
        let sound = input.updates.iter().all(|update| update.weight.is_finite() && update.weight >= 0.0);
        if !sound || (sum - 1.0).abs() > 1e-6 {
            return refuse(format!("shares must be finite, not negative and sum to 1, they sum to {sum}"));
        }
        for update in &input.updates {
            if self.client_rank(update.rank)? != update.rank {
                return refuse(format!("client {} comes with rank 0", update.client));
            }
        }
        Ok(())
    }
}

/// Newly frozen tensors, gathered over the targets: one adapter's worth at most.
struct Frozen {
    path: PathBuf,
    tensors: TensorSet,
}

impl Frozen {
    fn write(self, job: &Job, metadata: &BTreeMap<String, String>) -> Result<Option<PathBuf>, MethodError> {
        if self.tensors.is_empty() {
            return Ok(None);
        }
        let announced = job.frozen_tensors();
        let mut writer = TensorWriter::create(&self.path, announced.clone(), Dtype::F32, metadata)?;
        for (name, _) in announced {
            let place = || "what the method derived".to_owned();
            let tensor = self.tensors.get(&name);
            writer
                .write(&name, tensor.ok_or_else(|| MethodError::Missing { tensor: name.clone(), place: place() })?)?;
        }
        writer.finish()?;
        Ok(Some(self.path))
    }
}

/// What one target contributes to the files, by full name, in the published file's order.
struct Made {
    published: Vec<(String, Tensor)>,
    frozen: TensorSet,
}

struct Work<'a> {
    job: &'a Job,
    input: &'a AggregateInput<'a>,
    done: usize,
    error: AggregationError,
}

impl Work<'_> {
    fn tick(&mut self) {
        self.done += 1;
        let pieces = self.job.targets().len() + usize::from(self.job.head().is_some());
        (self.input.progress)(self.done, pieces * self.input.updates.len());
    }

    /// One target's statistic becomes its first tensors.
    fn warm_up(&mut self, index: usize) -> Result<Made, MethodError> {
        let (job, input) = (self.job, self.input);
        let (target, probe) = (&job.targets()[index], &job.probes()[index]);
        let sent: Vec<String> =
            probe.layout.iter().filter(|spec| spec.travel.goes_up()).map(|spec| spec.part.clone()).collect();
        let layout: Vec<NamedSpec> =
            job.warm_up_layout().into_iter().filter(|named| named.target == Some(index)).collect();
        let seeded: TensorSet = layout
            .iter()
            .filter(|named| !named.spec.travel.goes_up())
            .filter_map(|named| Some((named.spec.part.clone(), job.start(named, None)?.1)))
            .collect();
        let mut law = probe.law.start(&target.name);
        for update in &input.updates {
            let mut tensors = read_parts(&update.path, &target.name, &sent)?;
            tensors.extend(seeded.clone());
            let part = Part {
                client: &update.client,
                weight: update.weight,
                delta: &probe.delta,
                tensors: &tensors,
                sent: &sent,
            };
            law.absorb(&part)?;
            self.tick();
        }
        let mut statistic = law.finish()?;
        statistic.extend(seeded);
        let made = job.method().finish_warm_up(job.config(), target, &statistic)?;
        self.assemble(index, made, |named| named.spec.start == Start::Artefact)
    }

    /// One target's updates become the aggregate; also measures how exact it is.
    fn train(&mut self, index: usize) -> Result<Made, MethodError> {
        let (job, input) = (self.job, self.input);
        let target = &job.targets()[index];
        let law_kind = job.method().law();
        let mut law = law_kind.start(&target.name);
        let mut mean = Matrix::zeros(target.out, target.inp);
        let shared = self.frozen_parts(index, job.rank(), "")?;
        let failed = |source| MethodError::delta(&target.name, source);
        for update in &input.updates {
            let own = job.method().fresh_each_round() || update.rank != job.rank();
            let frozen = if own { self.frozen_parts(index, update.rank, &update.client)? } else { shared.clone() };
            let specs = job.method().layout(job.config(), target, update.rank);
            let sent: Vec<String> =
                specs.into_iter().filter(|spec| spec.travel.goes_up()).map(|spec| spec.part).collect();
            let mut tensors = read_parts(&update.path, &target.name, &sent)?;
            tensors.extend(frozen);
            let delta = job.delta(update.rank);
            mean.add_scaled(update.weight, &delta.dense(&tensors).map_err(failed)?);
            let part =
                Part { client: &update.client, weight: update.weight, delta: &delta, tensors: &tensors, sent: &sent };
            law.absorb(&part)?;
            self.tick();
        }
        let mut aggregate = law.finish()?;
        let wire = job.wire_dtype();
        if law_kind == LawKind::Stack {
            aggregate.values_mut().for_each(|tensor| tensor.round_to(wire));
            self.error.add(&stack_delta().dense(&aggregate).map_err(failed)?, &mean);
            let named = aggregate.into_iter().map(|(part, tensor)| (full_name(&target.name, &part), tensor));
            return Ok(Made { published: named.collect(), frozen: TensorSet::new() });
        }
        aggregate.extend(shared);
        let refactored = job.method().refactor(job.config(), input.round, target, &aggregate)?;
        let renewed = refactored.is_some();
        aggregate.extend(refactored.unwrap_or_default());
        let made = self.assemble(index, aggregate, |named| renewed || named.spec.travel.is_published())?;
        let mut whole: TensorSet = self.frozen_parts(index, job.rank(), "")?;
        whole.extend(parts_of(&made.frozen, &target.name));
        whole.extend(parts_of(&made.published.iter().cloned().collect(), &target.name));
        self.error.add(&job.delta(job.rank()).dense(&whole).map_err(failed)?, &mean);
        Ok(made)
    }

    /// The frozen tensors that a client of this rank trained with, by part name.
    fn frozen_parts(&self, index: usize, rank: usize, client: &str) -> Result<TensorSet, MethodError> {
        let job = self.job;
        let target = &job.targets()[index];
        let fresh = job.method().fresh_each_round().then_some((self.input.round, client));
        let mut parts = TensorSet::new();
        let file = self.input.frozen.as_deref().map(TensorFile::open).transpose()?;
        for spec in job.method().layout(job.config(), target, rank) {
            if spec.travel.goes_up() {
                continue;
            }
            let name = full_name(&target.name, &spec.part);
            let named = NamedSpec { name: name.clone(), target: Some(index), spec };
            let tensor = match &file {
                Some(file) if crate::job::is_shipped_frozen(&named.spec) => file.read(&name)?,
                _ => match job.start(&named, fresh) {
                    Some((_, tensor)) => tensor,
                    None => {
                        let place = "the frozen artefact: the warm-up round brings it".to_owned();
                        return Err(MethodError::Missing { tensor: name, place });
                    }
                },
            };
            parts.insert(named.spec.part, tensor);
        }
        Ok(parts)
    }

    /// Sorts a target's tensors (by part name) into the published file and the frozen artefact. What `due` asks for must
    /// be there; other published tensors keep their start.
    fn assemble(
        &self,
        index: usize,
        mut made: TensorSet,
        due: impl Fn(&NamedSpec) -> bool,
    ) -> Result<Made, MethodError> {
        let job = self.job;
        let target = &job.targets()[index];
        let mut out = Made { published: Vec::new(), frozen: TensorSet::new() };
        for spec in job.method().layout(job.config(), target, job.rank()) {
            let named = NamedSpec { name: full_name(&target.name, &spec.part), target: Some(index), spec };
            let (shipped, published) = (crate::job::is_shipped_frozen(&named.spec), named.spec.travel.is_published());
            if !(published || shipped && due(&named)) {
                continue;
            }
            let place = || "what the method made of the aggregate".to_owned();
            let tensor = match made.remove(&named.spec.part) {
                Some(tensor) => Some(tensor),
                None if due(&named) => None,
                None => job.start(&named, None).map(|(_, tensor)| tensor),
            };
            let mut tensor =
                tensor.ok_or_else(|| MethodError::Missing { tensor: named.name.clone(), place: place() })?;
            if tensor.shape != named.spec.shape {
                let (expected, got) = (named.spec.shape, tensor.shape);
                return Err(MethodError::Shape { tensor: named.name, place: place(), expected, got });
            }
            if published {
                tensor.round_to(job.wire_dtype());
                out.published.push((named.name, tensor));
            } else {
                out.frozen.insert(named.name, tensor);
            }
        }
        Ok(out)
    }

    /// The head is averaged, whatever the method; before the first training round it stands at its start.
    fn head(&mut self) -> Result<Vec<(String, Tensor)>, MethodError> {
        let (job, input) = (self.job, self.input);
        let layout: Vec<NamedSpec> =
            job.head_layout().into_iter().filter(|named| named.spec.travel.is_published()).collect();
        if layout.is_empty() {
            return Ok(Vec::new());
        }
        if input.kind == Kind::WarmUp {
            return Ok(layout.iter().filter_map(|named| job.start(named, None)).collect());
        }
        let sent: Vec<String> = layout.iter().map(|named| named.spec.part.clone()).collect();
        let mut law = LawKind::Mean.start("head");
        let delta = job.delta(job.rank());
        for update in &input.updates {
            let tensors = read_parts(&update.path, "head", &sent)?;
            let part =
                Part { client: &update.client, weight: update.weight, delta: &delta, tensors: &tensors, sent: &sent };
            law.absorb(&part)?;
            self.tick();
        }
        let mean = law.finish()?;
        Ok(layout.into_iter().filter_map(|named| Some((named.name, mean.get(&named.spec.part)?.clone()))).collect())
    }
}

fn read_parts(path: &Path, target: &str, parts: &[String]) -> Result<TensorSet, MethodError> {
    let file = TensorFile::open(path)?;
    parts.iter().map(|part| Ok((part.clone(), file.read(&full_name(target, part))?))).collect()
}
