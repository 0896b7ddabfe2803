//! The small messages about a run: answers, evaluations, failures. The history has each of them
//! before it leaves.

use rondo_proto::{Digest, v1};

use super::failure::Failure;
use super::{Daemon, REPORT_WITHIN};
use crate::api::{Api, Retry};
use crate::history::{Message, What};

impl<A: Api> Daemon<A> {
    fn patient(&self) -> Retry {
        Retry { within: Some(REPORT_WITHIN), ..self.retry.clone() }
    }

    /// Answers an invitation, or takes an answer back.
    pub(super) async fn send_answer(&self, answer: v1::AnswerRequest) -> Result<(), Failure> {
        let message = message(What::Answer, (&answer.run, 0, 0), &answer);
        self.history.sending(&message)?;
        self.patient().call(|| self.api.answer(answer.clone())).await?;
        Ok(self.history.taken(&message)?)
    }

    /// Reports an evaluation; it is tried until the coordinator has decided on it.
    pub(super) async fn send_evaluation(&self, report: v1::EvaluationReport) -> Result<(), Failure> {
        let message = message(What::Evaluation, (&report.run, report.round, 0), &report);
        self.history.sending(&message)?;
        self.retry.call(|| self.api.report_evaluation(report.clone())).await?;
        Ok(self.history.taken(&message)?)
    }

    /// Reports why an assignment is not done.
    pub(super) async fn send_failure(&self, report: v1::FailureReport) -> Result<(), Failure> {
        let message = message(What::Failure, (&report.run, report.round, report.attempt), &report);
        self.history.sending(&message)?;
        self.patient().call(|| self.api.report_failure(report.clone())).await?;
        Ok(self.history.taken(&message)?)
    }
}

fn message(what: What, (run, round, attempt): (&str, u32, u32), sent: &impl prost::Message) -> Message {
    let bytes = sent.encode_to_vec();
    let digest = Digest::of(&bytes).to_string();
    Message { run: run.to_owned(), round, attempt, what, bytes: bytes.len() as u64, digest }
}
