"""Makes the golden files of the Llama family with PyTorch, Hugging Face's transformers and peft.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.11.0 transformers peft tokenizers safetensors gguf
    /tmp/goldens/bin/python make_llama.py

The files are committed; run this only to change what they hold. Everything is drawn from fixed seeds on the CPU, in f32.

tiny-llama/ tiny-mistral/ tiny-qwen2/ tiny-qwen3/ tiny-llama-biased/   random models; the first has a tokenizer
llama-family.safetensors     logits of each for a few texts, every token's
llama-rope.json, .safetensors  changes of tiny-llama's config.json by name, and the logits under each
tiny-llama.gguf, llama-gguf.safetensors  a model in blocks of every kind, and its logits with what the gguf package unpacks
llama-lora.safetensors       loss, gradients and ten AdamW steps of LoRA (peft) and of a square matrix between frozen factors
"""

import copy
import json
import math
from pathlib import Path

import gguf
import numpy
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, Regex
from transformers import AutoConfig, AutoModelForCausalLM, CONFIG_MAPPING

HERE = Path(__file__).parent
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = SPECIAL + ["\n"] + [chr(code) for code in range(32, 127)]
SMALL = dict(
    vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=48, max_position_embeddings=64, rms_norm_eps=1e-5, hidden_act="silu",
    bos_token_id=1, eos_token_id=2,
)
FAMILY = {
    "tiny-llama": dict(SMALL, model_type="llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=True,
                       rope_theta=10000.0, attention_bias=False, mlp_bias=False),
    "tiny-mistral": dict(SMALL, model_type="mistral", architectures=["MistralForCausalLM"], tie_word_embeddings=False,
                         rope_theta=1000.0, sliding_window=8, rms_norm_eps=1e-2),
    "tiny-qwen2": dict(SMALL, model_type="qwen2", architectures=["Qwen2ForCausalLM"], tie_word_embeddings=True,
                       rope_theta=1e6, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "tiny-qwen3": dict(SMALL, model_type="qwen3", architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True,
                       rope_theta=1e6, head_dim=16, use_sliding_window=False, attention_bias=True),
    "tiny-llama-biased": dict(SMALL, model_type="llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=False,
                              num_hidden_layers=1, num_key_value_heads=1, head_dim=16, rope_theta=500.0,
                              attention_bias=True, mlp_bias=True),
}
ROPE = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_theta": 5000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 40}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn-tuned": {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 300.0, "factor": 2.0, "original_max_position_embeddings": 32,
        "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False, "mscale": 1.0, "mscale_all_dim": 0.5}},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
}
LENGTHS = [5, 20, 1, 12]
TARGETS = ["q_proj", "v_proj", "down_proj"]
RANK, ALPHA, LR, STEPS = 4, 8, 5e-2, 10


def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def config_of(settings: dict):
    settings = copy.deepcopy(settings)
    config = CONFIG_MAPPING[settings.pop("model_type")].from_dict(settings)
    config._attn_implementation = "eager"
    return config


def model_of(settings: dict, state: dict | None = None):
    model = AutoModelForCausalLM.from_config(config_of(settings), dtype=torch.float32).eval()
    if state is not None:
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
    return model


def texts(seed: int, lengths=LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, len(VOCABULARY), (length,), generator=generator) for length in lengths]


def logits_of(model, rows: list[torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(row[None], use_cache=False).logits[0] for row in rows]).contiguous()


def stirred(settings: dict, seed: int):
    torch.manual_seed(seed)
    model = model_of(dict(settings, initializer_range=0.25))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # norms that are not 1, biases that are not 0
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def state_of(model) -> dict:
    tied = model.config.tie_word_embeddings
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()
            if not (tied and name == "lm_head.weight")}


def make_family() -> dict:
    rows = texts(7)
    out = {"ids": torch.cat(rows).float(), "lengths": torch.tensor(LENGTHS).float()}
    states = {}
    for seed, (name, settings) in enumerate(FAMILY.items()):
        model = stirred(settings, 20 + seed)
        states[name] = state_of(model)
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        save_file(states[name], folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        out[name] = logits_of(model_of(settings, states[name]), rows)
    save_file(out, HERE / "llama-family.safetensors")
    tokenizer().save(str(HERE / "tiny-llama/tokenizer.json"))
    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
                "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    (HERE / "tiny-llama/tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "chat_template": template,
    }, indent=2) + "\n")
    return states


