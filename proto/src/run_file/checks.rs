//! Ranges of a run file's values.

use std::collections::BTreeSet;

use super::{Dtype, Keep, PrivacyChoice, RunFile, RunFileError, Weighting};
use crate::ids::RunId;
use crate::v1::BaseModel;

/// Longest name, so that a number can be added and the run id stays within its limit.
const MAX_NAME: usize = 48;
/// One year: longer waits are mistakes, and sums of them must not overflow.
const MAX_SECONDS: u64 = 366 * 24 * 3600;
/// Most rounds and most clients of a cohort.
const MAX_COUNT: u32 = 1_000_000;
/// Most labels.
const MAX_LABELS: usize = 100_000;

fn require(ok: bool, key: &'static str, problem: impl FnOnce() -> String) -> Result<(), RunFileError> {
    if ok { Ok(()) } else { Err(RunFileError::Value { key, problem: problem() }) }
}

fn at_least_one(key: &'static str, value: u64) -> Result<(), RunFileError> {
    require(value >= 1, key, || "must be at least 1".to_owned())
}

fn at_most(key: &'static str, value: u64, limit: u64) -> Result<(), RunFileError> {
    require(value <= limit, key, || format!("is {value}, must be at most {limit}"))
}

fn positive(key: &'static str, value: f64) -> Result<(), RunFileError> {
    require(value.is_finite() && value > 0.0, key, || format!("is {value}, must be a finite number above 0"))
}

fn text(key: &'static str, value: &str) -> Result<(), RunFileError> {
    require(!value.trim().is_empty(), key, || "must not be empty".to_owned())
}

/// Checks every value that can be checked without the base model and the method.
pub(super) fn values(run: &RunFile) -> Result<(), RunFileError> {
    require(RunId::new(run.name.as_str()).is_ok() && run.name.len() <= MAX_NAME, "name", || {
        format!(
            "is {:?}, must be 1 to {MAX_NAME} lower-case letters, digits, '-' or '_', starting with a letter or digit",
            run.name
        )
    })?;
    text("base.model", &run.base.model)?;
    task(run)?;
    method(run)?;
    train(run)?;
    rounds(run)?;
    server(run)?;
    evaluation(run)?;
    privacy(run)
}

fn task(run: &RunFile) -> Result<(), RunFileError> {
    let task = &run.task;
    text("task.dataset", &task.dataset)?;
    at_least_one("task.max_tokens", task.max_tokens as u64)?;
    at_least_one("task.max_new_tokens", task.max_new_tokens as u64)?;
    if task.kind.needs_language_model() {
        return require(task.labels.is_empty(), "task.labels", || "belongs to classification alone".to_owned());
    }
    require(task.labels.len() >= 2, "task.labels", || "must name at least two classes".to_owned())?;
    at_most("task.labels", task.labels.len() as u64, MAX_LABELS as u64)?;
    let mut seen = BTreeSet::new();
    for label in &task.labels {
        text("task.labels", label)?;
        require(seen.insert(label), "task.labels", || format!("names {label:?} twice"))?;
    }
    Ok(())
}

fn method(run: &RunFile) -> Result<(), RunFileError> {
    let method = &run.method;
    text("method.id", &method.id)?;
    at_least_one("method.rank", method.rank as u64)?;
    at_most("method.rank", method.rank as u64, u64::from(u32::MAX))?;
    if let Some(alpha) = method.alpha {
        positive("method.alpha", alpha)?;
    }
    require(!method.targets.is_empty(), "method.targets", || "must name at least one linear layer".to_owned())?;
    method.targets.iter().try_for_each(|target| text("method.targets", target))
}

