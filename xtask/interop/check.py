"""Compares an exported folder in Python's transformers and peft with what `rondo-client evaluate` computed.

usage: check.py MODEL_DIR ADAPTER_DIR PREDICTIONS.jsonl TOLERANCE
"""

import json
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

BATCH = 16
logging.disable_progress_bar()


def main(model_dir: str, adapter_dir: str, predictions: str, tolerance: float) -> None:
    with safe_open(pathlib.Path(adapter_dir) / "rondo_head.safetensors", "pt") as head:
        weight, bias = head.get_tensor("head.weight"), head.get_tensor("head.bias")
        facts = head.metadata()
    rows = [json.loads(line) for line in pathlib.Path(predictions).read_text().splitlines()]
    expected = torch.tensor([row["logits"] for row in rows], dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    base = AutoModel.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter_dir).eval()

    def logits() -> torch.Tensor:
        parts = []
        for start in range(0, len(rows), BATCH):
            texts = [row["text"] for row in rows[start : start + BATCH]]
            limit = int(facts["max_tokens"])
            batch = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            with torch.no_grad():
                states = model(**batch).last_hidden_state
            if facts["pooling"] == "mean":
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1)
            else:
                pooled = states[:, 0]
            parts.append(pooled @ weight.T + bias)
        return torch.cat(parts).double()

    found = logits()
    difference = (found - expected).abs().max().item()
    with model.disable_adapter():
        effect = (logits() - found).abs().max().item()
    print(f"{len(rows)} texts, largest difference of a logit {difference:.2e} (the adapter moves them by up to {effect:.2e})")
    if len(rows) == 0 or not difference <= tolerance:
        sys.exit(f"the logits differ by more than {tolerance}")
    if not effect > 10 * tolerance:
        sys.exit("the adapter changes nothing, so this compared the base model alone")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
