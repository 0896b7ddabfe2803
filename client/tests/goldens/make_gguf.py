"""Makes tests/goldens/gguf: small blocks of every type with their values by the `gguf` package, and a tiny vocabulary
with the token ids that transformers gives. Needs gguf, numpy, transformers, tokenizers. Run: python make_gguf.py"""

import json
import pathlib

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


def main():
    random = np.random.default_rng(20)
    for kind in KINDS:
        packed = blocks(kind, random)
        values = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind]).astype(np.float32)
        (OUT / f"{kind.lower()}.bin").write_bytes(packed.tobytes())
        (OUT / f"{kind.lower()}.f32").write_bytes(values.tobytes())


if __name__ == "__main__":
    main()
