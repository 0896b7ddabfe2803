//! What a model made of each example, one JSON object per line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rondo_data::{Content, Example};
use rondo_proto::run_file::{Task, TaskKind};
use rondo_trainer::tasks::Verdict;
use serde_json::{Value, json};

/// Writes them all.
pub(super) fn write(path: &Path, task: &Task, verdicts: &[(Example, Verdict)]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for (example, verdict) in verdicts {
        writeln!(file, "{}", row(task, example, verdict))?;
    }
    file.flush()
}

fn row(task: &Task, example: &Example, verdict: &Verdict) -> Value {
    let Verdict { loss, tokens, right, next_token_accuracy, chosen, wanted, scores, generated, answer, expected } =
        verdict;
    let label = |index: &Option<usize>| index.and_then(|index| task.labels.get(index));
    let mut row = json!({ "text": example.text(), "loss": loss });
    if let Some(group) = &example.group {
        row["group"] = json!(group);
    }
    let options: &[Box<str>] = match &example.content {
        Content::Choice { options, .. } => options,
        _ => &[],
    };
    let more = match task.kind {
        TaskKind::Classification => json!({ "label": label(wanted), "predicted": label(chosen), "logits": scores }),
        TaskKind::CausalLm => json!({ "tokens": tokens, "next_token_accuracy": next_token_accuracy }),
        TaskKind::MultipleChoice => json!({
            "options": options, "scores": scores, "chosen": chosen, "answer": wanted, "right": right, "tokens": tokens,
        }),
        TaskKind::ExactAnswer => json!({
            "generated": generated, "answer": answer, "expected": expected, "right": right, "tokens": tokens,
        }),
    };
    if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
        row.extend(more);
    }
    row
}
