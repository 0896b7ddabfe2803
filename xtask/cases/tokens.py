"""What makes tokens: special tokens, ends of texts, ids beyond the vocabulary."""

import json

import torch

from harness import Failed, Place, case, check_equal

SENTENCE = "a calm day"
CHAT = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
TURNS = [{"role": "user", "content": "what now?"}, {"role": "assistant", "content": "we row on"}]

# Which end of a text transformers takes when files contradict.
CONTRADICTIONS = {
    "map-and-config": {"tokenizer_config.json": {"eos_token": "</s>"}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    "map-alone": {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    "config-alone": {"tokenizer_config.json": {"eos_token": "</s>"}},
    "objects": {
        "tokenizer_config.json": {"eos_token": {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": False}},
        "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>", "lstrip": False}},
    },
    "decoder-beside": {
        "tokenizer_config.json": {
            "eos_token": "</s>",
            "added_tokens_decoder": {"2": {"content": "</s>", "special": True}, "4": {"content": "<|im_end|>", "special": True}},
        },
        "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    },
    "null": {"tokenizer_config.json": {"eos_token": None}, "special_tokens_map.json": {"eos_token": "</s>"}},
}


def contradiction(name: str, files: dict[str, dict]) -> None:
    @case(f"end-token-{name}")
    def run(place: Place) -> None:
        model = place.tiny("llama")
        for file, content in files.items():
            content = {"tokenizer_class": "PreTrainedTokenizerFast", **content} if "config" in file else content
            (model.folder / file).write_text(json.dumps(content))
        model.edit(remove=("eos_token_id", "bos_token_id"))
        right = model.tokenizer().eos_token_id
        # A plain text ends with the end of text.
        found = place.tokens(model, place.rows({"text": SENTENCE}))[0][-1]
        check_equal(found, right, "the id that ends a text")


for name, files in CONTRADICTIONS.items():
    contradiction(name, files)


@case("ends-of-generation")
def ends_of_generation(place: Place) -> None:
    """Any id that config.json or generation_config.json calls an end stops generation."""
    model = place.tiny("llama")
    prompt = "we row"
    ids = torch.tensor([model.tokenizer()(prompt)["input_ids"]])
    with torch.no_grad():
        free = model.load().generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, ids.shape[1] :].tolist()
    end = free[2]
    for file, value in [("generation_config.json", [2, end]), ("generation_config.json", end), ("config.json", [2, end])]:
        changed = place.tiny("llama", f"{file}-{value}".replace(" ", ""))
        changed.edit(file, eos_token_id=value)
        options = ["--prompt", prompt, "--max-new-tokens", 12, "--threads", 1, "--json"]
        report = place.client("generate", "--model", changed.folder, *options).json()
        # Whether the end itself counts is a matter of taste.
        most = free.index(end) + 1
        if not report["tokens"] <= most:
            raise Failed(f"{file} {value}: {report['new_tokens']} tokens, transformers stops after {most}")


@case("wrong-ends")
def wrong_ends(place: Place) -> None:
    for number, value in enumerate(["2", [2, "x"], -1, 2.5, {"id": 2}]):
        model = place.tiny("llama", f"model-{number}").edit("generation_config.json", eos_token_id=value)
        ended = place.client("generate", "--model", model.folder, "--prompt", "a", "--max-new-tokens", 2, "--threads", 1)
        ended.refused("generation_config.json", "eos_token_id")


@case("ids-beyond-the-vocabulary")
def ids_beyond_the_vocabulary(place: Place) -> None:
    model = place.tiny("llama").edit(vocab_size=90)
    tensors = model.tensors()
    model.store({name: tensor[:90] if "embed" in name else tensor for name, tensor in tensors.items()})
    rows = place.rows({"text": "so we say zz"})
    place.evaluate(model, rows).refused("vocab_size", "90", "z")
    place.client("generate", "--model", model.folder, "--prompt", "zz", "--threads", 1).refused("vocab_size", "90")


@case("template-in-a-file")
def template_in_a_file(place: Place) -> None:
    """chat_template.jinja wins over tokenizer_config.json, as in transformers."""
    model = place.tiny("llama")
    (model.folder / "chat_template.jinja").write_text(CHAT.replace("<|im_end|>", "</s>"))
    model.edit("tokenizer_config.json", chat_template=CHAT, tokenizer_class="PreTrainedTokenizerFast")
    found = place.tokens(model, place.rows({"messages": TURNS}))[0]
    right = model.tokenizer().apply_chat_template(TURNS, return_dict=False)
    check_equal(found, right, "tokens of a conversation")
