"""Makes the golden files beside this script with PyTorch and Hugging Face's transformers.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.11.0 transformers tokenizers safetensors
    /tmp/goldens/bin/python make.py ../../../.rondo/models/minilm-l6

The files are committed; run this only to change what they hold. Everything is drawn from fixed seeds on the CPU.

tiny-bert/            a random BERT of 2 layers and a word-piece tokenizer of a few words, so that tests need no download
tiny-bert.safetensors its hidden states, logits, loss and gradients for a few texts
minilm.safetensors    hidden states of the demo model (all-MiniLM-L6-v2) for a few texts
adamw.json            five steps of torch.optim.AdamW with clipping, parameters after each
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
WORDS = """a an and the this that it is was were be not no very so too but or of in on to for with i we you they he she
good great fine happy love lovely best nice fun bad awful poor sad hate ugly worst boring dull film movie book phone food
day night service story plot price ##s ##ed ##ing ##ly ##er un ##happy . , ! ?""".split()
TEXTS = [
    "The film was great, I loved it!",
    "bad",
    "This phone is not good and the service was awful, so boring that we hated it.",
    "a lovely day",
]
LABELS = [1, 0, 0, 1]


def tiny_tokenizer(
    specials: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    unk: str = "[UNK]",
    single: str = "[CLS] $A [SEP]",
    **_: str,
) -> Tokenizer:
    words = [*specials, *WORDS]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    used = [(special, number) for number, special in enumerate(specials) if special in single.split()]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=used)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    mask = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


def packed(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(rows).contiguous()


def make_tiny() -> None:
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, initializer_range=0.2,
        attn_implementation="eager", architectures=["BertModel"],
    )
    model = BertModel(config, add_pooling_layer=True).eval()
    for name, parameter in model.named_parameters():  # norms and biases that are not 1 and 0
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    folder = HERE / "tiny-bert"
    folder.mkdir(exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "position_ids" not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    keys = """architectures model_type vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size
    max_position_embeddings type_vocab_size hidden_act layer_norm_eps hidden_dropout_prob attention_probs_dropout_prob
    pad_token_id""".split()
    settings = {key: config.to_dict()[key] for key in keys}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    inputs = fast(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt", return_token_type_ids=False)
    out = {"ids": packed([ids[: int(n)] for ids, n in zip(inputs.input_ids, inputs.attention_mask.sum(1))]).float()}
    hidden = model(**inputs).last_hidden_state
    out["hidden"] = packed([h[: int(n)] for h, n in zip(hidden, inputs.attention_mask.sum(1))]).detach()
    head = torch.nn.Linear(32, 2)
    torch.nn.init.normal_(head.weight, std=0.3)
    out["head.weight"], out["head.bias"] = head.weight.detach().clone(), head.bias.detach().clone()
    for pooling, vector in [("mean", mean(hidden, inputs.attention_mask)), ("cls", hidden[:, 0])]:
        logits = head(vector)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
        model.zero_grad(), head.zero_grad()
        loss.backward(retain_graph=True)
        out[f"{pooling}.logits"], out[f"{pooling}.loss"] = logits.detach(), loss.detach().reshape(1)
        for layer in [0, 1]:
            for name in ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]:
                module = model.get_submodule(f"encoder.layer.{layer}.{name}")
                out[f"{pooling}.grad.encoder.layer.{layer}.{name}"] = module.weight.grad.clone()
        out[f"{pooling}.grad.head.weight"] = head.weight.grad.clone()
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, HERE / "tiny-bert.safetensors")


def make_minilm(folder: Path) -> None:
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    texts = [
        "Somehow I was blessed with some really amazing friends :)",
        "it's a troubleshooting nightmare; no picture, no refund!",
        "Café déjà vu?",
        "word " * 100,
    ]
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    lengths = [int(n) for n in inputs.attention_mask.sum(1)]
    out = {
        "ids": packed([ids[:n] for ids, n in zip(inputs.input_ids, lengths)]).float(),
        "hidden": packed([h[:n] for h, n in zip(hidden, lengths)]),
        "mean": mean(hidden, inputs.attention_mask).contiguous(),
    }
    save_file(out, HERE / "minilm.safetensors", metadata={"texts": json.dumps(texts)})


def make_adamw() -> None:
    torch.manual_seed(3)
    start = [torch.randn(2, 3), torch.randn(4)]
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    settings = {"lr": 0.05, "weight_decay": 0.1, "max_grad_norm": 1.5}
    optimiser = torch.optim.AdamW(parameters, lr=settings["lr"], weight_decay=settings["weight_decay"], foreach=False)
    steps = []
    for step in range(5):
        gradients = [torch.randn_like(parameter) * (0.2 + step) for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
        optimiser.step()
        steps.append({"gradients": [g.flatten().tolist() for g in gradients],
                      "after": [p.detach().flatten().tolist() for p in parameters]})
    golden = {**settings, "shapes": [list(t.shape) for t in start], "start": [t.flatten().tolist() for t in start],
              "steps": steps}
    (HERE / "adamw.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_tiny()
    make_adamw()
    make_minilm(Path(sys.argv[1]))
