//! A run's round: the engine works on each target, and what comes out is sorted into files.

use std::cell::Cell;
use std::path::PathBuf;

use super::engine::{ClientTensors, DenseMean, TargetPlan};
use super::input::{AggregateInput, Contribution};
use super::outliers::OutlierSummary;
use super::server::{ServerStepper, is_stepped};
use super::target_files::{TargetFiles, assemble, read_parts};
use super::warm_up::AggregatedStatistics;
use crate::at::Instance;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::TensorFile;
use crate::job::{Job, Kind};
use crate::law::LawContext;
use crate::layout::{NamedSpec, Role};
use crate::tensor::{Tensor, TensorSet, full_name, parts_of};

/// The owner of the classifier head's tensors.
const HEAD: &str = "head";

/// The aggregation of one round, target by target.
pub(super) struct RoundAggregation<'a> {
    job: &'a Job,
    input: &'a AggregateInput<'a>,
    stepper: Option<ServerStepper<'a>>,
    /// Pieces of work done, for the progress report.
    done: Cell<usize>,
    error: AggregationError,
    outliers: OutlierSummary,
}

impl<'a> RoundAggregation<'a> {
    pub(super) fn new(job: &'a Job, input: &'a AggregateInput<'a>, stepper: Option<ServerStepper<'a>>) -> Self {
        let error = AggregationError::default();
        Self { job, input, stepper, done: Cell::new(0), error, outliers: OutlierSummary::default() }
    }

    /// The aggregation error over the targets so far.
    pub(super) fn error(&self) -> Option<f64> {
        self.error.relative()
    }

    /// Closes the server optimiser's state, if there is one.
    pub(super) fn close(self) -> Result<Option<PathBuf>, MethodError> {
        self.stepper.map(ServerStepper::finish).transpose()
    }

    /// One note for each client whose statistic was left out.
    pub(super) fn notes(&self) -> Vec<String> {
        self.outliers.notes(self.job.targets().len())
    }

    /// Reports that one target of one update is done.
    fn report_progress(&self) {
        self.done.set(self.done.get() + 1);
        let pieces = self.job.targets().len() + usize::from(self.job.head().is_some());
        (self.input.progress)(self.done.get(), pieces * self.input.updates.len());
    }

    /// Makes one of the clients' warm-up statistics.
    pub(super) fn statistics(&mut self) -> Result<AggregatedStatistics, MethodError> {
        let mut outliers = OutlierSummary::default();
        let report = || (0..self.input.updates.len()).for_each(|_| self.report_progress());
        let aggregated = AggregatedStatistics::new(self.job, self.input, &mut outliers, report)?;
        self.outliers = outliers;
        Ok(aggregated)
    }

    /// One target's updates become the aggregate; also measures how exact it is.
    pub(super) fn train(&mut self, index: usize) -> Result<TargetFiles, MethodError> {
        let job = self.job;
        let input = self.input;
        let target = &job.targets()[index];
        let law = job.law();
        let in_round = Instance::in_round(input.round);
        let of_run = job.target_layout(index, in_round);
        let global = self.global_parts(index, &of_run)?;
        let held = self.held_parts(&of_run, "", &global)?;
        let run_delta = job.delta(index, in_round);
        let trained = of_run.iter().filter(|named| named.spec.role == Role::Trained);
        let plan = TargetPlan {
            law,
            context: LawContext {
                target: &target.name,
                stacked: if law.stacks() { job.stacked(index, input.updates.iter().map(|u| u.rank)) } else { 0 },
                delta: Some(&run_delta),
                shapes: trained.map(|named| (named.spec.part.clone(), named.spec.shape.clone())).collect(),
            },
            updates: &input.updates,
            dense_mean: DenseMean::Required,
        };
        let read = |update: &Contribution| self.client_tensors(index, update, &of_run, &held, &global);
        let made = plan.run(read, || self.report_progress())?;
        let mut aggregate = made.output.tensors;
        let mut pair = TensorSet::new();
        if let Some((outer, inner)) = law.merged() {
            pair.extend([outer, inner].into_iter().filter_map(|part| aggregate.remove_entry(part)));
            pair.values_mut().for_each(|tensor| tensor.round_to(job.wire_dtype()));
        }
        aggregate.extend(held.clone());
        // A server optimiser does not stop at the mean; the error is still that of the mean.
        let mut measured = self.stepper.as_ref().map(|_| aggregate.clone());
        self.server_step(&target.name, &of_run, &global, &mut aggregate)?;
        let refactored = job.method().refactor(job.config(), job.at(index, in_round), &aggregate)?;
        self.check_offset(index, &aggregate, refactored.as_ref())?;
        let renewed = refactored.is_some();
        aggregate.extend(refactored.unwrap_or_default());
        let mut files = assemble(job, index, aggregate, |named| renewed || named.spec.travel.is_published())?;
        let mut whole = TensorSet::new();
        if law.keeps_tensors() {
            whole = held;
            whole.extend(parts_of(&files.frozen, &target.name));
            whole.extend(parts_of(&files.published.iter().cloned().collect(), &target.name));
            whole.extend(measured.take().unwrap_or_default());
        }
        if let Some(mean) = made.mean {
            plan.measure(&mut self.error, &mean, &whole, &pair)?;
        }
        if let Some((outer, inner)) = law.merged() {
            let named = |part: &str| Some((full_name(&target.name, part), pair.remove(part)?));
            files.published.extend([inner, outer].into_iter().filter_map(named));
        }
        Ok(files)
    }

    /// The offset is in the base since the run began, so a refactoring may not change what it is
    /// made of.
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

