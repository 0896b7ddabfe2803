//! A method's law on tensor files, without a run or a base model: `rondo adapter aggregate`.
//!
//! Targets and shapes are taken from the files. Tensors are named as on the wire, `<target>.<part>`, with the parts of
//! the method's layout; `head.weight` and `head.bias` are averaged. Frozen parts may stand in the files (all alike) or
//! in one file beside them; with them the aggregation error can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rondo_proto::run_file::Dtype;

use crate::aggregate::Contribution;
use crate::config::MethodConfig;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::file::{TensorFile, write};
use crate::law::{LawKind, Part, stack_delta};
use crate::layout::Target;
use crate::linalg::Matrix;
use crate::method::Method;
use crate::tensor::{Tensor, TensorSet, full_name};

/// What to aggregate.
pub struct OfflineInput<'a> {
    /// The method.
    pub method: &'a dyn Method,
    /// Its settings; `rank` and `alpha` give the scale.
    pub config: &'a MethodConfig,
    /// The files, in the order in which they are summed or stacked; the client's name is used in messages only.
    pub updates: &'a [Contribution],
    /// A file with frozen parts that the updates leave out.
    pub frozen: Option<&'a Path>,
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

/// Aggregates files by a method's law. Needs one target of all files in memory at a time, plus the result.
pub fn aggregate_files(input: &OfflineInput<'_>) -> Result<OfflineOutput, MethodError> {
    let refuse = |problem: String| Err(MethodError::Contributions(problem));
    let sum: f64 = input.updates.iter().map(|update| update.weight).sum();
    if input.updates.is_empty() || (sum - 1.0).abs() > 1e-6 {
        return refuse(format!("{} files with shares that sum to {sum}", input.updates.len()));
    }
    let files: Vec<TensorFile> =
        input.updates.iter().map(|update| TensorFile::open(&update.path)).collect::<Result<_, _>>()?;
    let frozen = input.frozen.map(TensorFile::open).transpose()?;
    let groups = group(&files[0])?;
    for file in &files[1..] {
        if group(file)? != groups {
            return refuse(format!(
                "{} and {} hold tensors of different names",
                files[0].path().display(),
                file.path().display()
            ));
        }
    }
    let travels = travelling_parts(input);
    let mut result = TensorSet::new();
    let mut error = Some(AggregationError::default());
    for (target, parts) in &groups {
        let made = if target == HEAD {
            head(input, &files, parts)?
        } else {
            if let Some(part) = parts.iter().find(|part| !travels.contains_key(*part)) {
                let known = travels.keys().cloned().collect::<Vec<_>>().join(", ");
                return refuse(format!(
                    "`{target}.{part}` is no tensor of method `{}`; its parts are {known}",
                    input.method.id()
                ));
            }
            one_target(input, &files, frozen.as_ref(), target, parts, &travels, &mut error)?
        };
        result.extend(made.into_iter().map(|(part, tensor)| (full_name(target, &part), tensor)));
    }
    let bf16 = files[0].entries().iter().all(|entry| entry.dtype == "BF16");
    let dtype = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
    let metadata = BTreeMap::from([("rondo.method".to_owned(), input.method.id().to_owned())]);
    let bytes = write(input.out, &result, dtype, &metadata)?;
    let targets = groups.into_keys().filter(|target| target != HEAD).collect();
    Ok(OfflineOutput { targets, bytes, error: error.and_then(|error| error.relative()) })
}

/// Parts by target.
fn group(file: &TensorFile) -> Result<BTreeMap<String, BTreeSet<String>>, MethodError> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in file.entries() {
        let Some((target, part)) = entry.name.rsplit_once('.') else {
            let problem = format!("{}: `{}` is not named <target>.<part>", file.path().display(), entry.name);
            return Err(MethodError::Contributions(problem));
        };
        groups.entry(target.to_owned()).or_default().insert(part.to_owned());
    }
    Ok(groups)
}

