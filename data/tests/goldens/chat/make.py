"""Makes chat.json beside this script: conversations laid out by Hugging Face's transformers.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install "transformers==5.*" jinja2 gguf
    /tmp/goldens/bin/python make.py SmolLM2-135M-Instruct.Q4_1.gguf

The three templates here are our own, in the styles that models use. SmolLM2's own template is not kept: the file holds
what it renders, and the digest of the template; the test reads the template out of the model's file where that is there.
"""

import hashlib
import json
import sys
from pathlib import Path

from gguf import GGUFReader
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def turns(*contents, system=None):
    roles = ["user", "assistant"]
    told = [{"role": "system", "content": system}] if system is not None else []
    return told + [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


CONVERSATIONS = [
    turns("What is 2 + 2?", "4"),
    turns("Hi", "Hello! How can I help?", "Say it in Greek: <b>\"good\" & 'bad'</b>", "καλό & κακό 😀"),
    turns("  spaces around  \n", " spaces too \n\nand a blank line ", "more\n", "end"),
    turns("Who are you?", "A {{ model }} with {% braces %}.", system="You are terse.\nAlways."),
    turns("one", "two", "three", "four", "five", "six", system="Count."),
]


def main():
    gguf = GGUFReader(sys.argv[1])
    smollm2 = gguf.fields["tokenizer.chat_template"].contents()
    smollm2_special = {
        name: gguf.fields["tokenizer.ggml.tokens"].contents(gguf.fields[f"tokenizer.ggml.{key}_token_id"].contents())
        for name, key in [("bos_token", "bos"), ("eos_token", "eos")]
    }
    templates = {name: (HERE / f"{name}.jinja").read_text() for name in ["chatml", "inst", "headers"]}
    out = []
    for name, template in {**templates, "smollm2": smollm2}.items():
        special = smollm2_special if name == "smollm2" else SPECIAL
        marked = "- generation" in template
        cases = []
        for conversation in CONVERSATIONS:
            for prompt in [False, True]:
                messages = conversation[:-1] if prompt else conversation
                rendered, spans = render_jinja_template(
                    conversations=[messages], chat_template=template, add_generation_prompt=prompt,
                    return_assistant_tokens_mask=marked and not prompt, **special,
                )
                case = {"messages": messages, "prompt": prompt, "rendered": rendered[0]}
                if marked and not prompt:
                    case["said"] = [rendered[0][start:end] for start, end in spans[0]]
                cases.append(case)
        digest = hashlib.sha256(template.encode()).hexdigest()
        out.append({"template": name, "sha256": digest, "special": special, "cases": cases})
    (HERE / "chat.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


main()
