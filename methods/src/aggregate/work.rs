//! The work on one target: read each update once, feed the law, measure the error, sort what came out into files.

use std::collections::BTreeMap;
use std::path::Path;

use super::AggregateInput;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::TensorFile;
use crate::job::{Job, Kind, is_shipped_frozen};
use crate::law::{LawKind, Odd, Part, stack_dense};
use crate::layout::{NamedSpec, Start};
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet, full_name, parts_of};

/// What one target contributes to the files, by full name, in the published file's order.
pub(super) struct Made {
    pub(super) published: Vec<(String, Tensor)>,
    pub(super) frozen: TensorSet,
}

/// An aggregation under way.
pub(super) struct Work<'a> {
    job: &'a Job,
    input: &'a AggregateInput<'a>,
    done: usize,
    error: AggregationError,
    /// By client: targets in which it was left out, with the worst of them.
    odd: BTreeMap<String, OddClient>,
}

struct OddClient {
    targets: usize,
    worst: String,
    off: f64,
}

impl<'a> Work<'a> {
    pub(super) fn new(job: &'a Job, input: &'a AggregateInput<'a>) -> Self {
        Self { job, input, done: 0, error: AggregationError::default(), odd: BTreeMap::new() }
    }

    /// The aggregation error over the targets so far.
    pub(super) fn error(&self) -> Option<f64> {
        self.error.relative()
    }

    /// Remarks on clients whose statistic was left out, one for each client.
    pub(super) fn notes(&self) -> Vec<String> {
        let targets = self.job.targets().len();
        let note = |(client, odd): (&String, &OddClient)| {
            format!(
                "client {client}: its factors were not used in {} of {targets} targets (`{}` is off by {:.1e}): its base \
                 weights differ from those of most clients",
                odd.targets, odd.worst, odd.off
            )
        };
        self.odd.iter().map(note).collect()
    }

    fn remember(&mut self, target: &str, odd: Vec<Odd>) {
        for Odd { client, off } in odd {
            let fresh = || OddClient { targets: 0, worst: target.to_owned(), off };
            let known = self.odd.entry(client).or_insert_with(fresh);
            known.targets += 1;
            if off > known.off || off.is_nan() {
                (known.worst, known.off) = (target.to_owned(), off);
            }
        }
    }

    fn tick(&mut self) {
        self.done += 1;
        let pieces = self.job.targets().len() + usize::from(self.job.head().is_some());
        (self.input.progress)(self.done, pieces * self.input.updates.len());
    }

    /// One target's statistic becomes its first tensors.
    pub(super) fn warm_up(&mut self, index: usize) -> Result<Made, MethodError> {
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
        let mut law = probe.law.start(&target.name, 0);
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
        let merged = law.finish()?;
        self.remember(&target.name, merged.odd);
        let mut statistic = merged.tensors;
        statistic.extend(seeded);
        let made = job.method().finish_warm_up(job.config(), target, &statistic)?;
        self.assemble(index, made, |named| named.spec.start == Start::Artefact)
    }

    /// One target's updates become the aggregate; also measures how exact it is.
    pub(super) fn train(&mut self, index: usize) -> Result<Made, MethodError> {
        let (job, input) = (self.job, self.input);
        let target = &job.targets()[index];
        let law_kind = job.method().law();
        let stacked = input.updates.iter().map(|update| job.folded_rank(target, update.rank)).sum();
        let mut law = law_kind.start(&target.name, stacked);
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
        let mut aggregate = law.finish()?.tensors;
        let wire = job.wire_dtype();
        if law_kind == LawKind::Stack {
            aggregate.values_mut().for_each(|tensor| tensor.round_to(wire));
            self.error.add(&stack_dense(&aggregate).map_err(failed)?, &mean);
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
                Some(file) if is_shipped_frozen(&named.spec) => file.read(&name)?,
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
            let (shipped, published) = (is_shipped_frozen(&named.spec), named.spec.travel.is_published());
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
    pub(super) fn head(&mut self) -> Result<Vec<(String, Tensor)>, MethodError> {
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
        let mut law = LawKind::Mean.start("head", 0);
        let delta = job.delta(job.rank());
        for update in &input.updates {
            let tensors = read_parts(&update.path, "head", &sent)?;
            let part =
                Part { client: &update.client, weight: update.weight, delta: &delta, tensors: &tensors, sent: &sent };
            law.absorb(&part)?;
            self.tick();
        }
        let mean = law.finish()?.tensors;
        Ok(layout.into_iter().filter_map(|named| Some((named.name, mean.get(&named.spec.part)?.clone()))).collect())
    }
}

fn read_parts(path: &Path, target: &str, parts: &[String]) -> Result<TensorSet, MethodError> {
    let file = TensorFile::open(path)?;
    parts.iter().map(|part| Ok((part.clone(), file.read(&full_name(target, part))?))).collect()
}
