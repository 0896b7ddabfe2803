"""Makes tests/goldens/gguf: small blocks of every type with their values by the `gguf` package, and tiny vocabularies
with the token ids that other implementations give. Needs gguf, numpy, transformers, tokenizers.

python make_gguf.py                          the goldens
python make_gguf.py MODEL.gguf IDS.json      ids of the same texts by transformers for a real file of SmolLM2"""

import json
import pathlib
import sys

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent / "gguf"
OUT.mkdir(exist_ok=True)
KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]


def half(random, low, high, count):
    return random.uniform(low, high, count).astype(np.float16).view(np.uint8).reshape(count, 2)


def blocks(kind, random):
    """Random bits, with scales that are finite and of use."""
    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    if kind in ("F32", "F16", "BF16"):
        values = random.normal(0, 1, 64).astype(np.float32)
        values[:4] = [0.0, -0.0, 6e-5, -1e-7]
        if kind == "F32":
            return values.view(np.uint8)
        if kind == "F16":
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    count = 1 if numbers == 256 else 3
    raw = random.integers(0, 256, (count, size), dtype=np.uint8)
    if kind == "Q6_K":
        raw[:, 208:210] = half(random, 0.001, 0.01, count)
    else:
        raw[:, 0:2] = half(random, 0.001, 0.01, count)
    if kind in ("Q4_1", "Q4_K"):
        raw[:, 2:4] = half(random, -0.05, 0.05, count)
    return raw.reshape(-1)


TEXTS = [
    "Hello world, this is a test.",
    "hello  two   three    spaces",
    " leading and trailing ",
    "line one\nline two\r\n\n\nline five",
    "\ttabs\t\tand\n\tmore",
    "1234567 and 3.14159, 10 000",
    "in 2024 it's 12:30",
    "I'm, you're, WE'LL, they'd'VE",
    "na\u00efve caf\u00e9 \u00e0 la carte",
    "cafe\u0301 with a combining accent",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 done",
    "def f(x):\n    return x**2 + 1  # comment",
    "if (a && b || !c) { x[i++] = 0x1F; }",
    "<|begin|>user\nhi<|end|>",
    "<|end|><|end|>",
    "text<|begin|> text",
    "not a <|token|>",
    "https://example.org/a?b=c&d=%20e",
    "a",
    " ",
    "   ",
    "\n",
    "the the the theatre",
    "\u2581under\u2581score",
    "\u00bd \u2167 \u0663 \u00b2",
    "mixed123numbers4and5words",
    "$5.00 -- \u20ac6 \u2026 \u201cquoted\u201d",
    "\u00a0no-break\u2003em",
]
CORPUS = [
    "the quick brown fox jumps over the lazy dog and the theatre is in the town",
    "hello world, this is a test of words and numbers, lines and spaces   and    more",
    "def f(x):\n    return x + 1\n\nif a and b:\n    pass\n",
    "user and assistant, example text, na\u00efve caf\u00e9, quoted words; it's what we're told they'll say",
] * 4
SPECIALS = ["<|begin|>", "<|end|>"]


