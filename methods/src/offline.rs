//! A method's law on tensor files, without a run or a base model: `rondo adapter aggregate`.
//!
//! Targets and shapes are taken from the files. Tensors are named as on the wire,
//! `<target>.<part>`, with the parts of the method's layout; `head.weight` and `head.bias` are
//! averaged. Frozen parts may stand in the files (all alike) or in one file beside them; with them
//! the aggregation error can be measured. Where clients of lower ranks send leading blocks, the
//! global tensors that they started from are needed for what lies outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rondo_proto::manifest::safetensors_name;
use rondo_proto::run_file::Dtype;

use crate::aggregate::Contribution;
use crate::aggregate::engine::{ClientTensors, DenseMean, TargetPlan, check_shares};
use crate::aggregate::finite;
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::{TensorFile, write};
use crate::law::LawContext;
use crate::layout::{Target, TensorSpec};
use crate::method::Method;
use crate::tensor::{Tensor, TensorSet, fits, full_name};

/// What to aggregate.
pub struct OfflineInput<'a> {
    /// The method.
    pub method: &'a dyn Method,
    /// Its settings; `rank` and `alpha` give the scale.
    pub config: &'a MethodConfig,
    /// The files, in the order in which they are summed or stacked; the client's name is used in
    /// messages only.
    pub updates: &'a [Contribution],
    /// A file with frozen parts that the updates leave out.
    pub frozen: Option<&'a Path>,
    /// The published file that the clients started from; for updates that are leading blocks of its
    /// tensors.
    pub global: Option<&'a Path>,
    /// The file to write.
    pub out: &'a Path,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct OfflineOutput {
    /// Targets aggregated, the head not counted.
    pub targets: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
    /// ||aggregate - dense weighted mean|| / ||dense weighted mean||; none when the frozen parts are not at hand.
    pub error: Option<f64>,
}

/// Name under which head tensors are grouped.
const HEAD: &str = "head";

/// Aggregates files by a method's law. Needs one target of one file in memory at a time, plus the
/// result; one file is open at a time.
///
/// # Errors
/// There are no files, the shares do not sum to 1, a file cannot be read or written, its tensors do
/// not fit the method or the other files, a number is not finite, or the law fails.
pub fn aggregate_files(input: &OfflineInput<'_>) -> Result<OfflineOutput, MethodError> {
    let Some((first, others)) = input.updates.split_first() else {
        return refuse("there are no files".to_owned());
    };
    check_shares(input.updates)?;
    let file = TensorFile::open(&first.path)?;
    let groups = group(&file)?;
    let bf16 = file.entries().iter().all(|entry| entry.dtype == safetensors_name(Dtype::Bf16));
    let dtype = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
    drop(file);
    for other in others {
        if group(&TensorFile::open(&other.path)?)? != groups {
            let (one, two) = (first.path.display(), other.path.display());
            return refuse(format!("{one} and {two} hold tensors of different names"));
        }
    }
    let error = Some(AggregationError::default());
    let mut aggregation = OfflineAggregation { input, specs: specs(input), dtype, error };
    let mut result = TensorSet::new();
    for (target, parts) in &groups {
        let made = if target == HEAD { aggregation.head(parts)? } else { aggregation.target(target, parts)? };
        result.extend(made.into_iter().map(|(part, tensor)| (full_name(target, &part), tensor)));
    }
    let metadata = BTreeMap::from([("rondo.method".to_owned(), input.method.id().to_owned())]);
    let bytes = write(input.out, &result, dtype, &metadata)?;
    let targets = groups.into_keys().filter(|target| target != HEAD).collect();
    Ok(OfflineOutput { targets, bytes, error: aggregation.error.and_then(|error| error.relative()) })
}

fn refuse<T>(problem: String) -> Result<T, MethodError> {
    Err(MethodError::Contributions(problem))
}

/// Parts by target.
fn group(file: &TensorFile) -> Result<BTreeMap<String, BTreeSet<String>>, MethodError> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in file.entries() {
        let Some((target, part)) = entry.name.rsplit_once('.') else {
            return refuse(format!("{}: `{}` is not named <target>.<part>", file.path().display(), entry.name));
        };
        groups.entry(target.to_owned()).or_default().insert(part.to_owned());
    }
    Ok(groups)
}

