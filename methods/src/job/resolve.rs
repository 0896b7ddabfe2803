//! From a run file to a job: every check of method, options, targets and rank.

use std::collections::BTreeSet;
use std::sync::Arc;

use rondo_base::find_targets;
use rondo_proto::run_file::{HeadMode, RunFile, TaskKind};
use rondo_proto::v1;

use super::{Inner, Job, TaskFacts};
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::head::HeadShape;
use crate::layout::{Role, Start, Target, TensorSpec};
use crate::method::{Method, Publication, WarmUp};
use crate::registry::Registry;
use crate::tensor::fits;

impl Job {
    /// Resolves a run file. Everything that can be wrong about the method, its options, the targets or the rank is
    /// found here, never in the middle of a round.
    pub fn new(registry: &Registry, run: &RunFile, base: &v1::BaseModel) -> Result<Self, MethodError> {
        let method = Arc::clone(registry.shared(&run.method.id)?);
        let targets: Vec<Target> = find_targets(base, &run.method.targets)?
            .into_iter()
            .map(|linear| Target {
                name: linear.name,
                out: linear.out_features as usize,
                inp: linear.in_features as usize,
            })
            .collect();
        for target in &targets {
            let largest = target.out.min(target.inp);
            if run.method.rank == 0 || run.method.rank > largest {
                let (rank, out, inp) = (run.method.rank, target.out, target.inp);
                return Err(MethodError::Rank { rank, largest, target: target.name.clone(), out, inp });
            }
        }
        let config = MethodConfig::new(&run.method, method.options(), run.train.lr, run.train.seed)?;
        method.validate(&config, &targets)?;
        check_run(&*method, &config, run)?;
        let mut warm_up = Vec::new();
        for target in &targets {
            let lowest = if method.mixed_ranks() { 1 } else { config.rank };
            for rank in lowest..=config.rank {
                check_target(&*method, &config, target, rank)?;
            }
            warm_up.extend(method.warm_up(&config, target));
        }
        check_warm_up(&*method, &config, &targets, &warm_up)?;
        let head = match run.task.kind {
            TaskKind::Classification => Some(HeadShape {
                labels: run.task.labels.len(),
                hidden: base.hidden_size as usize,
                trained: run.task.head == HeadMode::Train,
            }),
            TaskKind::CausalLm | TaskKind::MultipleChoice | TaskKind::ExactAnswer => None,
        };
        let task = TaskFacts {
            kind: run.task.kind,
            run: run.name.clone(),
            architecture: base.architecture.clone(),
            base_digest: base.digest.clone(),
            labels: run.task.labels.clone(),
            pooling: run.task.pooling,
            max_tokens: run.task.max_tokens,
        };
        let (wire, server) = (run.wire.dtype, run.server.clone());
        let inner = Inner { method, config, targets, head, wire, server, warm_up, task };
        Ok(Self { inner: Arc::new(inner), start: None })
    }
}

/// What the run asks for beside the method must go with it.
fn check_run(method: &dyn Method, config: &MethodConfig, run: &RunFile) -> Result<(), MethodError> {
    let refuse = |key, problem| Err(MethodError::RunValue { key, method: method.id().to_owned(), problem });
    if run.server.is_some()
        && let Err(why) = method.server_steps(config)
    {
        return refuse("server.optimiser", format!("{why}; leave [server] out"));
    }
    if run.train.proximal > 0.0 && method.fresh_each_round() {
        let problem = "its adapter starts anew in every round, so there is no global one to be pulled to; set it to 0";
        return refuse("train.proximal", problem.to_owned());
    }
    Ok(())
}

/// Checks that a method's answers for a target fit together. A failure is a fault of the method's code.
fn check_target(method: &dyn Method, config: &MethodConfig, target: &Target, rank: usize) -> Result<(), MethodError> {
    let refuse = |problem: String| {
        Err(MethodError::Layout { method: method.id().to_owned(), target: target.name.clone(), problem })
    };
    let layout = method.layout(config, target, rank);
    if let Some(problem) = problem_of(&layout) {
        return refuse(problem);
    }
    if let Some(problem) = delta_problem(&method.delta(config, rank), &layout, target) {
        return refuse(problem);
    }
    let law = method.law();
    for spec in &layout {
        let problem = match (spec.role, spec.start) {
            (Role::Trained, _) if !spec.travel.goes_up() => "is trained but never sent up",
            (Role::Trained, _) if law.keeps_tensors() && !spec.travel.is_published() => {
                "is trained under a law that keeps its tensors, so it must travel both ways"
            }
            (Role::Frozen { .. }, _) if spec.travel.goes_up() => "is frozen but sent up",
            (Role::Frozen { .. }, Start::Artefact) if !spec.travel.is_shipped_frozen() => {
                "comes from an artefact but is never shipped"
            }
            (_, Start::SeededUniform { bound }) if !bound.is_finite() || bound <= 0.0 => {
                "has a bound that is not above 0"
            }
            _ => continue,
        };
        return refuse(format!("part `{}` {problem}", spec.part));
    }
    match block_problem(method, config, target, rank, &layout) {
        Some(problem) => refuse(problem),
        None => Ok(()),
    }
}