def make_rope(state: dict) -> None:
    rows = texts(7)
    out = {}
    for name, change in ROPE.items():
        settings = {**FAMILY["tiny-llama"], **change}
        # Each text with a fresh model: dynamic scaling remembers the longest text it has seen.
        out[name] = torch.cat([logits_of(model_of(settings, state), [row]) for row in rows])
    (HERE / "llama-rope.json").write_text(json.dumps(ROPE, indent=2) + "\n")
    save_file(out, HERE / "llama-rope.safetensors")


def loss_of(model, rows, counts) -> torch.Tensor:
    """Mean over the counting tokens of all texts together."""
    total, number = 0.0, 0
    for row, count in zip(rows, counts):
        logits = model(row[None], use_cache=False).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, row[1:], reduction="none")
        total, number = total + losses[count[1:]].sum(), number + int(count[1:].sum())
    return total / number


def make_lora(state: dict) -> None:
    torch.manual_seed(5)
    settings = FAMILY["tiny-llama"]
    rows = texts(11, [9, 6, 14])
    counts = [torch.arange(len(row)) >= first for row, first in zip(rows, [4, 1, 10])]
    out = {
        "ids": torch.cat(rows).float(), "lengths": torch.tensor([len(row) for row in rows]).float(),
        "counts": torch.cat(counts).float(),
    }

    model = model_of(settings, state)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0))
    parameters = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = 0.2 * torch.randn_like(parameter)
            short = name.removeprefix("base_model.model.").replace(".default.weight", "")
            parameters[short] = parameter
            out[short] = parameter.detach().clone()
    assert len(parameters) == 2 * 2 * len(TARGETS)
    loss = loss_of(model, rows, counts)
    loss.backward()
    out["lora.loss"] = loss.detach().reshape(1)
    for name, parameter in parameters.items():
        out[f"grad.{name}"] = parameter.grad.clone()
    out["lora.losses"] = train(model, parameters.values(), rows, counts)

    # A square R between frozen A and B: y = W x + scale * B R A x, scale 1, trained from a given R.
    model = model_of(settings, state)
    squares = {}
    for module, linear in model.named_modules():
        if module.rsplit(".", 1)[-1] not in TARGETS:
            continue
        a, b = out[f"{module}.lora_A"], out[f"{module}.lora_B"]
        r = torch.nn.Parameter(0.1 * torch.randn(RANK, RANK))
        squares[f"{module}.R"] = r
        out[f"{module}.R"] = r.detach().clone()
        linear.register_forward_hook(lambda _, args, y, a=a, b=b, r=r: y + args[0] @ a.T @ r.T @ b.T)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    loss = loss_of(model, rows, counts)
    loss.backward()
    out["square.loss"] = loss.detach().reshape(1)
    for name, parameter in squares.items():
        out[f"grad.{name}"] = parameter.grad.clone()
    out["square.losses"] = train(model, squares.values(), rows, counts)
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, HERE / "llama-lora.safetensors")


