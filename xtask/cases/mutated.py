"""Feeds one of Rondo's readers files that were damaged at random, and compares with a reference in Python.

A reader may read what the reference reads, with the same content, or refuse the file with its name and a reason. It
may refuse more than the reference does. It may never take what the reference refuses, read something else, panic,
hang, or use more memory than is allowed.

The reader is a small program that takes a request per line and answers with a line of JSON: `{"ok": ...}` or
`{"error": message}`.
"""

import argparse
import csv
import io
import json
import math
import pathlib
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable

FILES = 300
# For all files of a reader together.
SECONDS = 60
MEMORY = 1 << 30
# Numbers at which readers break.
NUMBERS = [b"0", b"-1", b"1e999", b"18446744073709551616", b"2147483648", b"0.5", b"null", b'"x"', b"[]"]


class Refused(Exception):
    """The reference does not read the file."""


def damaged(original: bytes, number: int) -> bytes:
    """The file with up to three damages, the same for the same number."""
    draw = random.Random(number)
    content = bytearray(original)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.randint(1, 16))
        kind = draw.randrange(7)
        if kind == 0 and content:
            content[at - 1] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[at:end]
        elif kind == 2:
            content[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        elif kind == 3:
            content[at:at] = content[at:end]
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            content[at:at] = draw.choice(NUMBERS)
        else:
            content[at:end] = b"\xff" * (end - at)
    return bytes(content)


class Reader:
    """A reader of Rondo's: its program, a file to damage, and the reference."""

    program: str
    file: str

    def __init__(self, goldens: pathlib.Path, work: pathlib.Path) -> None:
        self.goldens = goldens
        self.work = work

    def original(self) -> bytes:
        raise NotImplementedError

    def place(self, number: int, content: bytes) -> pathlib.Path:
        """Writes a damaged file; the path that the reader is given."""
        path = self.work / f"{number}-{self.file}"
        path.write_bytes(content)
        return path

    def request(self, path: pathlib.Path) -> str:
        return str(path)

    def reference(self, path: pathlib.Path) -> object:
        """What the file holds; `Refused` or any other exception when it cannot be read."""
        raise NotImplementedError

    def same(self, found: object, right: object) -> bool:
        return found == right


class Rows(Reader):
    """Texts of a data set."""

    program = "read_rows"

    def request(self, path: pathlib.Path) -> str:
        return json.dumps({"name": "rows", "path": str(path), "rows": "text", "eval_fraction": 0.0})

    def same(self, found: dict, right: list[str]) -> bool:
        return sorted(found["rows"]) == sorted(right)


class Csv(Rows):
    file = "rows.csv"

    def original(self) -> bytes:
        lines = ["text,note"] + [f'"a day, ""number"" {n}",{n}' if n % 2 else f"plain day {n},\u00e9{n}" for n in range(12)]
        return "\n".join(lines).encode() + b"\n"

    def reference(self, path: pathlib.Path) -> list[str]:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise Refused
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        if len(set(rows[0])) != len(rows[0]) or any(len(row) != len(rows[0]) for row in rows):
            raise Refused
        at = rows[0].index("text")
        return [row[at] for row in rows[1:]]


class Json(Rows):
    file = "rows.json"

    def original(self) -> bytes:
        return json.dumps([{"text": f"a day {n} \u00e9", "note": [n, 0.5]} for n in range(12)]).encode()

    def reference(self, path: pathlib.Path) -> list[str]:
        return texts(json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=not_a_number))


class JsonLines(Rows):
    file = "rows.jsonl"

    def original(self) -> bytes:
        rows = [json.dumps({"text": f"a day {n} \u00e9", "note": {"n": n}}) for n in range(12)]
        return "\n".join(rows).encode() + b"\n"

    def reference(self, path: pathlib.Path) -> list[str]:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        return texts([json.loads(line, parse_constant=not_a_number) for line in lines if line.strip()])


def not_a_number(name: str) -> None:
    raise Refused(name)


def texts(rows: object) -> list[str]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused
    found = [row["text"] for row in rows]
    # Numbers and truth values may be taken as texts; which of them Rondo takes is in docs/data.md.
    if not all(isinstance(text, str) for text in found):
        raise Refused
    return found