    /// One client's tensors of a target: those of its update, and those that it held. `of_run` is
    /// the layout of a client of the run's rank, `held` are what that one held. A client may rest
    /// where others train: its part is then the global value, and counts as any other.
    fn client_tensors(
        &self,
        index: usize,
        update: &Contribution,
        of_run: &[NamedSpec],
        held: &TensorSet,
        global: &TensorSet,
    ) -> Result<ClientTensors, MethodError> {
        let job = self.job;
        let instance = self.instance(update);
        let layout = job.target_layout(index, instance);
        let own = job.fresh_each_round() || update.rank != job.rank() || layout != of_run;
        let held = if own { self.held_parts(&layout, &update.client, global)? } else { held.clone() };
        let sent = sent_parts(&layout);
        let mut tensors = read_parts(&update.path, &job.targets()[index].name, &sent)?;
        // The client's model has the global values outside of the block that it trained.
        for NamedSpec { spec, .. } in layout.iter().filter(|named| named.spec.block.is_some()) {
            if let (Some(block), Some(whole)) = (tensors.get_mut(&spec.part), global.get(&spec.part)) {
                *block = whole.clone().with_leading(block);
            }
        }
        tensors.extend(held);
        Ok(ClientTensors { delta: job.delta(index, instance), tensors, sent: sent_parts(of_run) })
    }

    /// The adapter that an update is of.
    fn instance<'u>(&self, update: &'u Contribution) -> Instance<'u> {
        Instance::in_round(self.input.round).with_rank(update.rank).of_client(&update.client)
    }

    /// The values from which the round began, of the tensors that are published, by part name;
    /// empty where nothing asks for them.
    fn global_parts(&self, index: usize, of_run: &[NamedSpec]) -> Result<TensorSet, MethodError> {
        let job = self.job;
        let input = self.input;
        let has_block = |layout: &[NamedSpec]| layout.iter().any(|named| named.spec.block.is_some());
        let of_client = |update: &Contribution| has_block(&job.target_layout(index, self.instance(update)));
        let asked = self.stepper.is_some() || has_block(of_run) || input.updates.iter().any(of_client);
        if !asked {
            return Ok(TensorSet::new());
        }
        let published = of_run.iter().filter(|named| named.spec.travel.is_published());
        published.map(|named| Ok((named.spec.part.clone(), self.global(named)?))).collect()
    }

    /// The value of a published tensor from which the round began: that of the last published file,
    /// or its start.
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
        owner: &str,
        of_run: &[NamedSpec],
        global: &TensorSet,
        means: &mut TensorSet,
    ) -> Result<(), MethodError> {
        let Some(stepper) = &mut self.stepper else { return Ok(()) };
        let updates = &self.input.updates;
        for NamedSpec { name, spec, .. } in of_run.iter().filter(|named| is_stepped(&named.spec)) {
            if let (Some(from), Some(to)) = (global.get(&spec.part), means.get_mut(&spec.part)) {
                *to = stepper.step(owner, name, from, to, updates)?;
            }
        }
        Ok(())
    }

    /// The tensors of one target that a client trained with and did not train, by part name: frozen
    /// ones, and those that rest in this round.
    fn held_parts(&self, layout: &[NamedSpec], client: &str, global: &TensorSet) -> Result<TensorSet, MethodError> {
        let job = self.job;
        let fresh = job.fresh_each_round().then_some((self.input.round, client));
        let mut parts = TensorSet::new();
        let file = self.input.frozen.as_deref().map(TensorFile::open).transpose()?;
        for named in layout.iter().filter(|named| named.spec.sent_shape().is_none()) {
            let tensor = match (&file, global.get(&named.spec.part)) {
                (_, Some(resting)) if named.spec.role == Role::Trained => resting.clone(),
                (Some(file), _) if named.spec.is_shipped_frozen() => file.read(&named.name)?,
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

    /// The head is averaged, whatever the method; before the first training round it stands at its
    /// start.
    pub(super) fn head(&mut self) -> Result<Vec<(String, Tensor)>, MethodError> {
        let job = self.job;
        let input = self.input;
        let layout: Vec<NamedSpec> =
            job.head_layout().into_iter().filter(|named| named.spec.travel.is_published()).collect();
        if layout.is_empty() {
            return Ok(Vec::new());
        }
        if input.kind == Kind::WarmUp {
            return Ok(layout.iter().filter_map(|named| job.start(named, None)).collect());
        }
        let sent: Vec<String> = layout.iter().map(|named| named.spec.part.clone()).collect();
        // The mean asks of no delta.
        let delta = Delta::Sum(Vec::new());
        let read = |update: &Contribution| {
            let tensors = read_parts(&update.path, HEAD, &sent)?;
            Ok(ClientTensors { delta: delta.clone(), tensors, sent: sent.clone() })
        };
        let plan = TargetPlan::mean_of(HEAD, &input.updates);
        let mut mean = plan.run(read, || self.report_progress())?.output.tensors;
        if self.stepper.is_some() {
            let globals = layout.iter().map(|named| Ok((named.spec.part.clone(), self.global(named)?)));
            let globals = globals.collect::<Result<TensorSet, MethodError>>()?;
            self.server_step(HEAD, &layout, &globals, &mut mean)?;
        }
        Ok(layout.into_iter().filter_map(|named| Some((named.name, mean.remove(&named.spec.part)?))).collect())
    }
}

/// Names of the parts that a client of this layout sends.
fn sent_parts(layout: &[NamedSpec]) -> Vec<String> {
    let sent = layout.iter().filter(|named| named.spec.sent_shape().is_some());
    sent.map(|named| named.spec.part.clone()).collect()
}