/// The method's parts. Which of their dimensions are the rank's does not depend on the target's
/// size.
fn specs(input: &OfflineInput<'_>) -> BTreeMap<String, TensorSpec> {
    let rank = input.config.rank;
    let any = Target { name: "any".into(), out: rank, inp: rank };
    let at = At { target: &any, rank, round: None, client: None };
    let layout = input.method.layout(input.config, at);
    layout.into_iter().map(|spec| (spec.part.clone(), spec)).collect()
}

/// One tensor, every number of it finite: these files have passed no validation.
fn read(file: &TensorFile, target: &str, part: &str) -> Result<Tensor, MethodError> {
    let name = full_name(target, part);
    let tensor = file.read(&name)?;
    match tensor.data.iter().position(|x| !x.is_finite()) {
        None => Ok(tensor),
        Some(at) => {
            let path = file.path().display();
            let value = tensor.data[at];
            refuse(format!("{path}: tensor `{name}` holds {value} at position {at}; leave this file out"))
        }
    }
}

/// An aggregation of files, target by target.
struct OfflineAggregation<'a> {
    input: &'a OfflineInput<'a>,
    specs: BTreeMap<String, TensorSpec>,
    dtype: Dtype,
    /// Given up for all targets as soon as one lacks frozen parts.
    error: Option<AggregationError>,
}