fn train(run: &RunFile) -> Result<(), RunFileError> {
    let train = &run.train;
    at_least_one("train.local_steps", train.local_steps.into())?;
    at_least_one("train.batch", train.batch.into())?;
    positive("train.lr", train.lr)?;
    let decay = train.weight_decay;
    require(decay.is_finite() && decay >= 0.0, "train.weight_decay", || {
        format!("is {decay}, must be a finite number, 0 or more")
    })?;
    require(train.proximal.is_finite() && train.proximal >= 0.0, "train.proximal", || {
        format!("is {}, must be a finite number, 0 or more", train.proximal)
    })?;
    train.max_grad_norm.map_or(Ok(()), |norm| positive("train.max_grad_norm", norm))
}

fn rounds(run: &RunFile) -> Result<(), RunFileError> {
    let rounds = &run.rounds;
    at_least_one("rounds.count", rounds.count.into())?;
    at_most("rounds.count", rounds.count.into(), MAX_COUNT.into())?;
    at_least_one("rounds.cohort", rounds.cohort.into())?;
    at_most("rounds.cohort", rounds.cohort.into(), MAX_COUNT.into())?;
    at_least_one("rounds.quorum", rounds.quorum.into())?;
    require(rounds.quorum <= rounds.cohort, "rounds.quorum", || {
        format!("is {}, must be at most the cohort, {}", rounds.quorum, rounds.cohort)
    })?;
    at_most("rounds.over_select", rounds.over_select.into(), MAX_COUNT.into())?;
    at_least_one("rounds.deadline_s", rounds.deadline_s)?;
    at_most("rounds.deadline_s", rounds.deadline_s, MAX_SECONDS)?;
    at_most("rounds.grace_s", rounds.grace_s, MAX_SECONDS)?;
    at_least_one("rounds.max_attempts", rounds.max_attempts.into())?;
    rounds.max_update_norm.map_or(Ok(()), |norm| positive("rounds.max_update_norm", norm))?;
    let measured = rounds.eval_every > 0;
    require(measured || rounds.keep == Keep::Last, "rounds.keep", || {
        "is \"best\", which needs evaluations; set rounds.eval_every".to_owned()
    })?;
    let Some(rollback) = rounds.rollback else { return Ok(()) };
    require(measured, "rounds.rollback", || "needs evaluations; set rounds.eval_every".to_owned())?;
    require(rollback.is_finite() && rollback >= 0.0, "rounds.rollback", || {
        format!("is {rollback}, must be a finite number, 0 or more")
    })
}

fn server(run: &RunFile) -> Result<(), RunFileError> {
    let Some(server) = &run.server else { return Ok(()) };
    positive("server.lr", server.lr)?;
    positive("server.tau", server.tau)?;
    for (key, beta) in [("server.beta1", server.beta1), ("server.beta2", server.beta2)] {
        require((0.0..1.0).contains(&beta), key, || format!("is {beta}, must be 0 up to, but not, 1"))?;
    }
    Ok(())
}

fn evaluation(run: &RunFile) -> Result<(), RunFileError> {
    let Some(evaluation) = &run.evaluation else { return Ok(()) };
    text("evaluation.client", &evaluation.client)?;
    text("evaluation.dataset", &evaluation.dataset)
}

/// Clip norms that noise on a lattice can be drawn for, with room for a clip that moves.
const LEAST_CLIP: f64 = 1e-20;
const MOST_CLIP: f64 = 1e20;

