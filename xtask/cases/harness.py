"""What every case uses: Rondo's programs, tiny models, and comparisons with transformers.

A case is a function with the decorator `case`. It makes its input in a folder of its own, runs the programs on it and
raises `Failed` when they do not do what is right.
"""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file

# Logits of the same model may differ by rounding.
TOLERANCE = 1e-4
# A command that takes longer hangs.
SECONDS = 60
# What no message to a person may hold.
UNWANTED = re.compile(r"panicked at|stack backtrace|std::|c10::|index out of range in self")

CASES: dict[str, Callable[["Place"], None]] = {}


class Failed(Exception):
    """What the programs did is not what is right."""


def case(name: str) -> Callable:
    """Registers a function as the case of this name."""

    def register(function: Callable[["Place"], None]) -> Callable[["Place"], None]:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = function
        return function

    return register


@dataclasses.dataclass
class Ended:
    """How a command ended."""

    command: list[str]
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that a person sees on the terminal."""
        return self.out + self.err

    def json(self) -> dict:
        return json.loads(self.succeeded().out)

    def succeeded(self) -> "Ended":
        if self.code != 0:
            self.fail("must succeed")
        return self

    def refused(self, *words: str) -> "Ended":
        """Fails unless the command ended with 1 and its message holds all these words."""
        if self.code != 1:
            self.fail("must be refused with exit code 1")
        return self.says(*words)

    def says(self, *words: str) -> "Ended":
        for word in words:
            if word.lower() not in self.text.lower():
                self.fail(f"must say {word!r}")
        return self

    def keeps_silent_about(self, *words: str) -> "Ended":
        for word in words:
            if word.lower() in self.text.lower():
                self.fail(f"must not say {word!r}")
        return self

    def fail(self, what: str) -> None:
        shown = "\n    ".join(self.text.strip().splitlines()[-12:])
        raise Failed(f"{' '.join(self.command)}\n  {what}; it ended with {self.code}:\n    {shown}")


@dataclasses.dataclass
class Place:
    """A folder for one case, and the programs."""

    folder: pathlib.Path
    programs: pathlib.Path
    goldens: pathlib.Path

    def run(self, program: str, *arguments: object, env: dict[str, str] | None = None) -> Ended:
        command = [str(self.programs / program), *map(str, arguments)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, cwd=self.folder, env=env)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(command)}\n  hangs: it was ended after {SECONDS} s") from error
        out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
        ended = Ended([program, *map(str, arguments)], done.returncode, out, err)
        if UNWANTED.search(ended.text) or done.returncode not in (0, 1, 2):
            ended.fail("must end without a trace of its inside")
        return ended

    def client(self, *arguments: object) -> Ended:
        return self.run("rondo-client", *arguments)

    def rondo(self, *arguments: object) -> Ended:
        return self.run("rondo", *arguments)

    def tiny(self, name: str, as_name: str = "model") -> "Model":
        """A copy of one of the tiny golden models."""
        folder = self.folder / as_name
        shutil.copytree(self.goldens / f"tiny-{name}", folder)
        return Model(folder)

    def write(self, name: str, content: str | bytes) -> pathlib.Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def rows(self, *rows: dict, name: str = "rows.jsonl") -> pathlib.Path:
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(self, model: "Model", data: pathlib.Path, *more: object, task: str = "causal-lm") -> Ended:
        task_options = ["--task", task] if task else []
        common = ["--threads", 1, "--device", "cpu", "--json"]
        return self.client("evaluate", "--model", model.folder, "--data", data, *task_options, *common, *more)

    def classify(self, data: pathlib.Path, labels: str = "bad,good", *more: object) -> Ended:
        """Evaluates a tiny classifier on labelled texts."""
        model = Model(self.folder / "encoder")
        if not model.folder.exists():
            model = self.tiny("bert", "encoder")
        return self.evaluate(model, data, "--labels", labels, "--max-tokens", 32, *more, task="")

    def logits(self, model: "Model", data: pathlib.Path, *more: object) -> dict[str, torch.Tensor]:
        """Rondo's tokens and logits of the rows."""
        file = self.folder / "logits.safetensors"
        self.evaluate(model, data, "--logits", file, *more).succeeded()
        return load_file(file)

    def tokens(self, model: "Model", data: pathlib.Path, *more: object) -> list[list[int]]:
        """Rondo's tokens of the rows."""
        tensors = self.logits(model, data, *more)
        return [tensors[f"texts.{number}.tokens"].tolist() for number in range(len(tensors) // 2)]

    def same_logits(self, model: "Model", data: pathlib.Path, *more: object, adapter: object = None) -> None:
        """Fails unless Rondo's logits are those of transformers, and of peft where there is an adapter."""
        more = (*more, "--adapter", adapter) if adapter else more
        tensors = self.logits(model, data, *more)
        expected = model.load(adapter)
        for number in range(len(tensors) // 2):
            with torch.no_grad():
                right = expected(tensors[f"texts.{number}.tokens"][None]).logits[0]
            check_close(tensors[f"texts.{number}.logits"], right, f"logits of row {number}")


@dataclasses.dataclass
class Model:
    """A model's folder, to be changed by a case."""

    folder: pathlib.Path

    def edit(self, file: str = "config.json", remove: tuple[str, ...] = (), **values: object) -> "Model":
        """Sets and removes keys of a JSON file, which is made where it is missing."""
        path = self.folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in content.items() if key not in remove} | values
        path.write_text(json.dumps(content))
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model.safetensors")

    def store(self, tensors: dict[str, torch.Tensor], file: str = "model.safetensors") -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, self.folder / file, {"format": "pt"})

    def load(self, adapter: object = None) -> torch.nn.Module:
        """The model by transformers, with an adapter by peft."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        return (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()

    def tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)


def check_close(found: torch.Tensor, right: torch.Tensor, what: str) -> None:
    if found.shape != right.shape:
        raise Failed(f"{what}: shape {tuple(found.shape)}, right is {tuple(right.shape)}")
    difference = (found - right).abs().max().item()
    # A comparison with NaN is false, so this says what must hold.
    if not difference < TOLERANCE:
        raise Failed(f"{what}: differ by {difference:.3g}, at most {TOLERANCE} is right")


def check_equal(found: object, right: object, what: str) -> None:
    if found != right:
        raise Failed(f"{what}: {found!r}, right is {right!r}")
