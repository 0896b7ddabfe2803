//! Whether a method's answers fit the run and each other. A failure
//! of the latter is a fault of the method's code.

use std::collections::{BTreeMap, BTreeSet};

use rondo_proto::run_file::RunFile;

use crate::answers::Publication;
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::init::base_factors;
use crate::layout::{Role, Start, Target, TensorSpec};
use crate::method::Method;
use crate::tensor::fits;
use crate::warm_up::{Statistic, WarmUp};

/// Rounds that are asked for at most when a job is made, so that
/// this takes no time: turns come again long before.
const CHECKED_ROUNDS: u32 = 256;

/// A method under its settings, on a run's targets.
pub(super) struct Check<'a> {
    pub(super) method: &'a dyn Method,
    pub(super) config: &'a MethodConfig,
    pub(super) targets: &'a [Target],
}

impl<'a> Check<'a> {
    /// A question in no round and for no client in particular.
    pub(super) fn at(&self, target: &'a Target, rank: usize) -> At<'a> {
        At { target, rank, round: None, client: None }
    }

    fn of_run(&self, target: &'a Target) -> At<'a> {
        self.at(target, self.config.rank)
    }

    fn refuse<T>(&self, target: &Target, problem: String) -> Result<T, MethodError> {
        Err(MethodError::Layout { method: self.method.id().to_owned(), target: target.name.clone(), problem })
    }

    /// What the run asks for beside the method must go with it.
    pub(super) fn run(&self, run: &RunFile) -> Result<(), MethodError> {
        let refuse = |key, problem| Err(MethodError::RunValue { key, method: self.method.id().to_owned(), problem });
        if run.server.is_some()
            && let Err(why) = self.method.server_steps(self.config)
        {
            return refuse("server.optimiser", format!("{why}; leave [server] out"));
        }
        if run.train.proximal > 0.0 && self.method.fresh_each_round(self.config) {
            let problem =
                "its adapter starts anew in every round, so there is no global one to be pulled to; set it to 0";
            return refuse("train.proximal", problem.to_owned());
        }
        Ok(())
    }

    /// Law and publication must go together.
    pub(super) fn answers(&self) -> Result<(), MethodError> {
        let law = self.method.law(self.config);
        let problem = match (law.merged().is_some(), self.method.publication(self.config)) {
            _ if law.only_for_warm_up() => "its law is for warm-up statistics only",
            (true, Publication::Replace) => {
                "what its law merges into the base adds up: its publication must be accumulate"
            }
            (false, Publication::Accumulate) => "its law publishes the adapter itself: its publication must be replace",
            (true, Publication::Accumulate) | (false, Publication::Replace) => return Ok(()),
        };
        Err(MethodError::Answers { method: self.method.id().to_owned(), problem: problem.to_owned() })
    }

    /// In every round something trains in one of the targets at least; a round changes no sizes;
    /// and nothing rests under a law that does not keep it.
    pub(super) fn rounds(&self, rounds: u32) -> Result<(), MethodError> {
        let (method, config) = (self.method, self.config);
        let keeps = method.law(config).keeps_unsent();
        let layout_of = |target: &'a Target| (target, method.layout(config, self.of_run(target)));
        let of_run: Vec<(&Target, Vec<TensorSpec>)> = self.targets.iter().map(layout_of).collect();
        for round in 1..=rounds.clamp(2, CHECKED_ROUNDS) {
            let mut trained = 0;
            let mut moving = 0;
            let mut resting = None;
            for (target, in_no_round) in &of_run {
                let at = At { round: Some(round), ..self.of_run(target) };
                let layout = method.layout(config, at);
                if let Some(spec) = other_shape(in_no_round, &layout) {
                    return self.refuse(target, format!("part `{spec}` has another shape in round {round}"));
                }
                for spec in layout.iter().filter(|spec| spec.role == Role::Trained) {
                    trained += 1;
                    if method.trains_in(config, at, &spec.part) {
                        moving += 1;
                    } else {
                        resting = resting.or(Some(*target));
                    }
                }
            }
            match (self.targets.first(), resting) {
                (Some(first), _) if trained > 0 && moving == 0 => {
                    return self.refuse(first, format!("nothing trains in round {round}"));
                }
                (_, Some(target)) if !keeps => {
                    return self.refuse(target, "parts rest in some rounds, but its law does not keep them".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The answers for one target at one rank.
    pub(super) fn target(&self, target: &'a Target, rank: usize) -> Result<(), MethodError> {
        let at = self.at(target, rank);
        let layout = self.method.layout(self.config, at);
        if let Some(problem) = problem_of(&layout) {
            return self.refuse(target, problem);
        }
        if let Some(problem) = delta_problem(&self.method.delta(self.config, at), &layout, target) {
            return self.refuse(target, problem);
        }
        let law = self.method.law(self.config);
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
                _ => continue,
            };
            return self.refuse(target, format!("part `{}` {problem}", spec.part));
        }
        match self.block_problem(at, &layout) {
            Some(problem) => self.refuse(target, problem),
            None => Ok(()),
        }
    }

    /// What does not fit about ranks below the run's and leading blocks.
    fn block_problem(&self, at: At<'a>, layout: &[TensorSpec]) -> Option<String> {
        let law = self.method.law(self.config);
        let of_run = self.method.layout(self.config, self.of_run(at.target));
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
                (None, Some(whole))
                    if spec.shape != whole.shape && spec.role == Role::Trained && !law.takes_smaller() =>
                {
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
        let pair = self.method.delta(self.config, at);
        if law.needs_pair() && pair.pair().is_none() {
            return Some(format!("the truncation makes two factors, the delta `{pair}` is no product of two"));
        }
        let merged = law.merged().filter(|_| law.keeps_tensors());
        let taken = merged.and_then(|(b, a)| layout.iter().find(|spec| spec.part == a || spec.part == b));
        taken.map(|spec| format!("part `{}` has the name of what its law merges", spec.part))
    }

    /// An offset is made of frozen parts that stay the same for the whole run.
    pub(super) fn offset(&self, target: &'a Target) -> Result<(), MethodError> {
        let at = self.of_run(target);
        let Some(offset) = self.method.offset(self.config, at) else { return Ok(()) };
        let layout = self.method.layout(self.config, at);
        if let Some(problem) = delta_problem(&offset, &layout, target) {
            return self.refuse(target, format!("its offset does not fit: {problem}"));
        }
        let fresh = self.method.fresh_each_round(self.config);
        for spec in layout.iter().filter(|spec| offset.parts().contains(&spec.part.as_str())) {
            let problem = match spec.role {
                Role::Trained => "is trained, but its offset must be constant",
                Role::Frozen { .. } if fresh && spec.start.is_seeded() => {
                    "is drawn anew in every round, but its offset must be constant"
                }
                Role::Frozen { .. } => continue,
            };
            return self.refuse(target, format!("part `{}` {problem}", spec.part));
        }
        Ok(())
    }

    /// The warm-up, one list of statistics per target or none at all; and what targets share.
    pub(super) fn warm_up(&self, warm_up: &[Vec<WarmUp>]) -> Result<(), MethodError> {
        let Some(last) = self.targets.last() else { return Ok(()) };
        if warm_up.is_empty() {
            let layout = self.method.layout(self.config, self.of_run(last));
            if let Some(spec) = layout.iter().find(|spec| spec.start == Start::Artefact) {
                return self.refuse(last, format!("part `{}` comes from a warm-up, but there is none", spec.part));
            }
        } else if self.method.publication(self.config) == Publication::Accumulate {
            let problem = "a method whose aggregates are merged into the base cannot have a warm-up";
            return self.refuse(last, problem.to_owned());
        }
        for (target, asked) in self.targets.iter().zip(warm_up) {
            if asked.is_empty() {
                return self.refuse(target, "a warm-up must be for all targets or for none".to_owned());
            }
            let all: Vec<TensorSpec> = asked.iter().flat_map(|probe| probe.layout.clone()).collect();
            let problem = problem_of(&all).or_else(|| asked.iter().find_map(|probe| probe_problem(probe, target)));
            if let Some(problem) = problem {
                return self.refuse(target, problem);
            }
        }
        self.shared(warm_up)
    }

    /// Tensors that targets share under one name must be drawn alike.
    fn shared(&self, warm_up: &[Vec<WarmUp>]) -> Result<(), MethodError> {
        let mut known: BTreeMap<String, (Start, usize)> = BTreeMap::new();
        let probes = |index: usize| warm_up.get(index).into_iter().flatten().flat_map(|probe| probe.layout.clone());
        for (index, target) in self.targets.iter().enumerate() {
            let layout = self.method.layout(self.config, self.of_run(target));
            for spec in layout.into_iter().chain(probes(index)) {
                let Some(name) = spec.shared else { continue };
                let this = (spec.start, spec.shape.len());
                let first = known.entry(name.clone()).or_insert(this);
                let problem = match this {
                    _ if !spec.start.is_seeded() => "is not drawn from the seed",
                    _ if *first != this => "is drawn differently by two targets",
                    _ => continue,
                };
                return self.refuse(target, format!("part `{}` is shared as `{name}`, but {problem}", spec.part));
            }
        }
        Ok(())
    }
}

/// What does not fit about one statistic that a method asks of a target.
fn probe_problem(probe: &WarmUp, target: &Target) -> Option<String> {
    let base = match probe.statistic {
        Statistic::Gradient => None,
        Statistic::Base(factors) => {
            let rank = base_factors::rank_of(factors, &probe.layout);
            let expected = rank.map(|rank| base_factors::probe(factors, target, rank).layout);
            let other = expected.is_none_or(|expected| other_shape(&expected, &probe.layout).is_some());
            other.then(|| "the warm-up asks for factors of the base in other parts than clients make".to_owned())
        }
    };
    base.or_else(|| delta_problem(&probe.delta, &probe.layout, target)).or_else(|| {
        (!probe.law.serves_warm_up()).then(|| "the law of a training round cannot serve a warm-up".to_owned())
    })
}

/// The first part that one of two layouts lacks or has in another shape.
fn other_shape(one: &[TensorSpec], two: &[TensorSpec]) -> Option<String> {
    let same = |spec: &&TensorSpec, other: &[TensorSpec]| {
        other.iter().any(|known| known.part == spec.part && known.shape == spec.shape)
    };
    let lacking = one.iter().find(|spec| !same(spec, two)).or_else(|| two.iter().find(|spec| !same(spec, one)));
    lacking.map(|spec| spec.part.clone())
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
        if let Some(problem) = start_problem(spec) {
            return Some(format!("part `{}` {problem}", spec.part));
        }
    }
    None
}

fn start_problem(spec: &TensorSpec) -> Option<&'static str> {
    let is_positive = |number: f64| number.is_finite() && number > 0.0;
    match spec.start {
        Start::SeededUniform { bound } if !is_positive(bound) => Some("has a bound that is not above 0"),
        Start::SeededNormal { std } if !is_positive(std) => Some("has a standard deviation that is not above 0"),
        Start::Constant { value } if !(value as f32).is_finite() => Some("starts at a number that is not finite"),
        Start::Tile { period: 0 } => Some("is a tiling of period 0"),
        Start::Tile { .. } if spec.shape.len() != 2 => Some("is a tiling, but no matrix"),
        _ => None,
    }
}

fn delta_problem(delta: &Delta, layout: &[TensorSpec], target: &Target) -> Option<String> {
    let shape_of = |part: &str| layout.iter().find(|spec| spec.part == part).map(|spec| spec.shape.clone());
    match delta.shape(&shape_of) {
        Ok(shape) if shape == (target.out, target.inp) => None,
        Ok(shape) => Some(format!("the delta `{delta}` is {shape:?}, the weight is ({}, {})", target.out, target.inp)),
        Err(error) => Some(format!("the delta `{delta}` does not fit the layout: {error}")),
    }
}