fn privacy(run: &RunFile) -> Result<(), RunFileError> {
    let Some(privacy) = &run.privacy else { return Ok(()) };
    require(["example", "client"].contains(&privacy.unit.as_str()), "privacy.unit", || {
        format!("is {:?}, must be \"example\" or \"client\"", privacy.unit)
    })?;
    positive("privacy.epsilon", privacy.epsilon)?;
    require(privacy.delta > 0.0 && privacy.delta < 1.0, "privacy.delta", || {
        format!("is {}, must lie between 0 and 1", privacy.delta)
    })?;
    positive("privacy.clip", privacy.clip)?;
    require((LEAST_CLIP..=MOST_CLIP).contains(&privacy.clip), "privacy.clip", || {
        format!("is {:e}, must lie between {LEAST_CLIP:e} and {MOST_CLIP:e}", privacy.clip)
    })?;
    privacy.noise_multiplier.map_or(Ok(()), |noise| positive("privacy.noise_multiplier", noise))?;
    require(privacy.is_per_client() || run.train.dtype == Dtype::F32, "train.dtype", || {
        "is \"bf16\", but with privacy.unit = \"example\" its rounding would let one example's gradient depend on the others \
         of its batch; use \"f32\""
            .to_owned()
    })?;
    cohorts(run, privacy)?;
    require(run.rounds.weighting != Some(Weighting::Examples), "rounds.weighting", || {
        "is \"examples\", but with [privacy] example counts stay with the data owners; leave it out or use \"uniform\""
            .to_owned()
    })?;
    if let Some(evaluation) = &run.evaluation {
        return require(evaluation.public, "evaluation.public", || {
            "must be true with [privacy]: a measurement on anybody's data would leak; name a client with a public data \
             set, or leave [evaluation] out"
                .to_owned()
        });
    }
    for (key, measures) in
        [("rounds.keep", run.rounds.keep == Keep::Best), ("rounds.rollback", run.rounds.rollback.is_some())]
    {
        require(!measures, key, || {
            "chooses rounds by what was measured, which with [privacy] leaks unless the data are public; name a client \
             with a public data set under [evaluation], with public = true"
                .to_owned()
        })?;
    }
    Ok(())
}

/// What `[privacy]` asks of cohorts.
fn cohorts(run: &RunFile, privacy: &PrivacyChoice) -> Result<(), RunFileError> {
    require(!privacy.is_per_client() || run.rounds.cohort >= 2, "rounds.cohort", || {
        format!(
            "is {}, but with privacy.unit = \"client\" a sum of fewer than 2 clients hides no client",
            run.rounds.cohort
        )
    })?;
    require(!privacy.is_per_client() || run.rounds.over_select == 0, "rounds.over_select", || {
        "must be 0 with privacy.unit = \"client\": a client that is refused must not make room for another".to_owned()
    })?;
    require(!privacy.is_per_client() || run.rounds.max_update_norm.is_none(), "rounds.max_update_norm", || {
        "must be left out with privacy.unit = \"client\": the clip bounds a change, and a refusal would give away the norm"
            .to_owned()
    })?;
    if let Some(quantile) = privacy.clip_quantile {
        require(quantile > 0.0 && quantile < 1.0, "privacy.clip_quantile", || {
            format!("is {quantile}, must lie between 0 and 1")
        })?;
        require(privacy.is_per_client(), "privacy.clip_quantile", || {
            "is for privacy.unit = \"client\": with \"example\" the clip stays; leave it out".to_owned()
        })?;
    }
    let Some(rate) = privacy.sampling_rate else { return Ok(()) };
    require(rate > 0.0 && rate <= 1.0, "privacy.sampling_rate", || {
        format!("is {rate}, must be above 0 and at most 1")
    })?;
    require(privacy.is_per_client(), "privacy.sampling_rate", || {
        "is for privacy.unit = \"client\": with \"example\" every client draws its own batches; leave it out".to_owned()
    })
}

/// Checks a run file against the base model it names.
pub(super) fn base(run: &RunFile, base: &BaseModel) -> Result<(), RunFileError> {
    require(run.base.model == base.name, "base.model", || format!("is {:?}, not {:?}", run.base.model, base.name))?;
    if let Some(digest) = run.base.digest {
        require(digest.to_string() == base.digest, "base.digest", || {
            format!("is {digest}, but base {:?} is registered with {}", base.name, base.digest)
        })?;
    }
    let tokens = run.task.max_tokens as u64;
    let limit = u64::from(base.max_positions);
    require(tokens <= limit, "task.max_tokens", || {
        format!("is {tokens}, but base {:?} reads at most {limit} tokens", base.name)
    })
}
