//! Aggregation, files in and files out. Goes target by target and holds one target's result and one target of one update
//! at a time. Under the mean law memory does not grow with the number of clients; under the stack law it does with the
//! stack of one target, which is what the clients' ranks add up to.

mod server;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::{Dtype, Server};

use self::server::Stepper;
use self::work::Work;
use crate::at::Instance;
use crate::error::MethodError;
use crate::file::TensorWriter;
use crate::job::{Job, Kind};
use crate::layout::{NamedSpec, Role, TensorSpec};
use crate::tensor::TensorSet;

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
    /// The run's server optimiser ([`Job::server`]), if it has one: what is published is then its step towards the mean.
    pub server: Option<&'a Server>,
    /// The optimiser's state after the round before; absent before the first.
    pub server_state: Option<PathBuf>,
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
    /// The server optimiser's state after this round, for the next one; of a training round with an optimiser.
    pub server_state: Option<PathBuf>,
    /// ||aggregate - dense weighted mean|| / ||dense weighted mean|| over all targets, before a server optimiser's step;
    /// none for a warm-up.
    pub error: Option<f64>,
    /// Remarks for the round record.
    pub notes: Vec<String>,
}

impl Job {
    /// Aggregates a round's updates, or a warm-up's statistics, into `out_dir/global.safetensors` and, when tensors were
    /// newly frozen, `out_dir/frozen.safetensors`; with a server optimiser its state into `out_dir/server.safetensors`. Safe to repeat: equal input gives equal bytes.
    pub fn aggregate(&self, mut input: AggregateInput<'_>) -> Result<AggregateOutput, MethodError> {
        input.updates.sort_by(|a, b| a.client.cmp(&b.client));
        self.check_contributions(&input)?;
        let ranks: Vec<usize> = input.updates.iter().map(|update| update.rank).collect();
        let global = input.out_dir.join("global.safetensors");
        let mut metadata = BTreeMap::from([
            ("rondo.method".to_owned(), self.method().id().to_owned()),
            ("rondo.round".to_owned(), input.round.to_string()),
            (crate::job::VERSION.to_owned(), input.published.len().to_string()),
            (crate::job::SEEDS.to_owned(), self.seeds_digest()),
        ]);
        if self.initial_adapter().is_some() {
            metadata.insert(crate::job::STARTED.to_owned(), self.start_digest());
        }
        let mut publisher =
            TensorWriter::create(&global, self.published_tensors(&ranks), self.wire_dtype(), &metadata)?;
        let mut froze = Frozen { path: input.out_dir.join("frozen.safetensors"), tensors: TensorSet::new() };
        let stepper = match input.server.filter(|_| input.kind == Kind::Train) {
            Some(settings) => Some(self.stepper(settings, &input, &metadata)?),
            None => None,
        };
        let mut work = Work::new(self, &input, stepper);
        let statistics = match input.kind {
            Kind::WarmUp => Some(work.statistics()?),
            Kind::Train => None,
        };
        for target in 0..self.targets().len() {
            let made = match &statistics {
                Some(statistics) => work.warm_up(target, statistics)?,
                None => work.train(target)?,
            };
            for (name, tensor) in made.published {
                publisher.write(&name, &tensor)?;
            }
            froze.tensors.extend(made.frozen);
        }
        for (name, tensor) in work.head()? {
            publisher.write(&name, &tensor)?;
        }
        let error = work.error().filter(|_| input.kind == Kind::Train);
        publisher.finish()?;
        let mut notes = work.notes();
        let server_state = work.close()?;
        let frozen = froze.write(self, &metadata)?;
        if frozen.is_some() && input.kind == Kind::Train {
            notes.push(format!("frozen tensors were derived anew after round {}", input.round));
        }
        if error.is_none() && input.kind == Kind::Train {
            notes.push("the dense weighted mean is zero, so there is no relative aggregation error".into());
        }
        Ok(AggregateOutput { global, frozen, server_state, error, notes })
    }

    fn stepper<'a>(
        &self,
        settings: &'a Server,
        input: &AggregateInput<'_>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Stepper<'a>, MethodError> {
        let stepped = |named: NamedSpec| is_stepped(&named.spec).then_some((named.name, named.spec.shape));
        let stepped = self.layout(Instance::in_round(input.round)).into_iter().filter_map(stepped);
        let path = input.out_dir.join("server.safetensors");
        Stepper::start(settings, input.server_state.as_deref(), path, stepped, metadata)
    }

    fn check_contributions(&self, input: &AggregateInput<'_>) -> Result<(), MethodError> {
        let refuse = |problem: String| Err(MethodError::Contributions(problem));
        if input.updates.is_empty() {
            return refuse("there are no updates".into());
        }
        if input.kind == Kind::WarmUp && !self.needs_warm_up() {
            return refuse(format!("method `{}` has no warm-up", self.method().id()));
        }
        if input.server.is_some()
            && let Err(why) = self.method().server_steps(self.config())
        {
            return refuse(format!("no server optimiser can serve method `{}`: {why}", self.method().id()));
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

/// True for a tensor that a server optimiser steps: published, and trained.
fn is_stepped(spec: &TensorSpec) -> bool {
    spec.role == Role::Trained && spec.travel.is_published()
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