/// The method's parts, and whether clients send them. Roles do not depend on the target's size.
fn travelling_parts(input: &OfflineInput<'_>) -> BTreeMap<String, bool> {
    let rank = input.config.rank;
    let any = Target { name: "any".into(), out: rank, inp: rank };
    let layout = input.method.layout(input.config, &any, rank);
    layout.into_iter().map(|spec| (spec.part, spec.travel.goes_up())).collect()
}

fn read(file: &TensorFile, target: &str, part: &str) -> Result<Tensor, MethodError> {
    Ok(file.read(&full_name(target, part))?)
}

fn head(input: &OfflineInput<'_>, files: &[TensorFile], parts: &BTreeSet<String>) -> Result<TensorSet, MethodError> {
    let sent: Vec<String> = parts.iter().cloned().collect();
    let delta = input.method.delta(input.config, input.config.rank);
    let mut law = LawKind::Mean.start(HEAD);
    for (update, file) in input.updates.iter().zip(files) {
        let tensors =
            sent.iter().map(|part| Ok((part.clone(), read(file, HEAD, part)?))).collect::<Result<_, MethodError>>()?;
        let (client, weight) = (update.client.as_str(), update.weight);
        law.absorb(&Part { client, weight, delta: &delta, tensors: &tensors, sent: &sent })?;
    }
    law.finish()
}

/// One target; the error is given up for all as soon as one target lacks frozen parts.
fn one_target(
    input: &OfflineInput<'_>,
    files: &[TensorFile],
    frozen: Option<&TensorFile>,
    target: &str,
    parts: &BTreeSet<String>,
    travels: &BTreeMap<String, bool>,
    error: &mut Option<AggregationError>,
) -> Result<TensorSet, MethodError> {
    let (sent, fixed): (Vec<String>, Vec<String>) =
        parts.iter().cloned().partition(|part| travels.get(part) == Some(&true));
    let failed = |source| MethodError::delta(target, source);
    let mut held = TensorSet::new();
    for part in travels.iter().filter(|(_, goes_up)| !**goes_up).map(|(part, _)| part) {
        let beside = frozen.filter(|file| file.contains(&full_name(target, part)));
        if let Some(file) = beside.or(fixed.contains(part).then_some(&files[0])) {
            held.insert(part.clone(), read(file, target, part)?);
        }
    }
    let mut law = input.method.law().start(target);
    let mut mean: Option<Matrix> = None;
    let mut measurable = true;
    for (update, file) in input.updates.iter().zip(files) {
        for part in &fixed {
            if held.get(part) != Some(&read(file, target, part)?) {
                let name = full_name(target, part);
                let problem = format!("`{name}` is frozen, but differs in {}", file.path().display());
                return Err(MethodError::Contributions(problem));
            }
        }
        let mut tensors = held.clone();
        for part in &sent {
            tensors.insert(part.clone(), read(file, target, part)?);
        }
        let delta = input.method.delta(input.config, update.rank);
        measurable &= delta.parts().iter().all(|part| tensors.contains_key(*part));
        if measurable {
            let dense = delta.dense(&tensors).map_err(failed)?;
            mean.get_or_insert_with(|| Matrix::zeros(dense.rows(), dense.cols())).add_scaled(update.weight, &dense);
        }
        let (client, weight) = (update.client.as_str(), update.weight);
        law.absorb(&Part { client, weight, delta: &delta, tensors: &tensors, sent: &sent })?;
    }
    let mut made = law.finish()?;
    match (error.as_mut(), mean) {
        (Some(sum), Some(mean)) if measurable => {
            let dense = if input.method.law() == LawKind::Stack {
                stack_delta().dense(&made)
            } else {
                let whole: TensorSet = held.iter().chain(&made).map(|(name, t)| (name.clone(), t.clone())).collect();
                input.method.delta(input.config, input.config.rank).dense(&whole)
            };
            sum.add(&dense.map_err(failed)?, &mean);
        }
        _ => *error = None,
    }
    if input.method.law() != LawKind::Stack {
        made.extend(held.into_iter().filter(|(part, _)| fixed.contains(part)));
    }
    Ok(made)
}