def train(model, parameters, rows, counts) -> torch.Tensor:
    """Losses before each of the AdamW steps, and after the last."""
    optimiser = torch.optim.AdamW(list(parameters), lr=LR, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of(model, rows, counts)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        losses.append(loss_of(model, rows, counts).item())
    print("losses", losses)
    return torch.tensor(losses)


GGUF = dict(SMALL, model_type="llama", tie_word_embeddings=True, hidden_size=256, num_attention_heads=2,
            num_key_value_heads=1, head_dim=32, intermediate_size=32, rope_theta=5000.0, rope_scaling={
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 40})
KINDS = [
    dict(attn_q="Q4_K", attn_k="Q6_K", attn_v="Q8_0", attn_output="Q4_0", ffn_gate="Q4_K", ffn_up="BF16", ffn_down="Q4_1"),
    dict(attn_q="Q4_0", attn_k="Q4_K", attn_v="F16", attn_output="Q4_1", ffn_gate="Q6_K", ffn_up="Q4_0", ffn_down="Q8_0"),
]
MODULES = dict(attn_q="self_attn.q_proj", attn_k="self_attn.k_proj", attn_v="self_attn.v_proj", attn_norm="input_layernorm",
               attn_output="self_attn.o_proj", ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj", ffn_down="mlp.down_proj",
               ffn_norm="post_attention_layernorm")


def blocks(kind, rows: int, columns: int, random) -> numpy.ndarray:
    """Bytes of a matrix: quantised noise, or random blocks where the package does not quantise."""
    if kind.name not in ("Q4_K", "Q6_K"):
        return gguf.quants.quantize(0.1 * random.standard_normal((rows, columns), dtype=numpy.float32), kind)
    n = rows * columns // 256
    halves = lambda low, high: random.uniform(low, high, (n, 1)).astype(numpy.float16).view(numpy.uint8)
    noise = lambda wide: random.integers(0, 256, (n, wide), dtype=numpy.uint8)
    parts = dict(Q4_K=lambda: [halves(1e-4, 3e-4), halves(1e-3, 2e-3), noise(12 + 128)],
                 Q6_K=lambda: [noise(128 + 64 + 16), halves(5e-5, 1e-4)])[kind.name]()
    return numpy.concatenate(parts, axis=1).reshape(rows, -1)


def halves_apart(matrix: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Undoes what llama.cpp's converter does to q and k."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rope_factors() -> numpy.ndarray:
    """As llama.cpp's converter writes Llama 3.1's scaling."""
    scaling, factors = GGUF["rope_scaling"], []
    low, high, original = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    for pair in range(GGUF["head_dim"] // 2):
        wave = 2 * math.pi * GGUF["rope_theta"] ** (2 * pair / GGUF["head_dim"])
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(scaling["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return numpy.array(factors, dtype=numpy.float32)


def make_gguf() -> None:
    random = numpy.random.default_rng(31)
    heads, kv_heads, hidden, head = 2, 1, GGUF["hidden_size"], GGUF["head_dim"]
    writer = gguf.GGUFWriter(HERE / "tiny-llama.gguf", "llama")
    writer.add_context_length(GGUF["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(len(KINDS))
    writer.add_feed_forward_length(GGUF["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(GGUF["rope_theta"])
    writer.add_layer_norm_rms_eps(GGUF["rms_norm_eps"])
    state = {}

    def add(name: str, module: str, kind: str, rows: int, columns: int | None = None) -> None:
        kind = gguf.GGMLQuantizationType[kind]
        if columns is None:
            packed = (1 + 0.2 * random.standard_normal(rows)).astype(numpy.float32)
        else:
            packed = blocks(kind, rows, columns, random)
        raw = None if kind.name in ("F32", "F16") else kind
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=raw)
        plain = numpy.asarray(gguf.quants.dequantize(packed, kind), dtype=numpy.float32).reshape(rows, -1 if columns else 1)
        plain = plain if columns else plain[:, 0]
        if name.endswith(("attn_q", "attn_k")):
            plain = halves_apart(plain, rows // head)
        state[f"{module}.weight"] = torch.from_numpy(numpy.ascontiguousarray(plain))

    add("token_embd", "model.embed_tokens", "Q6_K", GGUF["vocab_size"], hidden)
    add("output_norm", "model.norm", "F32", hidden)
    writer.add_tensor("rope_freqs.weight", rope_factors())
    wide, narrow, inner = heads * head, kv_heads * head, GGUF["intermediate_size"]
    shapes = dict(attn_q=(wide, hidden), attn_k=(narrow, hidden), attn_v=(narrow, hidden), attn_output=(hidden, wide),
                  ffn_gate=(inner, hidden), ffn_up=(inner, hidden), ffn_down=(hidden, inner),
                  attn_norm=(hidden,), ffn_norm=(hidden,))
    for layer, kinds in enumerate(KINDS):
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}", f"model.layers.{layer}.{MODULES[name]}", kinds.get(name, "F32"), *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rows = texts(7)
    save_file({
        "ids": torch.cat(rows).float(), "lengths": torch.tensor(LENGTHS).float(),
        "logits": logits_of(model_of(GGUF, state), rows),
        "q_proj": state["model.layers.0.self_attn.q_proj.weight"][:8].contiguous(),
    }, HERE / "llama-gguf.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    states = make_family()
    make_rope(states["tiny-llama"])
    make_lora(states["tiny-llama"])
    make_gguf()
