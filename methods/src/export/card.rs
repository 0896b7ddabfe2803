//! The model card, README.md, of an exported folder.

use std::fmt::Write as _;

use super::head::{HEAD_FILE, pooling_word};
use super::peft::{ExportInfo, ExportReport};
use crate::job::Job;

/// Markdown with the front matter that model hubs read.
pub(super) fn card(job: &Job, info: &ExportInfo, report: &ExportReport) -> String {
    let (task, method) = (job.task(), job.method());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "---\nlibrary_name: peft\nbase_model: {:?}\npipeline_tag: text-classification\ntags: [lora, federated-learning, rondo]\n---\n\n\
         # {}\n\nA LoRA adapter for `{}`, trained by several organisations that kept their data to themselves \
         (federated fine-tuning with Rondo).\n\n\
         | | |\n|---|---|\n| method | {} ({}) |\n| paper | {} |\n| aggregation | {} |\n| adapted layers | {} |\n\
         | rank of this export | {} |\n| base digest | `{}` |\n",
        info.base_model_name,
        task.run,
        info.base_model_name,
        method.id(),
        method.title(),
        method.paper(),
        job.exactness(),
        job.targets().len(),
        report.rank,
        task.base_digest,
    );
    if let Some(error) = report.recompression_error {
        let _ = writeln!(text, "| re-compression | relative error {error:.3e} (Frobenius norm, all layers) |");
    }
    for (key, value) in &info.provenance {
        let _ = writeln!(text, "| {} | {} |", key.replace('|', "\\|"), value.replace('|', "\\|").replace('\n', " "));
    }
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
    text
}