/// What does not fit about ranks below the run's, leading blocks and parts that rest.
fn block_problem(
    method: &dyn Method,
    config: &MethodConfig,
    target: &Target,
    rank: usize,
    layout: &[TensorSpec],
) -> Option<String> {
    let law = method.law();
    let of_run = method.layout(config, target, config.rank);
    for spec in layout {
        let problem = match (&spec.block, of_run.iter().find(|whole| whole.part == spec.part)) {
            (Some(_), _) if !law.keeps_unsent() => {
                "has a block that trains, but its law does not keep what lies outside"
            }
            (Some(_), _) if spec.role != Role::Trained => "has a block that trains, but is frozen",
            (Some(block), _) if !fits(block, &spec.shape) || block.contains(&0) => {
                "has a block that trains, but that is no part of it"
            }
            (_, None) => "is not in the layout of the run's rank",
            (None, Some(whole)) if spec.shape != whole.shape && spec.role == Role::Trained && !law.takes_smaller() => {
                "has another shape at a lower rank: tensors of different shapes have no mean"
            }
            (_, Some(whole)) if spec.travel.is_published() && !fits(&spec.shape, &whole.shape) => {
                "is larger at a lower rank than at the run's"
            }
            (_, Some(whole)) if spec.is_shipped_frozen() && spec.shape != whole.shape => {
                "is shipped, so it must have one shape at all ranks"
            }
            _ => continue,
        };
        return Some(format!("part `{}` {problem}", spec.part));
    }
    let trained = || layout.iter().filter(|spec| spec.role == Role::Trained);
    // Two rounds show every turn that two parts can take.
    for round in [1, 2] {
        if trained().next().is_some() && !trained().any(|spec| method.trains_in(config, round, &spec.part)) {
            return Some(format!("nothing trains in round {round}"));
        }
        if !law.keeps_unsent() && trained().any(|spec| !method.trains_in(config, round, &spec.part)) {
            return Some("parts rest in some rounds, but its law does not keep them".to_owned());
        }
    }
    let pair = method.delta(config, rank);
    if law.needs_pair() && pair.pair().is_none() {
        return Some(format!("the truncation makes two factors, the delta `{pair}` is no product of two"));
    }
    let merged = law.merged().filter(|_| law.keeps_tensors());
    let taken = merged.and_then(|(b, a)| layout.iter().find(|spec| spec.part == a || spec.part == b));
    taken.map(|spec| format!("part `{}` has the name of what its law merges", spec.part))
}

fn check_warm_up(
    method: &dyn Method,
    config: &MethodConfig,
    targets: &[Target],
    warm_up: &[WarmUp],
) -> Result<(), MethodError> {
    let refuse = |target: &Target, problem: String| {
        Err(MethodError::Layout { method: method.id().to_owned(), target: target.name.clone(), problem })
    };
    let Some(last) = targets.last() else { return Ok(()) };
    if warm_up.is_empty() {
        let layout = method.layout(config, last, config.rank);
        return match layout.iter().find(|spec| spec.start == Start::Artefact) {
            Some(spec) => refuse(last, format!("part `{}` comes from a warm-up, but there is none", spec.part)),
            None => Ok(()),
        };
    }
    if warm_up.len() != targets.len() {
        return refuse(last, "a warm-up must be for all targets or for none".into());
    }
    if method.publication() == Publication::Accumulate {
        return refuse(last, "a method whose aggregates are merged into the base cannot have a warm-up".into());
    }
    for (target, plan) in targets.iter().zip(warm_up) {
        let problem = problem_of(&plan.layout)
            .or_else(|| delta_problem(&plan.delta, &plan.layout, target))
            .or_else(|| (plan.law.stacks()).then(|| "a law that stacks cannot serve a warm-up".to_owned()))
            .or_else(|| {
                (plan.delta != warm_up[0].delta).then(|| "the probe's delta differs between targets".to_owned())
            });
        if let Some(problem) = problem {
            return refuse(target, problem);
        }
    }
    Ok(())
}

fn problem_of(layout: &[TensorSpec]) -> Option<String> {
    let mut seen = BTreeSet::new();
    for spec in layout {
        let named = !spec.part.is_empty() && spec.part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named {
            return Some(format!("`{}` is no part name: letters, digits and `_` are", spec.part));
        }
        if !seen.insert(spec.part.as_str()) {
            return Some(format!("part `{}` comes twice", spec.part));
        }
        if spec.shape.is_empty() || spec.shape.contains(&0) {
            return Some(format!("part `{}` has the empty shape {:?}", spec.part, spec.shape));
        }
    }
    None
}

fn delta_problem(delta: &Delta, layout: &[TensorSpec], target: &Target) -> Option<String> {
    let shape_of = |part: &str| layout.iter().find(|spec| spec.part == part).map(|spec| spec.shape.clone());
    match delta.shape(&shape_of) {
        Ok(shape) if shape == (target.out, target.inp) => None,
        Ok(shape) => Some(format!("the delta `{delta}` is {shape:?}, the weight is ({}, {})", target.out, target.inp)),
        Err(error) => Some(format!("the delta `{delta}` does not fit the layout: {error}")),
    }
}
