"""Makes the goldens of how model folders are read: rotary settings in every combination, vocabulary matrices that
config.json ties and the file holds all the same, leftover heads.

    /tmp/goldens/bin/python make_reading.py        (the environment of make_llama.py, whose models it changes)

reading-rope.json        changes of a config.json, and what transformers makes of them: frequencies and the factor of
                         cosines and sines, or null where it fails
reading.json             changes of golden folders by name: the folder, its config.json, what is done to its tensors
reading.safetensors      the logits of each for the texts of make_llama.py, loaded by from_pretrained
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = Path(__file__).parent
LINEAR = {"rope_type": "linear", "factor": 4.0}
OLD = {"type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
DEFAULT = {"rope_type": "default", "rope_theta": 700.0}


def rope_cases() -> list[dict]:
    cases = [{}, {"rope_theta": 500.0}, {"rope_theta": 500}, {"rope_parameters": None}, {"rope_scaling": None}]
    for scaling in [LINEAR, OLD, LLAMA3, YARN, DYNAMIC, DEFAULT]:
        for theta in [{}, {"rope_theta": 500.0}]:
            cases += [{"rope_scaling": scaling, **theta}, {"rope_parameters": scaling, **theta}]
            for other in [None, {}, DEFAULT, {**LINEAR, "factor": 3.0, "rope_theta": 900.0}]:
                cases += [{"rope_scaling": scaling, "rope_parameters": other, **theta},
                          {"rope_scaling": other, "rope_parameters": scaling, **theta}]
    for change in [
        {"factor": None}, {"factor": "4"}, {"beta_fast": 0}, {"beta_fast": 8.0, "beta_slow": None}, {"mscale": 0.7},
        {"mscale": 0.7, "mscale_all_dim": 0.4}, {"mscale": 0.0, "mscale_all_dim": 0.4}, {"attention_factor": 1.5},
        {"attention_factor": None}, {"truncate": False}, {"truncate": None}, {"rope_theta": 300.0},
        {"original_max_position_embeddings": None}, {"rope_type": None}, {"rope_theta": None},
    ]:
        cases.append({"rope_scaling": {**YARN, **change}, "rope_theta": 500.0})
    bare = {key: value for key, value in YARN.items() if key != "original_max_position_embeddings"}
    for beside in [{}, {"original_max_position_embeddings": 32}]:
        cases += [{"rope_scaling": bare, **beside}, {"rope_scaling": YARN, **beside}, {"rope_scaling": LLAMA3, **beside},
                  {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 40}, **beside}]
    cases += [
        {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0, "high_freq_factor": 1.0}},
        {"rope_scaling": {**LLAMA3, "low_freq_factor": 2.0, "high_freq_factor": 2.0}},
        {"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": None, "factor": 2.0}}, {"rope_scaling": {"rope_type": None, "type": "linear", "factor": 2.0}},
        {"rope_scaling": {"factor": 2.0}}, {"rope_scaling": {"type": "linear"}}, {"rope_scaling": "linear"},
        {"rope_scaling": [4.0]}, {"rope_parameters": 4.0}, {"rope_theta": "500"}, {"rope_theta": None},
        {"rope_theta": None, "rope_parameters": DEFAULT}, {"rope_scaling": {"rope_type": "unheard", "factor": 2.0}},
        {"rope_scaling": {**LINEAR, "factor": "4"}}, {"rope_scaling": {**LINEAR, "factor": None}},
    ]
    return cases


def rope_of(change: dict) -> dict | None:
    settings = json.loads((HERE / "tiny-llama/config.json").read_text())
    del settings["rope_theta"]
    try:
        config = LlamaConfig.from_dict({**settings, **json.loads(json.dumps(change))})
        rotary = LlamaRotaryEmbedding(config)
        rotary(torch.zeros(1), torch.arange(3)[None])
        return {"inv_freq": rotary.inv_freq.tolist(), "attention": float(rotary.attention_scaling)}
    except Exception:
        return None


def reading() -> dict:
    """By name: folder, changes of config.json, what is done: "own head", "equal head", "head alone", "score"."""
    tied = {"tie_word_embeddings": True}
    linear = {"rope_scaling": LINEAR}
    return {
        "llama-own-head": ["tiny-llama", tied, "own head"],
        "mistral-own-head": ["tiny-mistral", tied, "own head"],
        "qwen2-own-head": ["tiny-qwen2", tied, "own head"],
        "gpt2-own-head": ["tiny-gpt2", tied, "own head"],
        "llama-equal-head": ["tiny-llama", tied, "equal head"],
        "llama-head-alone": ["tiny-llama", tied, "head alone"],
        "llama-score": ["tiny-llama", {"architectures": ["LlamaForSequenceClassification"]}, "score"],
        "rope-null": ["tiny-llama", {**linear, "rope_parameters": None}, ""],
        "rope-both": ["tiny-llama", {**linear, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}, ""],
    }


def logits_of(folder: str, change: dict, what: str, rows: list[torch.Tensor]) -> torch.Tensor:
    tensors = load_file(HERE / folder / "model.safetensors")
    words = next(name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight")))
    if what == "own head":
        tensors["lm_head.weight"] = tensors[words].flip(0).contiguous()
    elif what == "equal head":
        tensors["lm_head.weight"] = tensors[words].clone()
    elif what == "head alone":
        tensors["lm_head.weight"] = tensors.pop(words)
    elif what == "score":
        tensors["score.weight"] = torch.ones(2, tensors[words].shape[1])
    settings = {**json.loads((HERE / folder / "config.json").read_text()), **change}
    with tempfile.TemporaryDirectory() as made:
        save_file(tensors, Path(made) / "model.safetensors", metadata={"format": "pt"})
        (Path(made) / "config.json").write_text(json.dumps(settings))
        model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return torch.cat([model(row[None] % settings["vocab_size"], use_cache=False).logits[0] for row in rows]).contiguous()


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [{"config": case, "rope": rope_of(case)} for case in rope_cases()]
    (HERE / "reading-rope.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n")
    texts = load_file(HERE / "llama-family.safetensors")
    rows = list(texts["ids"].long().split(texts["lengths"].long().tolist()))
    (HERE / "reading.json").write_text(json.dumps(reading(), indent=2) + "\n")
    save_file({name: logits_of(*case, rows) for name, case in reading().items()}, HERE / "reading.safetensors")
