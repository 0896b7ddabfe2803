//! What a run's privacy terms ask of one piece of work: nothing is measured, the gradients or the
//! change are protected, and nothing but tensors leaves the machine.

use rondo_dp::{Privacy, PrivacyError, Terms};
use rondo_methods::Job;
use rondo_proto::run_file::{PrivacyChoice, RunFile};
use rondo_proto::v1;
use rondo_trainer_api::work::{LocalUpdate, Protection};

use super::accepted_run::AcceptedRun;
use super::failure::Failure;
use crate::worker::Activity;

/// The guarantee that a run asks its clients for.
/// Every key is named, so that none can be forgotten.
///
/// # Errors
/// A run file with numbers out of range.
pub fn privacy_terms(run: &RunFile) -> Result<Privacy, PrivacyError> {
    let Some(asked) = &run.privacy else { return Ok(Privacy::None) };
    let PrivacyChoice { ref unit, epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } =
        *asked;
    Privacy::new(unit, Terms { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip })
}

/// Refuses a warm-up that would reveal gradients without noise, and a payment for a warm-up that
/// reads no data.
pub(super) fn refuse_warm_up(run: &RunFile, job: &Job) -> Result<(), Failure> {
    let pays = run.privacy.as_ref().is_some_and(|asked| asked.warm_up_clip.is_some());
    let name = &run.name;
    let problem = match (pays, job.warm_up_reads_data()) {
        (true, true) | (false, false) => return Ok(()),
        (false, true) => format!(
            "run {name} promises privacy, and its warm-up would reveal gradients of this client's data without noise; the \
             run needs warm_up_clip under [privacy], or init = \"base-svd\" under [method]"
        ),
        (true, false) => format!(
            "run {name} has a warm_up_clip under [privacy], and its warm-up reads no data; it must leave the key out"
        ),
    };
    Err(Failure::NotAgreed(problem))
}

/// Whether the run's privacy terms cover what an activity sends: training, and a warm-up that
/// reads data.
pub(super) fn is_private(activity: Activity, accepted: &AcceptedRun) -> bool {
    let is_covered = match activity {
        Activity::Train => true,
        Activity::WarmUp => accepted.job.warm_up_reads_data(),
        Activity::Evaluate => false,
    };
    is_covered && accepted.run.privacy.is_some()
}

/// With privacy nothing is measured on data that are not public: client.toml says which are.
pub(super) fn refuse_measuring(
    assignment: &v1::Assignment,
    activity: Activity,
    accepted: &AcceptedRun,
) -> Result<(), Failure> {
    if activity != Activity::Evaluate && !assignment.evaluate_before {
        return Ok(());
    }
    let run = &accepted.run.name;
    Err(Failure::NotAgreed(format!("run {run} promises privacy, and a measurement on this client's data would leak")))
}

/// What keeps the run's privacy terms in this piece of work.
pub(super) fn protection(
    assignment: &v1::Assignment,
    activity: Activity,
    accepted: &AcceptedRun,
) -> Result<Protection, Failure> {
    let asked = accepted.run.privacy.as_ref().filter(|_| is_private(activity, accepted));
    match (asked, accepted.privacy) {
        (None, _) => Ok(Protection::None),
        (Some(_), Some(plan)) => Ok(Protection::Examples(plan)),
        (Some(asked), None) if asked.is_per_client() && assignment.clip > 0.0 && assignment.clip.is_finite() => {
            Ok(Protection::WholeChange { clip: assignment.clip })
        }
        (Some(_), None) => {
            let run = &accepted.run.name;
            Err(Failure::NotAgreed(format!(
                "run {run} promises privacy, and the assignment does not say how to keep it"
            )))
        }
    }
}

/// The update with its tensors alone: no counts, losses, times or evaluations.
pub(super) fn tensors_only(update: LocalUpdate) -> LocalUpdate {
    LocalUpdate { tensors: update.tensors, examples: 0, train_loss: 0.0, seconds: 0.0, before: None }
}
