//! From a run file to a job.

use std::collections::BTreeMap;
use std::sync::Arc;

use rondo_base::find_targets;
use rondo_proto::run_file::{HeadMode, RunFile, TaskKind};
use rondo_proto::v1;

use super::check::Check;
use super::{Inner, Job, TaskFacts};
use crate::config::MethodConfig;
use crate::error::MethodError;
use crate::head::HeadShape;
use crate::layout::{Target, TensorSpec};
use crate::registry::Registry;

impl Job {
    /// Resolves a run file. Everything that can be wrong about the method, its options, the targets
    /// or the rank is found here, never in the middle of a round.
    ///
    /// # Errors
    /// The method is unknown, it refuses an option or another value of the run file, the targets do
    /// not fit the base, the rank does not fit a target, or the method's answers do not fit
    /// together.
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
        let check = Check { method: &*method, config: &config, targets: &targets };
        check.run(run)?;
        check.answers()?;
        check.rounds(run.rounds.count)?;
        let lowest = if method.mixed_ranks(&config) { 1 } else { config.rank };
        let mut warm_up = Vec::new();
        let mut shared = BTreeMap::new();
        for target in &targets {
            for rank in lowest..=config.rank {
                check.target(target, rank)?;
                share(&mut shared, &method.layout(&config, check.at(target, rank)));
            }
            check.offset(target)?;
            warm_up.push(method.warm_up(&config, check.at(target, config.rank)));
        }
        if warm_up.iter().all(Vec::is_empty) {
            warm_up.clear();
        }
        check.warm_up(&warm_up)?;
        warm_up.iter().flatten().for_each(|probe| share(&mut shared, &probe.layout));
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
            rounds: run.rounds.count,
        };
        let wire = run.wire.dtype;
        let server = run.server.clone();
        let inner = Inner { method, config, targets, head, wire, server, warm_up, shared, task };
        Ok(Self { inner: Arc::new(inner), start: None })
    }

    /// Sizes in which a tensor is drawn that the targets share
    /// under a name: the largest that any of them has.
    pub(super) fn shared_shape(&self, name: &str) -> Option<&[usize]> {
        self.inner.shared.get(name).map(Vec::as_slice)
    }
}

/// Widens the sizes of shared tensors to those of a layout.
fn share(shapes: &mut BTreeMap<String, Vec<usize>>, layout: &[TensorSpec]) {
    for spec in layout {
        let Some(name) = &spec.shared else { continue };
        let shape = shapes.entry(name.clone()).or_insert_with(|| spec.shape.clone());
        shape.iter_mut().zip(&spec.shape).for_each(|(most, &length)| *most = length.max(*most));
    }
}