impl OfflineAggregation<'_> {
    /// The change that tensors of this rank stand for. The target's size is not known here.
    fn delta(&self, target: &str, rank: usize) -> Delta {
        let config = self.input.config;
        let any = Target { name: target.to_owned(), out: config.rank, inp: config.rank };
        self.input.method.delta(config, At { target: &any, rank, round: None, client: None })
    }

    fn head(&self, parts: &BTreeSet<String>) -> Result<TensorSet, MethodError> {
        let input = self.input;
        let sent: Vec<String> = parts.iter().cloned().collect();
        // The mean asks of no delta.
        let delta = Delta::Sum(Vec::new());
        let read = |update: &Contribution| {
            let file = TensorFile::open(&update.path)?;
            let tensor = |part: &String| Ok((part.clone(), read(&file, HEAD, part)?));
            let tensors = sent.iter().map(tensor).collect::<Result<TensorSet, MethodError>>()?;
            Ok(ClientTensors { delta: delta.clone(), tensors, sent: sent.clone() })
        };
        Ok(TargetPlan::mean_of(HEAD, input.updates).run(read, || ())?.output.tensors)
    }

    fn target(&mut self, target: &str, parts: &BTreeSet<String>) -> Result<TensorSet, MethodError> {
        let input = self.input;
        let method = input.method;
        if let Some(part) = parts.iter().find(|part| !self.specs.contains_key(*part)) {
            let known = self.specs.keys().cloned().collect::<Vec<_>>().join(", ");
            return refuse(format!(
                "`{target}.{part}` is no tensor of method `{}`; its parts are {known}",
                method.id()
            ));
        }
        let (sent, fixed): (Vec<String>, Vec<String>) =
            parts.iter().cloned().partition(|part| self.specs.get(part).is_some_and(|spec| spec.travel.goes_up()));
        let held = self.held(target, &sent, &fixed)?;
        let law = method.law(input.config);
        let run_delta = self.delta(target, input.config.rank);
        let plan = TargetPlan {
            law,
            context: LawContext {
                target,
                stacked: self.stacked(target, &held)?,
                delta: Some(&run_delta),
                shapes: self.largest(target, &sent)?,
            },
            updates: input.updates,
            dense_mean: DenseMean::WherePossible,
        };
        let read = |update: &Contribution| self.client_tensors(target, update, &held, &sent, &fixed);
        let aggregate = plan.run(read, || ())?;
        let mut made = aggregate.output.tensors;
        // The error is that of the numbers in the file.
        made.values_mut().for_each(|tensor| tensor.round_to(self.dtype));
        for (part, tensor) in &made {
            finite::check(target, &full_name(target, part), tensor, input.updates)?;
        }
        match (self.error.as_mut(), aggregate.mean) {
            (Some(error), Some(mean)) => {
                let mut whole = held.clone();
                whole.extend(made.clone());
                plan.measure(error, &mean, &whole, &made)?;
            }
            _ => self.error = None,
        }
        if law.keeps_tensors() {
            let rests = |part: &String| self.specs.get(part).is_some_and(|spec| spec.travel.is_published());
            made.extend(held.into_iter().filter(|(part, _)| fixed.contains(part) || rests(part)));
        }
        Ok(made)
    }

    /// One client's tensors of a target: what its file holds, and what it held frozen.
    fn client_tensors(
        &self,
        target: &str,
        update: &Contribution,
        held: &TensorSet,
        sent: &[String],
        fixed: &[String],
    ) -> Result<ClientTensors, MethodError> {
        let file = TensorFile::open(&update.path)?;
        for part in fixed {
            if held.get(part) != Some(&read(&file, target, part)?) {
                let name = full_name(target, part);
                let path = file.path().display();
                return refuse(format!("`{name}` is frozen, but differs in {path}"));
            }
        }
        let mut tensors = held.clone();
        for part in sent {
            tensors.insert(part.clone(), self.whole(target, part, update, read(&file, target, part)?)?);
        }
        let delta = self.delta(target, update.rank);
        Ok(ClientTensors { delta, tensors, sent: sent.to_vec() })
    }

    /// A client's tensor; a leading block is put into the global tensor that it is a part of.
    fn whole(&self, target: &str, part: &str, update: &Contribution, sent: Tensor) -> Result<Tensor, MethodError> {
        let input = self.input;
        let name = full_name(target, part);
        let any = Target { name: target.to_owned(), out: input.config.rank, inp: input.config.rank };
        let at = At { target: &any, rank: update.rank, round: None, client: None };
        let layout = input.method.layout(input.config, at);
        let spec = layout.iter().find(|spec| spec.part == part);
        let Some((spec, block)) = spec.and_then(|spec| Some((spec, spec.block.as_ref()?))) else { return Ok(sent) };
        // Where the block is smaller, the run's rank shows whether the whole tensor came.
        let mut sizes = block.iter().zip(&spec.shape).zip(&sent.shape);
        if sizes.all(|((block, whole), got)| block == whole || got == whole) {
            return Ok(sent);
        }
        let Some(global) = input.global else {
            return refuse(format!(
                "{} holds the leading block of `{name}` at rank {} of {}; what lies outside of it stands in the published file \
                 that the clients started from: name it with --global",
                update.path.display(),
                update.rank,
                input.config.rank
            ));
        };
        let whole = read(&TensorFile::open(global)?, target, part)?;
        if fits(&sent.shape, &whole.shape) {
            return Ok(whole.with_leading(&sent));
        }
        let place = update.path.display().to_string();
        Err(MethodError::Shape { tensor: name, place, expected: whole.shape, got: sent.shape })
    }

    /// Shapes up to which a law fills up: the largest of each dimension over the files.
    fn largest(&self, target: &str, sent: &[String]) -> Result<BTreeMap<String, Vec<usize>>, MethodError> {
        let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for update in self.input.updates {
            let file = TensorFile::open(&update.path)?;
            for part in sent {
                let Some(shape) = file.shape(&full_name(target, part)) else { continue };
                let largest = shapes.entry(part.clone()).or_insert_with(|| shape.to_vec());
                largest.iter_mut().zip(shape).for_each(|(most, &length)| *most = length.max(*most));
            }
        }
        Ok(shapes)
    }

    /// The parts of a target that no file sends and that are at hand: in the file of frozen
    /// tensors, in the first update, or, where a part rests, in the published file.
    fn held(&self, target: &str, sent: &[String], fixed: &[String]) -> Result<TensorSet, MethodError> {
        let first = TensorFile::open(&self.input.updates[0].path)?;
        let beside = [self.input.frozen, self.input.global];
        let beside = beside.into_iter().flatten().map(TensorFile::open).collect::<Result<Vec<_>, _>>()?;
        let mut held = TensorSet::new();
        for part in self.specs.keys().filter(|part| !sent.contains(part)) {
            let found = beside.iter().find(|file| file.contains(&full_name(target, part)));
            if let Some(file) = found.or(fixed.contains(part).then_some(&first)) {
                held.insert(part.clone(), read(file, target, part)?);
            }
        }
        Ok(held)
    }

    /// Sum of the clients' folded ranks, from the files' headers; 0 under laws that do not stack.
    fn stacked(&self, target: &str, held: &TensorSet) -> Result<usize, MethodError> {
        if !self.input.method.law(self.input.config).stacks() {
            return Ok(0);
        }
        let rank = |update: &Contribution| {
            let file = TensorFile::open(&update.path)?;
            let shape_of = |part: &str| {
                let sent = file.shape(&full_name(target, part)).map(<[usize]>::to_vec);
                sent.or_else(|| held.get(part).map(|tensor| tensor.shape.clone()))
            };
            let delta = self.delta(target, update.rank);
            delta.folded_rank(&shape_of).map_err(|source| MethodError::delta(target, source))
        };
        self.input.updates.iter().map(rank).sum()
    }
}
