"""Adapters as PEFT reads them, and laws that hand on finite numbers only."""

import json

import torch
from safetensors.torch import load_file, save_file

from harness import Place, case

SENTENCE = "a slow boat went down the river"


def adapter(place: Place, change=lambda tensors: tensors, **config: object):
    """The golden LoRA adapter of the tiny Llama, with its tensors and its configuration changed."""
    folder = place.folder / "adapter"
    folder.mkdir(exist_ok=True)
    golden = place.goldens / "tiny-llama-lora"
    save_file(change(load_file(golden / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
    configuration = json.loads((golden / "adapter_config.json").read_text()) | config
    (folder / "adapter_config.json").write_text(json.dumps(configuration))
    return folder


def without(end: str):
    """Drops the first tensor whose name ends so."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        first = next(name for name in sorted(tensors) if name.endswith(end))
        return {name: tensor for name, tensor in tensors.items() if name != first}

    return change


def lone(end: str) -> None:
    @case(f"adapter-lacks-a-{end.split('.')[0]}")
    def run(place: Place) -> None:
        model = place.tiny("llama")
        folder = adapter(place, without(end))
        rows = place.rows({"text": SENTENCE})
        place.evaluate(model, rows, "--adapter", folder).refused(end)
        merged = place.folder / "merged"
        place.client("merge", "--model", model.folder, "--adapter", folder, "--out", merged).refused(end)


lone("lora_A.weight")
lone("lora_B.weight")


@case("adapter-as-saved")
def adapter_as_saved(place: Place) -> None:
    place.same_logits(place.tiny("llama"), place.rows({"text": SENTENCE}), adapter=adapter(place))


@case("adapter-not-finite")
def adapter_not_finite(place: Place) -> None:
    folder = adapter(place, lambda tensors: {name: tensor * float("nan") for name, tensor in tensors.items()})
    place.evaluate(place.tiny("llama"), place.rows({"text": SENTENCE}), "--adapter", folder).refused("not finite")


@case("targets-all-linear")
def targets_all_linear(place: Place) -> None:
    model = place.tiny("llama")
    rows = place.rows({"text": SENTENCE})
    folder = place.folder / "adapter"
    place.client(
        "train", "--model", model.folder, "--task", "causal-lm", "--data", rows, "--method", "fedit", "--rank", 2,
        "--targets", "all-linear", "--steps", 2, "--batch", 1, "--eval-fraction", 0, "--threads", 1, "--out", folder,
    ).succeeded()  # fmt: skip
    place.same_logits(model, rows, adapter=folder)


@case("laws-with-huge-numbers")
def laws_with_huge_numbers(place: Place) -> None:
    generator = torch.Generator().manual_seed(5)
    file = place.folder / "huge.safetensors"
    shapes = {"layer.q.lora_A": (4, 12), "layer.q.lora_B": (8, 4)}
    tensors = {name: torch.randn(shape, generator=generator) * 1e20 for name, shape in shapes.items()}
    save_file(tensors, file)
    out = place.folder / "out.safetensors"
    for method in ["flexlora", "fedex-lora", "fedsvd"]:
        ended = place.rondo("adapter", "aggregate", "--method", method, file, file, "--out", out)
        ended.refused("inf", "layer.q", "huge.safetensors")
