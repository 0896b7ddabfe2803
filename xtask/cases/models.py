"""Models' folders and files: read as transformers reads them, or refused by name."""

import json
import struct

import torch

from harness import Failed, Place, case, check_close

SENTENCE = "a slow boat went down the quiet river and nobody on the bank saw it go by"

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "old-linear": {"type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0, "original_max_position_embeddings": 16},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def rope(name: str, **config: object) -> None:
    """Logits with these keys in config.json are those of transformers."""

    @case(f"rope-{name}")
    def run(place: Place) -> None:
        model = place.tiny("llama").edit(**config)
        place.same_logits(model, place.rows({"text": SENTENCE}))


for name, scaling in SCALINGS.items():
    rope(f"{name}-beside-null", rope_parameters=None, rope_scaling=scaling)
    rope(f"{name}-as-parameters", rope_parameters={"rope_theta": 10000.0, **scaling})
rope("both", rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_scaling=SCALINGS["linear"])
rope("theta-twice", rope_theta=10000.0, rope_parameters={"rope_type": "default", "rope_theta": 200.0})


@case("rope-unknown")
def rope_unknown(place: Place) -> None:
    model = place.tiny("llama").edit(rope_scaling={"rope_type": "spiral", "factor": 2.0})
    place.evaluate(model, place.rows({"text": SENTENCE})).refused("config.json", "spiral")


WRONG_NUMBERS = [
    ("llama", "rms_norm_eps", ["1e-5", 0, -1e-5, True]),
    ("llama", "num_attention_heads", [0, -4, "4", 2.5]),
    ("llama", "num_key_value_heads", [0, "2"]),
    ("llama", "rope_theta", ["10000", 0]),
    ("llama", "head_dim", [0, -8]),
    ("llama", "max_position_embeddings", [0, "64"]),
    ("gpt2", "layer_norm_epsilon", ["1e-5", -1.0]),
    ("bert", "layer_norm_eps", ["1e-12", 0]),
]


@case("config-numbers")
def config_numbers(place: Place) -> None:
    for family, key, values in WRONG_NUMBERS:
        for number, value in enumerate(values):
            model = place.tiny(family, f"{family}-{key}-{number}").edit(**{key: value})
            if family == "bert":
                rows = place.write("rows.csv", "text,label\na calm day,good\n")
                ended = place.evaluate(model, rows, "--labels", "bad,good", "--max-tokens", 16, task="")
            else:
                ended = place.evaluate(model, place.rows({"text": SENTENCE}))
            try:
                ended.refused("config.json", key)
            except Failed as error:
                raise Failed(f"{key} = {value!r}: {error}") from error


def own_head(place: Place, family: str, embedding: str) -> None:
    model = place.tiny(family)
    tensors = model.tensors()
    head = tensors[embedding].clone()
    head += 0.5 * torch.randn(head.shape, generator=torch.Generator().manual_seed(3))
    model.store({**tensors, "lm_head.weight": head})
    model.edit(tie_word_embeddings=True)
    rows = place.rows({"text": SENTENCE})
    place.same_logits(model, rows)
    adapter = place.folder / "adapter"
    targets = "q_proj,v_proj" if family == "llama" else "attn.c_attn"
    place.client(
        "train", "--model", model.folder, "--task", "causal-lm", "--data", rows, "--method", "fedit", "--rank", 2,
        "--targets", targets, "--steps", 2, "--batch", 1, "--eval-fraction", 0, "--threads", 1, "--out", adapter,
    ).succeeded()  # fmt: skip
    merged = type(model)(place.folder / "merged")
    place.client("merge", "--model", model.folder, "--adapter", adapter, "--out", merged.folder).succeeded()
    place.same_logits(merged, rows)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        check_close(merged.load()(ids).logits, model.load(adapter)(ids).logits, "the merged model")


@case("own-head-llama")
def own_head_llama(place: Place) -> None:
    own_head(place, "llama", "model.embed_tokens.weight")


@case("own-head-gpt2")
def own_head_gpt2(place: Place) -> None:
    own_head(place, "gpt2", "transformer.wte.weight")


def sharded(place: Place, name: str = "model"):
    """A tiny model in two shards with an index, and beside them other weights that no longer count."""
    model = place.tiny("llama", name)
    tensors = model.tensors()
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        model.store({name: tensors[name] for name in part}, file)
        weight_map |= dict.fromkeys(part, file)
    (model.folder / "model.safetensors").unlink()
    model.edit("model.safetensors.index.json", metadata={}, weight_map=weight_map)
    return model, tensors


@case("index-and-strays")
def index_and_strays(place: Place) -> None:
    model, tensors = sharded(place)
    halves = {name: tensor * 0.5 for name, tensor in tensors.items()}
    rows = place.rows({"text": SENTENCE})
    place.same_logits(model, rows)
    right = place.logits(model, rows)
    place.client(
        "train", "--model", model.folder, "--task", "causal-lm", "--data", rows, "--method", "fedit", "--rank", 2,
        "--targets", "q_proj", "--steps", 2, "--batch", 1, "--eval-fraction", 0, "--threads", 1,
        "--out", place.folder / "adapter",
    ).succeeded()  # fmt: skip
    for stray in ["consolidated.safetensors", "model.safetensors"]:
        model.store(halves, stray)
        place.evaluate(model, rows).succeeded().says(stray)
    # transformers takes model.safetensors before an index; what the index names counts here.
    check_close(place.logits(model, rows)["texts.0.logits"], right["texts.0.logits"], "logits beside strays")
    merged = place.folder / "merged"
    place.client("merge", "--model", model.folder, "--adapter", place.folder / "adapter", "--out", merged).succeeded()
    copied = {path.name for path in merged.iterdir()} & {"consolidated.safetensors", "model.safetensors"}
    if "consolidated.safetensors" in copied or (copied and (merged / "model.safetensors.index.json").exists()):
        raise Failed(f"merge copied weights that it did not merge: {sorted(copied)}")


@case("index-lacks-a-shard")
def index_lacks_a_shard(place: Place) -> None:
    model, _ = sharded(place)
    (model.folder / "model-00002-of-00002.safetensors").unlink()
    rows = place.rows({"text": SENTENCE})
    place.evaluate(model, rows).refused("model-00002-of-00002.safetensors")


@case("leftover-heads")
def leftover_heads(place: Place) -> None:
    rows = place.rows({"text": SENTENCE})
    for number, (head, shape) in enumerate([("score", (2, 32)), ("classifier", (3, 32)), ("qa_outputs", (2, 32))]):
        model = place.tiny("llama", f"model-{number}")
        model.store({**model.tensors(), f"{head}.weight": torch.zeros(shape)})
        place.evaluate(model, rows).succeeded().says(f"{head}.weight")
        place.same_logits(model, rows)


@case("unknown-tensor")
def unknown_tensor(place: Place) -> None:
    model = place.tiny("llama")
    model.store({**model.tensors(), "model.layers.0.memory.weight": torch.zeros(2, 2)})
    place.evaluate(model, place.rows({"text": SENTENCE})).refused("model.layers.0.memory.weight")


@case("empty-files")
def empty_files(place: Place) -> None:
    rows = place.rows({"text": SENTENCE})
    for file in ["model.safetensors", "config.json", "tokenizer.json"]:
        model = place.tiny("llama", file)
        (model.folder / file).write_bytes(b"")
        place.evaluate(model, rows).refused(file, "empty")


@case("git-lfs-pointers")
def git_lfs_pointers(place: Place) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'5a' * 32}\nsize 91768\n"
    rows = place.rows({"text": SENTENCE})
    for file in ["model.safetensors", "tokenizer.json", "config.json"]:
        model = place.tiny("llama", file)
        (model.folder / file).write_text(pointer)
        place.evaluate(model, rows).refused(file, "Git LFS", "git lfs pull")
    gguf = place.write("weights.gguf", pointer)
    place.client("evaluate", "--model", gguf, "--task", "causal-lm", "--data", rows).refused("weights.gguf", "Git LFS")


