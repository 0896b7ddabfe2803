"""Makes the golden file of the language tasks with PyTorch and Hugging Face's transformers, from tiny-llama.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.11.0 transformers peft tokenizers safetensors
    /tmp/goldens/bin/python make_tasks.py

The file is committed; run this (after make_llama.py) only to change what it holds. Everything is computed on the CPU, in
f32, one text at a time.

tasks.json          for tiny-llama bare and under an adapter: log-likelihoods of options, greedy continuations
tiny-llama-lora/    the adapter, written by peft
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
QUESTIONS = [
    ("The sky is", [" blue", " a kind of fish", " 7"]),
    ("2 + 2 =", [" 4", " 22", " five"]),
    ("A longer question, so the batch is ragged:", [" yes", " no, and that is that", " no"]),
]
PROMPTS = ["The sky is", "2 + 2 =", "x", "Sam had 3 apples and ate 2 of them.", "Hi!"]
NEW = 20


def adapted(model):
    torch.manual_seed(17)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.0,
                        task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = "tiny-llama"
    folder = HERE / "tiny-llama-lora"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return model


def likelihood(model, tokenizer, prompt: str, option: str) -> tuple[float, int]:
    """Sum of log p over the option's tokens, and their number."""
    given = tokenizer.encode(prompt).ids
    ids = given + tokenizer.encode(option, add_special_tokens=False).ids
    with torch.no_grad():
        logs = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return sum(logs[place - 1, ids[place]].item() for place in range(len(given), len(ids))), len(ids) - len(given)


def go_on(model, tokenizer, prompt: str, stop: int | None) -> list[int]:
    given = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NEW,
                         eos_token_id=[stop] if stop is not None else None, pad_token_id=0)
    return [token for token in out[0, given.shape[1]:].tolist() if token != stop]


def facts(model, tokenizer) -> dict:
    model.eval()
    model.generation_config.eos_token_id = None
    free = [go_on(model, tokenizer, prompt, None) for prompt in PROMPTS]
    # A token that ends some texts early, and not all at the same place.
    places = {token: sorted(text.index(token) for text in free if token in text) for text in free for token in text}
    stop = max(places, key=lambda token: (len(set(places[token])), len(places[token]), -token))
    return {
        "options": [[likelihood(model, tokenizer, prompt, option) for option in options] for prompt, options in QUESTIONS],
        "greedy": free,
        "stop": stop,
        "stopped": [go_on(model, tokenizer, prompt, stop) for prompt in PROMPTS],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(HERE / "tiny-llama/tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(HERE / "tiny-llama", dtype=torch.float32, attn_implementation="eager")
    told = {
        "questions": [{"prompt": prompt, "options": options} for prompt, options in QUESTIONS],
        "prompts": PROMPTS, "new": NEW, "bare": facts(model, tokenizer),
    }
    told["adapted"] = facts(adapted(model), tokenizer)
    (HERE / "tasks.json").write_text(json.dumps(told) + "\n")
    for who in ("bare", "adapted"):
        print(who, told[who]["stop"], [len(text) for text in told[who]["stopped"]], told[who]["greedy"])
