"""Compares exported adapters in Python's transformers and peft with what `rondo-client evaluate` computed.

usage: check.py CASES.json TOLERANCE

A case has `model` (the base's folder), `adapter` (a PEFT folder), `expected` (a file of `evaluate --predictions` for
classifiers, of `evaluate --logits` for language models), and may have `merged` (a folder of full weights).
"""

import json
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

BATCH = 16
HEAD = "rondo_head.safetensors"
logging.disable_progress_bar()
# A base without a pooler is told of at every load; nothing here uses one.
logging.set_verbosity_error()


class Classifier:
    """Pooled states and the head beside the adapter, over the texts of `--predictions`."""

    loader = AutoModel

    def __init__(self, expected: pathlib.Path, model_dir: str, head_dir: str) -> None:
        rows = [json.loads(line) for line in expected.read_text().splitlines()]
        self.texts = [row["text"] for row in rows]
        self.expected = torch.tensor([row["logits"] for row in rows], dtype=torch.float64)
        self.tokenizer = tokenizer(pathlib.Path(model_dir))
        with safe_open(pathlib.Path(head_dir) / HEAD, "pt") as head:
            self.weight, self.bias = head.get_tensor("head.weight"), head.get_tensor("head.bias")
            self.facts = head.metadata()

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        parts = []
        for start in range(0, len(self.texts), BATCH):
            texts, limit = self.texts[start : start + BATCH], int(self.facts["max_tokens"])
            batch = self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            if self.facts["pooling"] == "mean":
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1)
            else:
                pooled = states[:, 0]
            parts.append(pooled @ self.weight.T + self.bias)
        return torch.cat(parts).double()


class Language:
    """Every logit after every token of the texts of `--logits`, one text at a time."""

    loader = AutoModelForCausalLM

    def __init__(self, expected: pathlib.Path, *_: str) -> None:
        tensors = load_file(expected)
        numbers = range(len(tensors) // 2)
        self.texts = [tensors[f"texts.{number}.tokens"] for number in numbers]
        self.expected = torch.cat([tensors[f"texts.{number}.logits"] for number in numbers]).double()

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        return torch.cat([model(input_ids=tokens[None]).logits[0] for tokens in self.texts]).double()


def tokenizer(model_dir: pathlib.Path) -> PreTrainedTokenizerFast:
    """The folder's own; from tokenizer.json alone where the folder says nothing else."""
    if (model_dir / "tokenizer_config.json").exists():
        return AutoTokenizer.from_pretrained(model_dir)
    found = PreTrainedTokenizerFast(tokenizer_file=str(model_dir / "tokenizer.json"))
    pad = json.loads((model_dir / "config.json").read_text())["pad_token_id"]
    found.pad_token = found.convert_ids_to_tokens(pad)
    return found


def load(loader: type, model_dir: str) -> torch.nn.Module:
    return loader.from_pretrained(model_dir, dtype=torch.float32).eval()


@torch.no_grad()
def compare(case: dict, tolerance: float) -> str | None:
    """What is wrong, if anything."""
    expected = pathlib.Path(case["expected"])
    kind = Language if expected.suffix == ".safetensors" else Classifier
    task = kind(expected, case["model"], case["adapter"])
    model = PeftModel.from_pretrained(load(kind.loader, case["model"]), case["adapter"]).eval()
    differences = {"peft": task.logits(model)}
    with model.disable_adapter():
        effect = (task.logits(model) - task.expected).abs().max().item()
    if merged := case.get("merged"):
        # The head of the merged folder, not the adapter's.
        differences["merged"] = kind(expected, merged, merged).logits(load(kind.loader, merged))
    found = {name: (logits - task.expected).abs().max().item() for name, logits in differences.items()}
    told = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    name = case.get("name", case["adapter"])
    print(f"{name}: {len(task.texts)} texts, largest difference of a logit: {told} (the adapter moves them by {effect:.1e})")
    if not task.texts or not all(difference <= tolerance for difference in found.values()):
        return f"{name}: the logits differ by more than {tolerance}"
    if not effect > 10 * tolerance:
        return f"{name}: the adapter changes nothing, so this compared the base model alone"
    return None


def main(cases: str, tolerance: float) -> None:
    faults = [fault for case in json.loads(pathlib.Path(cases).read_text()) if (fault := compare(case, tolerance))]
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
