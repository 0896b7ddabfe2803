//! The work on one target: read each update once, feed the law, measure the error, sort what came out into files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::Dtype;

use super::server::Stepper;
use super::{AggregateInput, Contribution, is_stepped};
use crate::at::Instance;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::{TensorFile, TensorWriter};
use crate::job::{Job, Kind, is_shipped_frozen};
use crate::law::{Frame, LawKind, Odd, Part, pair_dense};
use crate::layout::{NamedSpec, Role, Start};
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet, full_name, parts_of};
use crate::warm_up::{Statistics, WarmUp};

/// What one target contributes to the files, by full name, in the published file's order.
pub(super) struct Made {
    pub(super) published: Vec<(String, Tensor)>,
    pub(super) frozen: TensorSet,
}

/// The clients' statistics as one, in a file.
pub(super) struct Aggregated {
    path: PathBuf,
}

impl Drop for Aggregated {
    fn drop(&mut self) {
        // A scratch file beside the outputs: one that stays is in nobody's way.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An aggregation under way.
pub(super) struct Work<'a> {
    job: &'a Job,
    input: &'a AggregateInput<'a>,
    stepper: Option<Stepper<'a>>,
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
    pub(super) fn new(job: &'a Job, input: &'a AggregateInput<'a>, stepper: Option<Stepper<'a>>) -> Self {
        Self { job, input, stepper, done: 0, error: AggregationError::default(), odd: BTreeMap::new() }
    }

    /// The aggregation error over the targets so far.
    pub(super) fn error(&self) -> Option<f64> {
        self.error.relative()
    }

    /// Closes the server optimiser's state, if there is one.
    pub(super) fn close(self) -> Result<Option<PathBuf>, MethodError> {
        self.stepper.map(Stepper::finish).transpose()
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

    fn tick_target(&mut self) {
        (0..self.input.updates.len()).for_each(|_| self.tick());
    }

    fn tick(&mut self) {
        self.done += 1;
        let pieces = self.job.targets().len() + usize::from(self.job.head().is_some());
        (self.input.progress)(self.done, pieces * self.input.updates.len());
    }

    /// Makes one of the clients' statistics, target by target, in a file that is gone when the aggregation ends.
    pub(super) fn statistics(&mut self) -> Result<Aggregated, MethodError> {
        let job = self.job;
        let sent = |named: NamedSpec| named.spec.travel.goes_up().then_some((named.name, named.spec.shape));
        let announced = job.warm_up_layout().into_iter().filter_map(sent).collect();
        let path = self.input.out_dir.join("statistics.safetensors");
        let mut writer = TensorWriter::create(&path, announced, Dtype::F32, &BTreeMap::new())?;
        for (index, probes) in job.probes().iter().enumerate() {
            for probe in probes {
                let merged = self.statistic(index, probe)?;
                for spec in probe.layout.iter().filter(|spec| spec.travel.goes_up()) {
                    let name = full_name(&job.targets()[index].name, &spec.part);
                    let place = || "the clients' statistics".to_owned();
                    let missing = || MethodError::Missing { tensor: name.clone(), place: place() };
                    writer.write(&name, merged.get(&spec.part).ok_or_else(missing)?)?;
                }
            }
            self.tick_target();
        }
        writer.finish()?;
        Ok(Aggregated { path })
    }

    /// One of the clients' statistics of one target, by part name.
    fn statistic(&mut self, index: usize, probe: &WarmUp) -> Result<TensorSet, MethodError> {
        let (job, input) = (self.job, self.input);
        let target = &job.targets()[index];
        let sent: Vec<String> =
            probe.layout.iter().filter(|spec| spec.travel.goes_up()).map(|spec| spec.part.clone()).collect();
        let seeded = job.probe_partners(index, probe);
        let mut law = probe.law.start(&Frame::of(&target.name));
        for update in &input.updates {
            let mut tensors = read_parts(&update.path, &target.name, &sent)?;
            tensors.extend(seeded.clone());
            law.absorb(&Part {
                client: &update.client,
                weight: update.weight,
                delta: &probe.delta,
                tensors: &tensors,
                sent: &sent,
            })?;
        }
        let merged = law.finish()?;
        self.remember(&target.name, merged.odd);
        Ok(merged.tensors)
    }

    /// The statistics become one target's first tensors.
    pub(super) fn warm_up(&self, index: usize, aggregated: &Aggregated) -> Result<Made, MethodError> {
        let job = self.job;
        let read = |index: usize| {
            let target = &job.targets()[index].name;
            let probes = &job.probes()[index];
            let sent = probes.iter().flat_map(|probe| &probe.layout).filter(|spec| spec.travel.goes_up());
            let sent: Vec<String> = sent.map(|spec| spec.part.clone()).collect();
            let mut statistic = read_parts(&aggregated.path, target, &sent)?;
            probes.iter().for_each(|probe| statistic.extend(job.probe_partners(index, probe)));
            Ok(statistic)
        };
        let statistics = Statistics { targets: job.targets(), read: &read };
        let at = job.at(index, Instance::OF_RUN);
        let made = job.method().finish_warm_up(job.config(), at, &statistics)?;
        self.assemble(index, made, |named| named.spec.start == Start::Artefact)
    }

    /// One target's updates become the aggregate; also measures how exact it is.
    pub(super) fn train(&mut self, index: usize) -> Result<Made, MethodError> {
        let (job, input) = (self.job, self.input);
        let target = &job.targets()[index];
        let law_kind = job.law();
        let in_round = Instance::in_round(input.round);
        let of_run = job.target_layout(index, in_round);
        let global = self.global_parts(index, &of_run)?;
        let run_delta = job.delta(index, in_round);
        let trained = of_run.iter().filter(|named| named.spec.role == Role::Trained);
        let mut law = law_kind.start(&Frame {
            target: &target.name,
            stacked: if law_kind.stacks() { job.stacked(index, input.updates.iter().map(|u| u.rank)) } else { 0 },
            delta: Some(&run_delta),
            shapes: trained.map(|named| (named.spec.part.clone(), named.spec.shape.clone())).collect(),
        });
        // A client may rest where others train: its part is then the global value, and counts as any other.
        let absorbed: Vec<String> = of_run
            .iter()
            .filter(|named| named.spec.sent_shape().is_some())
            .map(|named| named.spec.part.clone())
            .collect();
        let mut mean = Matrix::zeros(target.out, target.inp);
        let shared = self.still_parts(&of_run, "", &global)?;
        let failed = |source| MethodError::delta(&target.name, source);
        for update in &input.updates {
            let instance = in_round.with_rank(update.rank).of_client(&update.client);
            let layout = job.target_layout(index, instance);
            let own = job.fresh_each_round() || update.rank != job.rank();
            let still = if own || layout != of_run {
                self.still_parts(&layout, &update.client, &global)?
            } else {
                shared.clone()
            };
            let sent = layout.iter().filter(|named| named.spec.sent_shape().is_some());
            let sent: Vec<String> = sent.map(|named| named.spec.part.clone()).collect();
            let mut tensors = read_parts(&update.path, &target.name, &sent)?;
            // The client's model has the global values outside of the block that it trained.
            for NamedSpec { spec, .. } in layout.iter().filter(|named| named.spec.block.is_some()) {
                if let (Some(block), Some(whole)) = (tensors.get_mut(&spec.part), global.get(&spec.part)) {
                    *block = whole.clone().with_leading(block);
                }
            }
            tensors.extend(still);
            let delta = job.delta(index, instance);
            mean.add_scaled(update.weight, &delta.dense(&tensors).map_err(failed)?);
            law.absorb(&Part {
                client: &update.client,
                weight: update.weight,
                delta: &delta,
                tensors: &tensors,
                sent: &absorbed,
            })?;
            self.tick();
        }
        let mut aggregate = law.finish()?.tensors;
        let mut pair = TensorSet::new();
        if let Some((outer, inner)) = law_kind.merged() {
            pair.extend([outer, inner].into_iter().filter_map(|part| aggregate.remove_entry(part)));
            pair.values_mut().for_each(|tensor| tensor.round_to(job.wire_dtype()));
        }
        aggregate.extend(shared.clone());
        // A server optimiser does not stop at the mean; how exact the mean was is told all the same.
        let mut measured = self.stepper.as_ref().map(|_| aggregate.clone());
        self.server_step(&of_run, &global, &mut aggregate)?;
        let refactored = job.method().refactor(job.config(), job.at(index, in_round), &aggregate)?;
        self.check_offset(index, &aggregate, refactored.as_ref())?;
        let renewed = refactored.is_some();
        aggregate.extend(refactored.unwrap_or_default());
        let mut made = self.assemble(index, aggregate, |named| renewed || named.spec.travel.is_published())?;
        let mut published = Matrix::zeros(target.out, target.inp);
        if law_kind.keeps_tensors() {
            let mut whole = shared;
            whole.extend(parts_of(&made.frozen, &target.name));
            whole.extend(parts_of(&made.published.iter().cloned().collect(), &target.name));
            whole.extend(measured.take().unwrap_or_default());
            published = run_delta.dense(&whole).map_err(failed)?;
        }
        if let Some(names) = law_kind.merged() {
            published.add_scaled(1.0, &pair_dense(names, &pair).map_err(failed)?);
            let (outer, inner) = names;
            let named = |part: &str| Some((full_name(&target.name, part), pair.remove(part)?));
            made.published.extend([inner, outer].into_iter().filter_map(named));
        }
        self.error.add(&published, &mean);
        Ok(made)
    }

    /// The offset is in the base since the run began, so a refactoring may not change what it is made of.
    fn check_offset(&self, index: usize, before: &TensorSet, after: Option<&TensorSet>) -> Result<(), MethodError> {
        let (Some(offset), Some(after)) = (self.job.offset(index), after) else { return Ok(()) };
        let changed = |part: &&str| after.get(*part).is_some_and(|tensor| before.get(*part) != Some(tensor));
        match offset.parts().into_iter().find(changed) {
            None => Ok(()),
            Some(part) => Err(MethodError::Layout {
                method: self.job.method().id().to_owned(),
                target: self.job.targets()[index].name.clone(),
                problem: format!("part `{part}` of its offset is derived anew"),
            }),
        }
    }

    /// The values from which the round began, of the tensors that are published, by part name; empty where nothing asks
    /// for them.
    fn global_parts(&self, index: usize, of_run: &[NamedSpec]) -> Result<TensorSet, MethodError> {
        let (job, input) = (self.job, self.input);
        let has_block = |layout: &[NamedSpec]| layout.iter().any(|named| named.spec.block.is_some());
        let of_client = |update: &Contribution| {
            let instance = Instance::in_round(input.round).with_rank(update.rank).of_client(&update.client);
            has_block(&job.target_layout(index, instance))
        };
        let asked = self.stepper.is_some() || has_block(of_run) || input.updates.iter().any(of_client);
        if !asked {
            return Ok(TensorSet::new());
        }
        let published = of_run.iter().filter(|named| named.spec.travel.is_published());
        published.map(|named| Ok((named.spec.part.clone(), self.global(named)?))).collect()
    }

    /// The value of a published tensor from which the round began: that of the last published file, or its start.
    fn global(&self, named: &NamedSpec) -> Result<Tensor, MethodError> {
        if let Some(path) = self.input.published.last() {
            return Ok(TensorFile::open(path)?.read(&named.name)?);
        }
        self.job.start(named, None).map(|(_, tensor)| tensor).ok_or_else(|| {
            let place = "the published files: the warm-up round brings it".to_owned();
            MethodError::Missing { tensor: named.name.clone(), place }
        })
    }

    /// Replaces a target's averaged tensors by the server optimiser's steps towards them.
    fn server_step(
        &mut self,
        of_run: &[NamedSpec],
        global: &TensorSet,
        means: &mut TensorSet,
    ) -> Result<(), MethodError> {
        let Some(stepper) = &mut self.stepper else { return Ok(()) };
        for NamedSpec { name, spec, .. } in of_run.iter().filter(|named| is_stepped(&named.spec)) {
            if let (Some(from), Some(to)) = (global.get(&spec.part), means.get_mut(&spec.part)) {
                *to = stepper.step(name, from, to)?;
            }
        }
        Ok(())
    }

    /// The tensors of one target that a client trained with and did not train, by part name: frozen ones, and those that
    /// rest in this round.
    fn still_parts(&self, layout: &[NamedSpec], client: &str, global: &TensorSet) -> Result<TensorSet, MethodError> {
        let job = self.job;
        let fresh = job.fresh_each_round().then_some((self.input.round, client));
        let mut parts = TensorSet::new();
        let file = self.input.frozen.as_deref().map(TensorFile::open).transpose()?;
        for named in layout.iter().filter(|named| named.spec.sent_shape().is_none()) {
            let tensor = match (&file, global.get(&named.spec.part)) {
                (_, Some(resting)) if named.spec.role == Role::Trained => resting.clone(),
                (Some(file), _) if is_shipped_frozen(&named.spec) => file.read(&named.name)?,
                _ => match job.start(named, fresh) {
                    Some((_, tensor)) => tensor,
                    None => {
                        let place = "the frozen artefact: the warm-up round brings it".to_owned();
                        return Err(MethodError::Missing { tensor: named.name.clone(), place });
                    }
                },
            };
            parts.insert(named.spec.part.clone(), tensor);
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
        let mut out = Made { published: Vec::new(), frozen: TensorSet::new() };
        for named in job.target_layout(index, Instance::OF_RUN) {
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
        let mut law = LawKind::Mean.start(&Frame::of("head"));
        // The mean asks of no delta.
        let delta = Delta::Sum(Vec::new());
        for update in &input.updates {
            let tensors = read_parts(&update.path, "head", &sent)?;
            let part =
                Part { client: &update.client, weight: update.weight, delta: &delta, tensors: &tensors, sent: &sent };
            law.absorb(&part)?;
            self.tick();
        }
        let mut mean = law.finish()?.tensors;
        if self.stepper.is_some() {
            let globals = layout.iter().map(|named| Ok((named.spec.part.clone(), self.global(named)?)));
            let globals = globals.collect::<Result<TensorSet, MethodError>>()?;
            self.server_step(&layout, &globals, &mut mean)?;
        }
        Ok(layout.into_iter().filter_map(|named| Some((named.name, mean.remove(&named.spec.part)?))).collect())
    }
}

fn read_parts(path: &Path, target: &str, parts: &[String]) -> Result<TensorSet, MethodError> {
    let file = TensorFile::open(path)?;
    parts.iter().map(|part| Ok((part.clone(), file.read(&full_name(target, part))?))).collect()
}
