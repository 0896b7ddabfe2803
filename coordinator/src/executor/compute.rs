//! One aggregation, on the disk alone: updates in, files out.

use std::path::Path;

use rondo_methods::{AggregateInput, AggregateOutput, Contribution, Instance, Job, MethodError};
use rondo_proto::Digest;
use rondo_rounds::{AggregatePlan, PlannedUpdate};

use crate::dp_release::NoisedMean;
use crate::store::blobs::Blobs;

/// The run's job as it starts.
pub(super) fn started(job: &Job, plan: &AggregatePlan, blobs: &Blobs) -> Result<Job, MethodError> {
    match &plan.start_adapter {
        Some(digest) => job.starting_from(&blobs.path(&plan.work.run, digest)),
        None => Ok(job.clone()),
    }
}

/// Aggregates the updates of a plan, or what was released of them, into files of a folder.
pub(super) fn compute(
    job: &Job,
    plan: &AggregatePlan,
    blobs: &Blobs,
    out_dir: &Path,
    released: Option<NoisedMean>,
) -> Result<AggregateOutput, MethodError> {
    let path = |digest: &Digest| blobs.path(&plan.work.run, digest);
    let job = &started(job, plan, blobs)?;
    let updates = match &released {
        Some(released) => vec![stand_in(job, plan, released, out_dir)?],
        None => {
            let contribution = |update: &PlannedUpdate| Contribution {
                client: update.client.to_string(),
                weight: update.weight,
                rank: update.rank as usize,
                path: path(&update.digest),
            };
            plan.updates.iter().map(contribution).collect()
        }
    };
    let mut output = job.aggregate(AggregateInput {
        kind: plan.kind.into(),
        round: plan.work.round,
        updates,
        frozen: plan.frozen.as_ref().map(path),
        server: job.server(),
        server_state: plan.server.as_ref().map(path),
        published: plan.published.iter().map(path).collect(),
        out_dir,
        progress: &|done, total| tracing::debug!(run = %plan.work.run, done, total, "aggregating"),
    })?;
    if released.is_some() {
        // Against the noised mean it would say nothing, and the true one is private.
        output.error = None;
    }
    Ok(output)
}

/// What was released, as the only update of its round.
fn stand_in(
    job: &Job,
    plan: &AggregatePlan,
    released: &NoisedMean,
    out_dir: &Path,
) -> Result<Contribution, MethodError> {
    let path = out_dir.join("released.safetensors");
    job.write_update(plan.kind.into(), Instance::in_round(plan.work.round), &released.tensors, &path)?;
    Ok(Contribution { client: "released".to_owned(), weight: 1.0, rank: job.rank(), path })
}
