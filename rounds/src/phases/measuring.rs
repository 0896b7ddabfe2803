//! Measuring at one named client. It need not train, nor have answered an invitation: its own
//! policy decides on the assignment, and it declines by a failure report.

use rondo_proto::base_tokens::OTHER_TOKENS;
use rondo_proto::{ClientId, v1};

use crate::run_context::RunContext;
use crate::state::participation::EvaluationState;
use crate::state::phase::Measuring;
use crate::state::{Client, ClientStatus, Evaluator, Spec};

/// More examples than any client has; a larger count is a mistake, or an attempt to dominate the
/// weighted mean.
pub(crate) const MOST_EXAMPLES: u64 = 1 << 32;

/// Asks the client to measure, unless it is known that it cannot.
pub(crate) fn ask(ctx: &mut RunContext<'_>, evaluator: &Evaluator) -> Measuring {
    let Evaluator { client, dataset } = evaluator.clone();
    let status = ctx.clients.get(&client).map(|client| client.status);
    let reason = match status {
        Some(ClientStatus::Active) => String::new(),
        Some(status) => format!("it is {}", status.as_str()),
        None => "it is not enrolled".to_owned(),
    };
    let state = if reason.is_empty() { EvaluationState::Due } else { EvaluationState::Missed };
    if state == EvaluationState::Missed {
        ctx.note(format!("{client}: no evaluation: {reason}"));
        ctx.announce(Some(&client), format!("no evaluation: {reason}"));
    }
    Measuring { client, dataset, state, reason, after: None, bytes_down: 0, layout_bytes_down: 0 }
}

/// Whether a client has what the measurement needs.
pub(crate) fn can_measure(client: &Client, spec: &Spec, evaluator: &Evaluator) -> bool {
    client.datasets.contains(&evaluator.dataset)
        && client.bases.contains(&spec.base.digest)
        && !client.makes_other_tokens(&spec.base)
}

/// Why an evaluation that is still open when its time is over did not come.
pub(crate) fn why_late(ctx: &RunContext<'_>, client: &ClientId) -> String {
    let late = "no evaluation in time".to_owned();
    let spec = &ctx.run().spec;
    let (Some(evaluator), Some(record)) = (&spec.evaluator, ctx.clients.get(client)) else { return late };
    if evaluator.client != *client || can_measure(record, spec, evaluator) {
        return late;
    }
    let base = &spec.base;
    if record.makes_other_tokens(base) {
        return format!("{late}: {OTHER_TOKENS}");
    }
    format!("{late}: it needs data set {:?} and base model {} ({})", evaluator.dataset, base.name, base.digest)
}

/// Whether an evaluation holds numbers that make sense. One that does not is as good as none.
pub(crate) fn is_measured(evaluation: &v1::Evaluation) -> bool {
    evaluation.loss.is_finite()
        && (0.0..=1.0).contains(&evaluation.accuracy)
        && (1..=MOST_EXAMPLES).contains(&evaluation.examples)
}
