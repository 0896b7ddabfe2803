//! Aggregation, files in and files out. It goes target by target and holds one target's result and
//! one target of one update at a time. Under the mean law memory does not grow with the number of
//! clients; under the stack law it grows with the stack of one target, as high as the sum of the
//! clients' ranks.

pub(crate) mod engine;
pub(crate) mod finite;
mod input;
mod outliers;
mod round;
mod server;
mod target_files;
mod warm_up;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rondo_proto::run_file::{Dtype, Server};

pub use self::input::{AggregateInput, AggregateOutput, Contribution};

use self::engine::check_shares;
use self::round::RoundAggregation;
use self::server::{ServerStepper, is_stepped};
use crate::at::Instance;
use crate::error::MethodError;
use crate::file::TensorWriter;
use crate::job::{Job, Kind};
use crate::layout::NamedSpec;
use crate::tensor::TensorSet;

impl Job {
    /// Aggregates a round's updates, or a warm-up's statistics, into `out_dir/global.safetensors`.
    /// Newly frozen tensors go into `out_dir/frozen.safetensors`, a server optimiser's state into
    /// `out_dir/server.safetensors`. Safe to repeat: equal input gives equal bytes.
    ///
    /// # Errors
    /// Updates that cannot be aggregated, files that cannot be read or written, and a law that
    /// fails.
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
        if self.start_adapter().is_some() {
            metadata.insert(crate::job::STARTED.to_owned(), self.start_digest());
        }
        let mut publisher =
            TensorWriter::create(&global, self.published_tensors(&ranks), self.wire_dtype(), &metadata)?;
        let mut new_frozen = NewFrozen { path: input.out_dir.join("frozen.safetensors"), tensors: TensorSet::new() };
        let stepper = match input.server.filter(|_| input.kind == Kind::Train) {
            Some(settings) => Some(self.stepper(settings, &input, &metadata)?),
            None => None,
        };
        let mut aggregation = RoundAggregation::new(self, &input, stepper);
        let statistics = match input.kind {
            Kind::WarmUp => Some(aggregation.statistics()?),
            Kind::Train => None,
        };
        for target in 0..self.targets().len() {
            let made = match &statistics {
                Some(statistics) => statistics.finish(self, target)?,
                None => aggregation.train(target)?,
            };
            for (name, tensor) in made.published {
                finite::check(&self.targets()[target].name, &name, &tensor, &input.updates)?;
                publisher.write(&name, &tensor)?;
            }
            for (name, tensor) in &made.frozen {
                finite::check(&self.targets()[target].name, name, tensor, &input.updates)?;
            }
            new_frozen.tensors.extend(made.frozen);
        }
        for (name, tensor) in aggregation.head()? {
            finite::check("head", &name, &tensor, &input.updates)?;
            publisher.write(&name, &tensor)?;
        }
        let error = aggregation.error().filter(|_| input.kind == Kind::Train);
        publisher.finish()?;
        let mut notes = aggregation.notes();
        let server_state = aggregation.close()?;
        let frozen = new_frozen.write(self, &metadata)?;
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
    ) -> Result<ServerStepper<'a>, MethodError> {
        let stepped = |named: NamedSpec| is_stepped(&named.spec).then_some((named.name, named.spec.shape));
        let stepped = self.layout(Instance::in_round(input.round)).into_iter().filter_map(stepped);
        let path = input.out_dir.join("server.safetensors");
        ServerStepper::start(settings, input.server_state.as_deref(), path, stepped, metadata)
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
        check_shares(&input.updates)?;
        for update in &input.updates {
            if self.client_rank(update.rank)? != update.rank {
                return refuse(format!("client {} comes with rank 0", update.client));
            }
        }
        Ok(())
    }
}

/// Newly frozen tensors, gathered over the targets: one adapter's worth at most.
struct NewFrozen {
    path: PathBuf,
    tensors: TensorSet,
}

impl NewFrozen {
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
