//! An evaluation in words and as JSON, by the kind of task.

use std::io::{self, Write};

use rondo_proto::run_file::TaskKind;
use rondo_proto::v1::{Evaluation, GroupEvaluation};
use serde_json::{Value, json};

/// One line of figures.
pub(super) fn line(kind: TaskKind, evaluation: &Evaluation) -> String {
    let Evaluation { loss, accuracy, examples, tokens, .. } = evaluation;
    match kind {
        TaskKind::Classification => format!("accuracy {accuracy:.4}, loss {loss:.4} on {examples} examples"),
        TaskKind::CausalLm => format!(
            "loss {loss:.4}, perplexity {:.2}, {:.1} % of {tokens} next tokens predicted on {examples} examples",
            loss.exp(),
            100.0 * accuracy
        ),
        TaskKind::MultipleChoice | TaskKind::ExactAnswer => {
            format!("accuracy {accuracy:.4}, loss {loss:.4} per token on {examples} examples")
        }
    }
}

/// The groups as a table, if there are any.
pub(super) fn groups(kind: TaskKind, evaluation: &Evaluation, out: &mut dyn Write) -> io::Result<()> {
    let Some(width) = evaluation.groups.iter().map(|group| group.group.chars().count()).max() else { return Ok(()) };
    let width = width.max("group".len());
    let accuracy = if kind == TaskKind::CausalLm { "next_token_accuracy" } else { "accuracy" };
    let wide = accuracy.len().max(8);
    writeln!(out, "{:width$}  {:>8}  {:>8}  {:>8}  {accuracy:>8}", "group", "examples", "tokens", "loss")?;
    for GroupEvaluation { group, loss, accuracy, examples, tokens } in &evaluation.groups {
        writeln!(out, "{group:width$}  {examples:>8}  {tokens:>8}  {loss:>8.4}  {accuracy:>wide$.4}")?;
    }
    Ok(())
}

/// All figures; language tasks have their tokens, causal-lm its perplexity.
pub(super) fn json(kind: TaskKind, evaluation: &Evaluation) -> Value {
    let Evaluation { loss, accuracy, examples, tokens, groups } = evaluation;
    let mut figures = json!({ "loss": loss, "accuracy": accuracy, "examples": examples });
    if kind.needs_language_model() {
        figures["tokens"] = json!(tokens);
    }
    if kind == TaskKind::CausalLm {
        figures["perplexity"] = json!(loss.exp());
    }
    if !groups.is_empty() {
        let named = |group: &GroupEvaluation| {
            let GroupEvaluation { group: name, loss, accuracy, examples, tokens } = group;
            json!({ "group": name, "loss": loss, "accuracy": accuracy, "examples": examples, "tokens": tokens })
        };
        figures["groups"] = groups.iter().map(named).collect();
    }
    figures
}
