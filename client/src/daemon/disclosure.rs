//! What client.toml lets out of this machine beside tensors: every message that holds a figure of
//! this client's data is made here, and nowhere else.

use rondo_proto::run_file::TaskKind;
use rondo_proto::{groups, v1};
use rondo_trainer_api::work::Progress;

use crate::config::PolicyConfig;
use crate::spool::{Charge, Entry, Facts};

/// The keys `report_metrics`, `report_groups` and `min_group` of `[policy]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disclosure {
    report_metrics: bool,
    report_groups: bool,
    min_group: u32,
}

impl Disclosure {
    pub(super) fn of(policy: &PolicyConfig) -> Self {
        let PolicyConfig { report_metrics, report_groups, min_group, .. } = *policy;
        Self { report_metrics, report_groups, min_group }
    }

    /// Whether anything is measured for the coordinator.
    pub(super) fn reports_metrics(self) -> bool {
        self.report_metrics
    }

    /// The part of an evaluation that may leave.
    fn evaluation(self, evaluation: v1::Evaluation, task: TaskKind) -> Option<v1::Evaluation> {
        if !self.report_metrics {
            return None;
        }
        Some(match self.report_groups {
            true => groups::fold_small(evaluation, self.min_group, task),
            false => v1::Evaluation { groups: Vec::new(), ..evaluation },
        })
    }

    /// The report of an evaluation assignment; `None` where the site withholds it.
    pub(super) fn evaluation_report(
        self,
        assignment: &v1::Assignment,
        evaluation: v1::Evaluation,
        task: TaskKind,
    ) -> Option<v1::EvaluationReport> {
        let evaluation = self.evaluation(evaluation, task)?;
        Some(v1::EvaluationReport {
            run: assignment.run.clone(),
            round: assignment.round,
            evaluation: Some(evaluation),
            min_group: self.min_group,
        })
    }

    /// The facts that may lie in the spool, from where they are sent.
    pub(super) fn facts(self, facts: Facts, task: TaskKind) -> Facts {
        Facts {
            train_loss: if self.report_metrics { facts.train_loss } else { 0.0 },
            before: facts.before.and_then(|before| self.evaluation(before, task)),
            ..facts
        }
    }

    /// What goes before the tensors of an update. An entry may have come into the spool under
    /// another client.toml, or by a program that folded no groups: the present settings hold.
    pub(super) fn upload_header(self, entry: &Entry, key: v1::UploadKey, offset: u64) -> v1::UploadHeader {
        // What was folded once stays as it is, so the task matters to older entries alone.
        let facts = self.facts(entry.facts.clone(), TaskKind::Classification);
        v1::UploadHeader {
            key: Some(key),
            total_bytes: entry.bytes,
            offset,
            examples: facts.examples,
            train_loss: facts.train_loss,
            train_seconds: facts.train_seconds,
            rank: facts.rank,
            base_version: facts.base_version,
            before: facts.before,
            privacy: match facts.charge {
                Charge::Paid(report) => Some(report),
                Charge::None | Charge::Due => None,
            },
            metrics_withheld: !self.report_metrics,
            min_group: self.min_group,
        }
    }

    /// The report that nothing is measured here.
    pub(super) fn nothing_measured(assignment: &v1::Assignment) -> v1::FailureReport {
        v1::FailureReport {
            run: assignment.run.clone(),
            round: assignment.round,
            attempt: assignment.attempt,
            reason: "this site withholds its measurements".to_owned(),
            metrics_withheld: true,
        }
    }

    /// How far the work is. `is_private` is for a run with privacy, of which no loss leaves.
    pub(super) fn heartbeat(
        self,
        assignment: &v1::Assignment,
        state: &str,
        progress: Progress,
        is_private: bool,
    ) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            run: assignment.run.clone(),
            round: assignment.round,
            attempt: assignment.attempt,
            state: state.to_owned(),
            step: progress.step,
            steps: progress.steps,
            loss: match (is_private, self.report_metrics) {
                (true, _) => 0.0,
                (false, true) => progress.loss,
                (false, false) => f64::NAN,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> v1::Evaluation {
        let group = |group: &str, examples| v1::GroupEvaluation {
            group: group.to_owned(),
            loss: 1.0,
            accuracy: 0.5,
            examples,
            tokens: 0,
        };
        let groups = vec![group("cardiology", 40), group("dermatology", 30), group("porphyria", 1)];
        v1::Evaluation { loss: 1.0, accuracy: 0.5, examples: 71, tokens: 0, groups }
    }

    fn names(policy: &PolicyConfig) -> Option<Vec<String>> {
        let report = Disclosure::of(policy).evaluation_report(
            &v1::Assignment::default(),
            evaluation(),
            TaskKind::Classification,
        );
        Some(report?.evaluation?.groups.into_iter().map(|group| group.group).collect())
    }

    #[test]
    fn groups_leave_only_where_client_toml_says_so_and_small_ones_never() {
        assert_eq!(names(&PolicyConfig::default()), Some(Vec::new()));
        let groups = PolicyConfig { report_groups: true, ..PolicyConfig::default() };
        assert_eq!(names(&groups), Some(vec!["cardiology".to_owned(), "other".to_owned()]));
        assert_eq!(names(&PolicyConfig { report_metrics: false, ..groups }), None);
    }

    #[test]
    fn an_entry_of_an_older_program_is_held_to_the_present_settings() {
        let facts = Facts {
            examples: 60,
            train_loss: 0.25,
            train_seconds: 1.0,
            rank: 2,
            base_version: 0,
            before: Some(evaluation()),
            charge: Charge::None,
        };
        let key = crate::spool::Key { run: rondo_proto::RunId::new("a").unwrap(), round: 1, attempt: 1 };
        let digest = rondo_proto::Digest::of(b"a");
        let entry = Entry { key, digest, bytes: 1, path: "a".into(), facts, accepted: false };
        let header = |policy: &PolicyConfig| Disclosure::of(policy).upload_header(&entry, v1::UploadKey::default(), 0);
        let open = header(&PolicyConfig::default());
        assert_eq!((open.train_loss, open.before.unwrap().groups.len(), open.metrics_withheld), (0.25, 0, false));
        let closed = header(&PolicyConfig { report_metrics: false, ..PolicyConfig::default() });
        assert_eq!((closed.train_loss, closed.before, closed.metrics_withheld), (0.0, None, true));
        assert_eq!(closed.examples, 60, "an update weighs by its examples");
    }
}