class Parquet(Rows):
    file = "rows.parquet"

    def original(self) -> bytes:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"text": [f"a day {n}" for n in range(40)], "note": list(range(40))})
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, write_page_checksum=True)
        return buffer.getvalue()

    def reference(self, path: pathlib.Path) -> list[str]:
        import pyarrow.parquet

        # The checksums show damaged pages, which would be other texts without them.
        table = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read(["text"])
        found = table.column("text").to_pylist()
        if not all(isinstance(text, str) for text in found):
            raise Refused
        return found


class Safetensors(Reader):
    """Names, types and shapes of tensors."""

    program = "read_base"
    file = "model.safetensors"

    def original(self) -> bytes:
        return (self.goldens / "tiny-llama-lora" / "adapter_model.safetensors").read_bytes()

    def reference(self, path: pathlib.Path) -> dict:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            return {name: [file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()] for name in file.keys()}

    def same(self, found: dict, right: dict) -> bool:
        return {name: [dtype, shape] for name, dtype, shape in found["tensors"]} == right


class Gguf(Reader):
    """Names and shapes of tensors in a GGUF file."""

    program = "read_base"
    file = "model.gguf"

    def original(self) -> bytes:
        return (self.goldens / "tiny-llama.gguf").read_bytes()

    def place(self, number: int, content: bytes) -> pathlib.Path:
        # Most of the file is numbers; damage belongs into the header.
        original = self.original()
        header = 6000
        content = damaged(original[:header], number) + original[header:]
        return super().place(number, content)

    def reference(self, path: pathlib.Path) -> dict:
        from gguf import GGUFReader

        reader = GGUFReader(path)
        return {tensor.name: [int(size) for size in reversed(tensor.shape.tolist())] for tensor in reader.tensors}

    def same(self, found: dict, right: dict) -> bool:
        return {name: shape for name, shape, _ in found["tensors"]} == right


class Config(Reader):
    """Sizes of a model's folder."""

    program = "read_base"
    file = "config.json"

    def original(self) -> bytes:
        return (self.goldens / "tiny-llama" / self.file).read_bytes()

    def place(self, number: int, content: bytes) -> pathlib.Path:
        folder = self.work / str(number)
        shutil.copytree(self.goldens / "tiny-llama", folder)
        (folder / self.file).write_bytes(content)
        return folder

    def reference(self, path: pathlib.Path) -> dict:
        from transformers import AutoConfig, AutoModelForCausalLM
        import torch

        config = AutoConfig.from_pretrained(path)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers = {name: [m.weight.shape[1], m.weight.shape[0]] for name, m in model.named_modules() if is_linear(m)}
        stored = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)[1]
        if stored["missing_keys"] or stored["mismatched_keys"]:
            raise Refused(str(stored))
        return layers

    def same(self, found: dict, right: dict) -> bool:
        layers = {name: [inner, outer] for name, inner, outer in found["linears"]}
        known = {name.removeprefix("model."): sizes for name, sizes in right.items()}
        return all(known.get(name.removeprefix("model.")) == sizes for name, sizes in layers.items())


def is_linear(module: object) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear)


class Template(Reader):
    """Conversations by damaged chat templates."""

    program = "render_chat"
    file = "template.jinja"
    TURNS = [{"role": "system", "content": "Be & <brief>."}, {"role": "user", "content": "a  b\n\u00e9 1"}]

    def original(self) -> bytes:
        return (
            b"{%- set ns = namespace(n=0) -%}\n{% for m in messages %}\n  {%- if m.role == 'system' %}"
            b"[{{ m['content'] | trim }}]\n{% elif loop.index > 1 and m.content is string -%}"
            b"<{{ m.role }}>{{ m.content.split(' ')[0] | tojson }}{{ '%s-%d' % (m.role, loop.index0) }}"
            b"{% set ns.n = ns.n + 1 %}</{{ m.role | upper }}>{% endif %}{% endfor %}"
            b"{{ ns.n }} {{ bos_token }}{% if add_generation_prompt %}{{ 'go' * 2 }}{% endif %}\n"
        )

    def request(self, path: pathlib.Path) -> str:
        template = path.read_bytes().decode("utf-8", "replace")
        options = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
        return json.dumps({"template": template, "messages": self.TURNS, **options})

    def reference(self, path: pathlib.Path) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        template = path.read_bytes().decode("utf-8", "replace")
        options = {"bos_token": "<s>", "eos_token": "</s>"}
        rendered, _ = render_jinja_template([self.TURNS], chat_template=template, add_generation_prompt=True, **options)
        return rendered[0]


