//! The model card, README.md, of an exported folder.

use std::fmt::Write as _;

use rondo_base::HEAD_FILE;

use super::head::pooling_word;
use super::peft_load::PeftAdapter;
use super::report::{ExportInfo, ExportReport, MergedReport};
use crate::job::Job;

/// The card of a PEFT folder.
pub(super) fn card(job: &Job, info: &ExportInfo, report: &ExportReport) -> String {
    let mut text = front(job, info, "peft", "A LoRA adapter for");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| rank of this export | {} |", report.rank);
    if let Some(error) = report.recompression_error {
        let _ = writeln!(text, "| re-compression | relative error {error:.3e} (Frobenius norm, all layers) |");
    }
    measured(&mut text, info);
    if job.task().is_language() {
        let base = &info.base_model_name;
        let _ = write!(
            text,
            "\n## Use\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             base = {base:?}  # the base model's folder or name\ntokenizer = AutoTokenizer.from_pretrained(base)\n\
             model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), \".\").eval()\n```\n",
        );
    }
    classifier(&mut text, job, info);
    text
}

/// The card of a folder with the adapter in the weights.
pub(super) fn merged(job: &Job, info: &ExportInfo, report: &MergedReport) -> String {
    let mut text = front(job, info, "transformers", "Full weights with a LoRA adapter merged in, made from");
    let _ = writeln!(text, "| changed weights | {} |", report.merged);
    if let Some(rounding) = report.rounding {
        let _ = writeln!(text, "| rounding to the files' number format | {rounding:.1e} of the change |");
    }
    measured(&mut text, info);
    text
}

/// The card of a folder into which an adapter's folder was merged, by what its files say of
/// themselves.
pub(super) fn merged_folder(adapter: &PeftAdapter, base_model_name: &str, report: &MergedReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "---\nlibrary_name: transformers\nbase_model: {base_model_name:?}\ntags: [lora, rondo]\n---\n\n# {base_model_name}, merged\n\n\
         Full weights with a LoRA adapter merged in, made from `{base_model_name}`.\n\n| | |\n|---|---|\n\
         | changed weights | {} |\n",
        report.merged
    );
    if let Some(rounding) = report.rounding {
        let _ = writeln!(text, "| rounding to the files' number format | {rounding:.1e} of the change |");
    }
    for (key, value) in &adapter.provenance {
        let _ = writeln!(text, "| {} | {} |", cell(key), cell(value));
    }
    text
}

/// A text that stays in its table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Front matter that model hubs read, a heading, and the table of facts.
fn front(job: &Job, info: &ExportInfo, library: &str, what: &str) -> String {
    let task = job.task();
    let method = job.method();
    let pipeline = if task.is_language() { "text-generation" } else { "text-classification" };
    let mut text = String::new();
    let _ = write!(
        text,
        "---\nlibrary_name: {library}\nbase_model: {:?}\npipeline_tag: {pipeline}\ntags: [lora, federated-learning, rondo]\n---\n\n\
         # {}\n\n{what} `{}`, trained by several organisations that kept their data to themselves \
         (federated fine-tuning with Rondo).\n\n\
         | | |\n|---|---|\n| method | {} ({}) |\n| paper | {} |\n| aggregation | {} |\n| adapted layers | {} |\n\
         | base digest | `{}` |\n",
        info.base_model_name,
        task.run,
        info.base_model_name,
        method.id(),
        method.title(),
        method.paper(),
        job.exactness_of_run(),
        job.layers().len(),
        task.base_digest,
    );
    if !info.owners.is_empty() {
        let _ = writeln!(text, "| data owners | {} |", cell(&info.owners.join(", ")));
    }
    for (key, value) in &info.provenance {
        let _ = writeln!(text, "| {} | {} |", cell(key), cell(value));
    }
    text
}

/// What was measured, in a table.
fn measured(text: &mut String, info: &ExportInfo) {
    if info.measured.is_empty() {
        return;
    }
    text.push_str(
        "\n## Evaluation\n\nOn examples that were held out of the training, by each data owner on its own.\n\n",
    );
    text.push_str("| | examples | loss before | loss | accuracy before | accuracy |\n|---|---|---|---|---|---|\n");
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    for row in &info.measured {
        let (loss, accuracy) = (row.before.map(|(loss, _)| loss), row.before.map(|(_, accuracy)| accuracy));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.4} | {} | {:.4} |",
            row.name,
            row.examples,
            number(loss),
            row.after.0,
            number(accuracy),
            row.after.1
        );
    }
}

/// How to use the classifier head beside the adapter.
fn classifier(text: &mut String, job: &Job, info: &ExportInfo) {
    let task = job.task();
    if job.head().is_some() {
        let pool = match task.pooling {
            rondo_proto::run_file::Pooling::Mean => {
                "mask = batch[\"attention_mask\"].unsqueeze(-1).float()\npooled = (states * mask).sum(1) / mask.sum(1)"
            }
            rondo_proto::run_file::Pooling::Cls => "pooled = states[:, 0]",
        };
        let labels = task.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = write!(
            text,
            "\n## Use\n\nThe classifier head is in `{HEAD_FILE}` (`head.weight`, `head.bias`); its rows are {labels}. \
             Token states are pooled by `{}`, texts are cut at {} tokens.\n\n```python\n\
             import torch\nfrom peft import PeftModel\nfrom safetensors.torch import load_file\n\
             from transformers import AutoModel, AutoTokenizer\n\n\
             base = {:?}  # the base model's folder or name\n\
             tokenizer = AutoTokenizer.from_pretrained(base)\n\
             model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), \".\").eval()\n\
             head = load_file(\"{HEAD_FILE}\")\n\
             batch = tokenizer([\"a text\"], padding=True, truncation=True, max_length={}, return_tensors=\"pt\")\n\
             with torch.no_grad():\n    states = model(**batch).last_hidden_state\n{pool}\n\
             logits = pooled @ head[\"head.weight\"].T + head[\"head.bias\"]\n```\n",
            pooling_word(task.pooling),
            task.max_tokens,
            info.base_model_name,
            task.max_tokens,
        );
    }
}
