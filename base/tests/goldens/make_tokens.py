"""Writes tokens.json: what transformers 5 makes of folders whose files contradict each other, and
the files of a folder before and after transformers has saved it again.

Run: python make_tokens.py (with transformers 5).
"""

import json
import pathlib
import tempfile

from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
WORDS = ["<s>", "</s>", "<unk>", "<end>", "<|endoftext|>", "row", "on", "sea"]
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<end>' }}{% endfor %}"


def added(token: str) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": WORDS.index(token), "content": token, **flags}


def tokenizer() -> dict:
    special = [added(token) for token in ["<end>", "<s>", "</s>", "<unk>", "<|endoftext|>"]]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: id for id, word in enumerate(WORDS)}, "unk_token": "<unk>"},
    }


def plain(content: str, **more: object) -> dict:
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, **more}


# By name: tokenizer_config.json, special_tokens_map.json, model_type.
CASES = {
    "map before config": ({**FAST, "eos_token": "</s>"}, {"eos_token": "<end>"}, "llama"),
    "map of objects": ({**FAST, "eos_token": "</s>"}, {"eos_token": plain("<end>")}, "llama"),
    "map alone": (FAST, {"eos_token": "<end>", "bos_token": "<s>"}, "llama"),
    "config alone": ({**FAST, "eos_token": "</s>", "bos_token": plain("<s>", __type="AddedToken")}, None, "llama"),
    "null of the config": ({**FAST, "eos_token": None}, {"eos_token": "</s>"}, "llama"),
    "null of the map": ({**FAST, "eos_token": "</s>"}, {"eos_token": None}, "llama"),
    "added_tokens_decoder": (
        {**FAST, "eos_token": "</s>", "added_tokens_decoder": {"1": plain("</s>", special=True)}},
        {"eos_token": "<end>", "bos_token": "<s>"},
        "llama",
    ),
    "empty added_tokens_decoder": ({**FAST, "eos_token": "</s>", "added_tokens_decoder": {}}, {"eos_token": "<end>"}, "llama"),
    "no class": ({}, None, "llama"),
    "class of Llama": ({"tokenizer_class": "LlamaTokenizer"}, None, "llama"),
    "class of Llama, fast": ({"tokenizer_class": "LlamaTokenizerFast", "eos_token": "<end>"}, None, "llama"),
    "class of GPT-2": ({"tokenizer_class": "GPT2Tokenizer"}, None, "llama"),
    "class of Qwen": ({"tokenizer_class": "Qwen2TokenizerFast"}, {"pad_token": "<end>"}, "llama"),
    "model of GPT-2": ({}, None, "gpt2"),
    "model of Qwen": (None, None, "qwen3"),
    "class of GPT-2, null": ({"tokenizer_class": "GPT2Tokenizer", "eos_token": None}, None, "gpt2"),
}


def write(folder: pathlib.Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(content if name.endswith(".jinja") else json.dumps(content))


def case(config: dict | None, special: dict | None, model_type: str) -> dict:
    files = {
        "config.json": {"model_type": model_type},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": config,
        "special_tokens_map.json": special,
    }
    with tempfile.TemporaryDirectory() as name:
        write(pathlib.Path(name), files)
        found = AutoTokenizer.from_pretrained(name).special_tokens_map
    said = {key: value for key, value in files.items() if key != "tokenizer.json" and value is not None}
    return {"files": said, "special": found}


def saved_again() -> dict:
    before = {
        "config.json": {"model_type": "llama", "eos_token_id": 1},
        "generation_config.json": {"eos_token_id": [3, 1]},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {**FAST, "bos_token": "<s>", "unk_token": "<unk>", "chat_template": TEMPLATE},
        "special_tokens_map.json": {"eos_token": plain("<end>")},
    }
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as again:
        write(pathlib.Path(name), before)
        AutoTokenizer.from_pretrained(name).save_pretrained(again)
        read = {path.name: path.read_text() for path in sorted(pathlib.Path(again).iterdir())}
    after = {name: text if name.endswith(".jinja") else json.loads(text) for name, text in read.items()}
    after.update({name: before[name] for name in ["config.json", "generation_config.json"]})
    return {"before": before, "after": after}


golden = {"cases": {name: case(*parts) for name, parts in CASES.items()}, "saved_again": saved_again()}
golden["tokenizer.json"] = tokenizer()
(HERE / "tokens.json").write_text(json.dumps(golden, indent=1) + "\n")