class Adapter(Reader):
    """Sizes and scales of an adapter's changes."""

    program = "read_adapter"
    file = "adapter"

    def original(self) -> bytes:
        return (self.goldens / "tiny-llama-lora" / "adapter_config.json").read_bytes()

    def place(self, number: int, content: bytes) -> pathlib.Path:
        folder = self.work / str(number)
        shutil.copytree(self.goldens / "tiny-llama-lora", folder)
        if number % 2:
            (folder / "adapter_config.json").write_bytes(content)
        else:
            path = folder / "adapter_model.safetensors"
            whole = path.read_bytes()
            header = 8 + int.from_bytes(whole[:8], "little")
            path.write_bytes(damaged(whole[:header], number) + whole[header:])
        return folder

    def reference(self, path: pathlib.Path) -> dict:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.goldens / "tiny-llama", dtype=torch.float32)
        model = PeftModel.from_pretrained(base, path)
        return {
            name.removeprefix("base_model.model."): float(module.get_delta_weight("default").double().abs().sum())
            for name, module in model.named_modules()
            if hasattr(module, "get_delta_weight") and "default" in getattr(module, "lora_A", {})
        }

    def same(self, found: dict, right: dict) -> bool:
        sums = {target[0]: target[-1] for target in found["targets"]}
        # Modules that only peft adapts have no change: their factors are at their start.
        close = [math.isclose(sums.get(name, 0.0), value, rel_tol=1e-4, abs_tol=1e-6) for name, value in right.items()]
        return all(close) and set(sums) <= set(right)


READERS: dict[str, Callable[..., Reader]] = {
    "csv": Csv,
    "json": Json,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "safetensors": Safetensors,
    "gguf": Gguf,
    "config": Config,
    "template": Template,
    "adapter": Adapter,
}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def read_all(reader: Reader, programs: pathlib.Path, paths: list[pathlib.Path]) -> list[dict]:
    """Rondo's answer for every path."""
    requests = "".join(reader.request(path) + "\n" for path in paths)
    program = programs / reader.program
    done = subprocess.run(
        [program], input=requests.encode(), capture_output=True, timeout=SECONDS, preexec_fn=limit_memory, check=False
    )
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    if done.returncode != 0 or len(answers) != len(paths):
        at = paths[len(answers)] if len(answers) < len(paths) else "the end"
        raise SystemExit(f"the reader ended with {done.returncode} at {at}:\n{done.stderr.decode()[-2000:]}")
    return answers


def absolute(path: str) -> pathlib.Path:
    return pathlib.Path(path).absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--programs", type=absolute, required=True, help="folder of the readers' programs")
    parser.add_argument("--goldens", type=absolute, required=True, help="folder of the tiny models")
    parser.add_argument("--work", type=absolute, required=True, help="a folder for the files; emptied")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    reader = READERS[options.reader](options.goldens, options.work)
    original = reader.original()
    # The first file is whole, so that a reader that refuses everything shows.
    paths = [reader.place(number, damaged(original, number) if number else original) for number in range(FILES + 1)]
    answers = read_all(reader, options.programs, paths)
    wrong, read, refused = [], 0, 0
    for path, answer in zip(paths, answers, strict=True):
        try:
            right, why = reader.reference(path), ""
        except Exception as error:  # Every reference has errors of its own.
            right, why = None, f"{type(error).__name__}: {error}"
        if "error" in answer:
            refused += 1
            if reader.program != "render_chat" and path.name not in answer["error"]:
                wrong.append(f"{path}: the refusal does not name the file: {answer['error']}")
        elif right is None:
            wrong.append(f"{path}: read, but the reference says {why[:200]}")
        elif not reader.same(answer["ok"], right):
            wrong.append(f"{path}: read as {str(answer['ok'])[:300]}, right is {str(right)[:300]}")
        else:
            read += 1
    if "error" in answers[0]:
        wrong.append(f"the whole file is refused: {answers[0]['error']}")
    print(f"{options.reader}: {read} of {len(paths)} files read as the reference does, {refused} refused, {len(wrong)} wrong")
    print(*wrong[:20], sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