def write(name, tokens, kinds, model, pre=None, merges=None, scores=None, **flags):
    writer = gguf.GGUFWriter(OUT / name, "llama")
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if merges is not None:
        writer.add_token_merges([" ".join(pair) for pair in merges])
    if scores is not None:
        writer.add_token_scores(scores)
    for key, value in flags.items():
        getattr(writer, f"add_{key}")(value)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("output_norm.weight", np.arange(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny():
    """A whole model of two layers, hidden 32: what `describe` asks for."""
    writer = gguf.GGUFWriter(OUT / "tiny.gguf", "llama")
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_feed_forward_length(64)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    random = np.random.default_rng(21)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
              "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}

    def add(name, shape, packed=gguf.GGMLQuantizationType.Q4_0):
        values = random.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, packed), raw_dtype=packed)

    add("token_embd.weight", (16, 32), gguf.GGMLQuantizationType.Q8_0)
    for layer in range(2):
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}.weight", shape)
        add(f"blk.{layer}.attn_norm.weight", (32,))
        add(f"blk.{layer}.ffn_norm.weight", (32,))
    add("output_norm.weight", (32,))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_level():
    """One vocabulary, trained with the loosest cut so that cuts show; ids by each kind's reference."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.convert_slow_tokenizer import Qwen2Converter, TikTokenConverter

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\n+| *[^ ]+| +"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    digits = ["12 123 1234 12345 1234567 2024 100 000 30 10"] * 9
    trainer = trainers.BpeTrainer(vocab_size=460, initial_alphabet=alphabet, special_tokens=SPECIALS, show_progress=False)
    trained.train_from_iterator(CORPUS + digits, trainer)
    model = json.loads(trained.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(merge) for merge in model["merges"]]
    # In the vocabulary, but no merge makes it: only a kind that takes whole pieces first finds it.
    vocab["example"[:4] + "ple"] = len(vocab)
    tokens = [token for token, _ in sorted(vocab.items(), key=lambda item: item[1])]
    kinds = [3 if token in SPECIALS else 1 for token in tokens]

    def bpe(**more):
        return Tokenizer(models.BPE(vocab=vocab, merges=merges, **more))

    class Slow:
        add_prefix_space = False

    references = {}
    references["gpt2"] = bpe()
    references["gpt2"].pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    references["smollm"] = bpe()
    references["smollm"].pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    qwen = Qwen2Converter.__new__(Qwen2Converter)
    qwen.original_tokenizer = Slow()
    references["qwen2"] = qwen.converted(vocab=vocab, merges=merges)
    references["llama-bpe"] = bpe(ignore_merges=True)
    references["llama-bpe"].pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(TikTokenConverter().pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    ids = {}
    for name, reference in references.items():
        reference.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
        pre = "default" if name == "gpt2" else name
        write(f"{name}.gguf", tokens, kinds, "gpt2", pre, merges, bos_token_id=0, eos_token_id=1)
        start = [0] if name == "llama-bpe" else []
        ids[f"{name}.gguf"] = [start + reference.encode(text).ids for text in TEXTS]
    return ids


def scored_ids(text, vocab, scores):
    """SentencePiece's BPE: the pair whose piece scores best merges first, the leftmost of equals; bytes for the rest."""
    symbols = list("\u2581" + text.replace(" ", "\u2581"))
    while True:
        best, at = None, None
        for i in range(len(symbols) - 1):
            piece = symbols[i] + symbols[i + 1]
            if piece in vocab and (best is None or scores[vocab[piece]] > best):
                best, at = scores[vocab[piece]], i
        if at is None:
            break
        symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
    ids = []
    for symbol in symbols:
        ids += [vocab[symbol]] if symbol in vocab else [vocab[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids


def scored():
    from tokenizers import Tokenizer, models, normalizers, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    from tokenizers import Regex, pre_tokenizers
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581*[^\u2581]+"), "isolated")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = [token for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])]
    characters, merged = [p for p in pieces if len(p) == 1], [p for p in pieces if len(p) > 1]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + merged + characters
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(characters))
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged) + len(characters))]
    write("scored.gguf", tokens, kinds, "llama", scores=scores, bos_token_id=1, eos_token_id=2, unk_token_id=0,
          add_eos_token=True)
    vocab = {token: i for i, token in enumerate(tokens)}
    plain = {token: i for token, i in vocab.items() if kinds[i] == 1}
    plain.update({f"<0x{byte:02X}>": 3 + byte for byte in range(256)})
    return {"scored.gguf": [[1] + scored_ids(text, plain, scores) + [2] for text in TEXTS]}


def published(path, out):
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    path = pathlib.Path(path)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    swap = {"<|begin|>": tokenizer.bos_token, "<|end|>": tokenizer.eos_token}
    texts = TEXTS
    for ours, theirs in swap.items():
        texts = [text.replace(ours, theirs) for text in texts]
    plain = [tokenizer(text)["input_ids"] for text in texts]
    # transformers leaves `tokenizer.ggml.pre` out of account; the model's own tokenizer.json cuts digits off first.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ids = [tokenizer(text)["input_ids"] for text in texts]
    print("other ids without the cut:", [text for text, a, b in zip(texts, plain, ids) if a != b])
    pathlib.Path(out).write_text(json.dumps({"texts": texts, "ids": {path.name: ids}}))


def main():
    random = np.random.default_rng(20)
    for kind in KINDS:
        packed = blocks(kind, random)
        values = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind]).astype(np.float32)
        (OUT / f"{kind.lower()}.bin").write_bytes(packed.tobytes())
        (OUT / f"{kind.lower()}.f32").write_bytes(values.tobytes())
    tiny()
    tokens = {"texts": TEXTS, "ids": byte_level() | scored()}
    (OUT / "tokens.json").write_text(json.dumps(tokens, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    published(*sys.argv[1:]) if len(sys.argv) == 3 else main()
