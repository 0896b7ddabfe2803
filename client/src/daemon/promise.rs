//! What a run's promise of privacy asks of one piece of work: nothing measured, the gradients or
//! the change protected, and nothing told beside the tensors.

use rondo_methods::Job;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1;

use super::failure::Failure;
use super::judge::Agreed;
use crate::worker::Task;
use rondo_trainer_api::work::{LocalUpdate, Protection};

/// Refuses a warm-up that would tell gradients without noise,
/// and a payment for a warm-up that reads no data.
pub(super) fn refuse_warm_up(run: &RunFile, job: &Job) -> Result<(), Failure> {
    let pays = run.privacy.as_ref().is_some_and(|asked| asked.warm_up_clip.is_some());
    let name = &run.name;
    let problem = match (pays, job.warm_up_reads_data()) {
        (true, true) | (false, false) => return Ok(()),
        (false, true) => format!(
            "run {name} promises privacy, and its warm-up would tell gradients of this client's data without noise; the \
             run needs warm_up_clip under [privacy], or init = \"base-svd\" under [method]"
        ),
        (true, false) => {
            format!(
                "run {name} has a warm_up_clip under [privacy], and its warm-up reads no data; it must leave the key out"
            )
        }
    };
    Err(Failure::NotAgreed(problem))
}

/// Whether the promise covers what a task sends: training, and a warm-up that reads data.
pub(super) fn is_private(task: Task, agreed: &Agreed) -> bool {
    let is_covered = match task {
        Task::Train => true,
        Task::WarmUp => agreed.job.warm_up_reads_data(),
        Task::Evaluate => false,
    };
    is_covered && agreed.run.privacy.is_some()
}

/// With privacy nothing is measured on data that are not public: client.toml says which are.
pub(super) fn refuse_measuring(assignment: &v1::Assignment, task: Task, agreed: &Agreed) -> Result<(), Failure> {
    if task != Task::Evaluate && !assignment.evaluate_before {
        return Ok(());
    }
    let run = &agreed.run.name;
    Err(Failure::NotAgreed(format!("run {run} promises privacy, and a measurement on this client's data would leak")))
}

/// What keeps the run's promise in this piece of work.
pub(super) fn protection(assignment: &v1::Assignment, task: Task, agreed: &Agreed) -> Result<Protection, Failure> {
    let asked = agreed.run.privacy.as_ref().filter(|_| is_private(task, agreed));
    match (asked, agreed.privacy) {
        (None, _) => Ok(Protection::None),
        (Some(_), Some(plan)) => Ok(Protection::Examples(plan)),
        (Some(asked), None) if asked.is_per_client() && assignment.clip > 0.0 && assignment.clip.is_finite() => {
            Ok(Protection::WholeChange { clip: assignment.clip })
        }
        (Some(_), None) => {
            let run = &agreed.run.name;
            Err(Failure::NotAgreed(format!(
                "run {run} promises privacy, and the assignment does not say how to keep it"
            )))
        }
    }
}

/// The update without anything beside its tensors, whatever the trainer found to say.
pub(super) fn told_nothing(update: LocalUpdate) -> LocalUpdate {
    LocalUpdate { tensors: update.tensors, examples: 0, train_loss: 0.0, seconds: 0.0, before: None }
}
