"""Makes tiny random RoBERTa, DistilBERT and GPT-2 models and their golden files with transformers and PEFT.

    python -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch==2.11.0 'transformers>=5,<6' peft tokenizers safetensors
    /tmp/goldens/bin/python make_encoders.py

The files are committed; run this only to change what they hold. Everything is drawn from fixed seeds on the CPU.

tiny-ARCHITECTURE/            a model of 2 layers, its config.json and a tokenizer of a few words
tiny-ARCHITECTURE.safetensors token ids (`ids`, by text: `lengths`), hidden states, GPT-2's logits, and a LoRA adapter on
                              some linear layers (`lora.TARGET.lora_A` [r, in], `.lora_B` [out, r]) with the hidden states
                              under it (`lora.hidden`); the scale is alpha / r = 2
"""

import json
from pathlib import Path

import torch
from make import TEXTS, packed, tiny_tokenizer
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaModel,
)

HERE = Path(__file__).parent
SPECIALS = {
    "roberta": dict(pad="<pad>", unk="<unk>", single="<s> $A </s>", specials=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    "distilbert": {},
    "gpt2": dict(pad="<|endoftext|>", unk="<|endoftext|>", single="$A", specials=["<|endoftext|>"]),
}


def stir(model: torch.nn.Module) -> None:
    """Gives norms and biases numbers other than 1 and 0."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)


def batch(name: str) -> tuple[object, dict, list[int]]:
    tokenizer = tiny_tokenizer(**SPECIALS[name])
    pad, unk = SPECIALS[name].get("pad", "[PAD]"), SPECIALS[name].get("unk", "[UNK]")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, padding_side="right")
    inputs = fast(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt", return_token_type_ids=False)
    inputs = {key: inputs[key] for key in ["input_ids", "attention_mask"]}
    return tokenizer, inputs, [int(n) for n in inputs["attention_mask"].sum(1)]


def states(model: torch.nn.Module, inputs: dict, lengths: list[int]) -> torch.Tensor:
    """The last hidden states of the tokens, without those of the padding."""
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    return packed([row[:n] for row, n in zip(hidden, lengths)])


def save(model: PreTrainedModel, encoder: torch.nn.Module, name: str, targets: list[str], keys: str) -> None:
    tokenizer, inputs, lengths = batch(name)
    folder = HERE / f"tiny-{name}"
    folder.mkdir(exist_ok=True)
    tied = {"lm_head.weight"} if name == "gpt2" else set()
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items() if key not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {key: model.config.to_dict()[key] for key in ["model_type", *keys.split()]}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))

    out = {
        "ids": packed([ids[:n] for ids, n in zip(inputs["input_ids"], lengths)]).float(),
        "lengths": torch.tensor(lengths).float(),
        "hidden": states(encoder, inputs, lengths),
    }
    if name == "gpt2":
        with torch.no_grad():
            logits = model(**inputs).logits
        out["logits"] = packed([row[:n] for row, n in zip(logits, lengths)])
    if name == "roberta":  # the same computation under two other names
        for other in [XLMRobertaModel, CamembertModel]:
            config = other.config_class(**{k: v for k, v in model.config.to_dict().items() if k != "model_type"})
            twin = other(config, add_pooling_layer=False).eval()
            twin.load_state_dict(model.state_dict())
            assert torch.equal(states(twin, inputs, lengths), out["hidden"]), other

    lora = LoraConfig(r=2, lora_alpha=4, target_modules=targets, fan_in_fan_out=name == "gpt2", bias="none")
    adapted = get_peft_model(encoder, lora).eval()
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            parameter.data = 0.3 * torch.randn_like(parameter)
            module, part = key.removeprefix("base_model.model.").removesuffix(".default.weight").rsplit(".", 1)
            out[f"lora.{module}.{part}"] = parameter.data.clone()
    out["lora.hidden"] = states(adapted, inputs, lengths)
    save_file({key: tensor.contiguous() for key, tensor in out.items()}, HERE / f"tiny-{name}.safetensors")


def make_roberta() -> None:
    torch.manual_seed(11)
    config = RobertaConfig(
        vocab_size=tiny_tokenizer(**SPECIALS["roberta"]).get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=42, type_vocab_size=1,
        layer_norm_eps=1e-2, initializer_range=0.2,
    )
    model = RobertaModel(config, add_pooling_layer=False).eval()
    stir(model)
    keys = """vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings
    type_vocab_size hidden_act layer_norm_eps pad_token_id"""
    save(model, model, "roberta", ["query", "value", "intermediate.dense"], keys)


def make_distilbert() -> None:
    torch.manual_seed(12)
    config = DistilBertConfig(
        vocab_size=tiny_tokenizer().get_vocab_size(), dim=32, n_layers=2, n_heads=4, hidden_dim=64,
        max_position_embeddings=40, sinusoidal_pos_embds=True, activation="relu", initializer_range=0.2,
    )
    model = DistilBertModel(config).eval()
    stir(model)
    keys = "vocab_size dim n_layers n_heads hidden_dim max_position_embeddings sinusoidal_pos_embds activation pad_token_id"
    save(model, model, "distilbert", ["q_lin", "v_lin", "lin2"], keys)


def make_gpt2() -> None:
    torch.manual_seed(13)
    config = GPT2Config(
        vocab_size=tiny_tokenizer(**SPECIALS["gpt2"]).get_vocab_size(), n_embd=32, n_layer=2, n_head=4, n_positions=40,
        layer_norm_epsilon=1e-2, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    stir(model)
    keys = """vocab_size n_embd n_layer n_head n_positions n_inner activation_function layer_norm_epsilon
    scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn add_cross_attention tie_word_embeddings
    bos_token_id eos_token_id"""
    save(model, model.transformer, "gpt2", ["c_attn", "mlp.c_proj"], keys)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_roberta()
    make_distilbert()
    make_gpt2()