@case("gguf-latin-1")
def gguf_latin_1(place: Place) -> None:
    """Texts that nobody uses need not be UTF-8; the name of the architecture must."""
    original = (place.goldens / "tiny-llama.gguf").read_bytes()
    # Tensors start at a multiple of 32 bytes, so the header grows by one.
    key, text = b"general.description", b"caf\xe9"
    text += b"x" * (-(len(key) + len(text) + 20) % 32)
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(text)) + text
    # The number of entries stands behind the magic, the version and the number of tensors.
    entries = struct.unpack_from("<Q", original, 16)[0] + 1
    path = place.write("latin.gguf", original[:16] + struct.pack("<Q", entries) + entry + original[24:])
    rows = place.rows({"text": "a b"})
    # The golden file brings no tokenizer, which is looked for once the header is read.
    ended = place.client("evaluate", "--model", path, "--task", "causal-lm", "--data", rows, "--threads", 1)
    ended.refused("tokenizer.ggml.model").keeps_silent_about("general.description")
    name = original.index(b"llama", original.index(b"general.architecture"))
    broken = place.write("broken.gguf", original[:name] + b"ll\xe9ma" + original[name + 5 :])
    ended = place.client("evaluate", "--model", broken, "--task", "causal-lm", "--data", rows, "--threads", 1)
    ended.refused("general.architecture", "UTF-8")


@case("config-of-another-kind")
def config_of_another_kind(place: Place) -> None:
    model = place.tiny("llama")
    (model.folder / "config.json").write_text(json.dumps([1, 2]))
    place.evaluate(model, place.rows({"text": SENTENCE})).refused("config.json")
