"""Makes shapes.json beside this script: conversations laid out by Hugging Face's transformers.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install "transformers==5.*" jinja2
    /tmp/goldens/bin/python make.py

The templates are in templates.py: our own, each built of the constructs that a family of models uses.
"""

import datetime
import json
from pathlib import Path

from jinja2.exceptions import TemplateError, UndefinedError
from templates import TEMPLATES
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


class Day(datetime.datetime):
    """The day that Rondo tells templates."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


TOOLS = [
    {"type": "function", "function": {
        "name": "tide", "description": "When the sea is high in <port> & \"bay\"",
        "parameters": {"type": "object", "required": ["port"], "properties": {
            "port": {"type": "string", "description": "Its name, e.g. Łeba"},
            "days": {"type": "integer", "default": 3, "enum": [1, 3, 7]},
            "items": {"type": "array", "items": {"type": ["number", "null"]}}}}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
DOCUMENTS = [{"title": "Tides", "text": "Twice a day.\nMostly."}, {"title": "Łeba", "text": "A port's <name>"}]
CONVERSATIONS = {
    "question": {"messages": [said("user", "When is high tide?")]},
    "talk": {"messages": [said("user", "Hi"), said("assistant", "Hello!"), said("user", "  spaces \n"), said("assistant", "\nok ")]},
    "system": {"messages": [said("system", "Be terse.\nAlways."), said("user", "Ünïcode 😀 <b>'x'</b> & \"y\""), said("assistant", "{{ a }} {% b %}")]},
    "empty": {"messages": [said("system", ""), said("user", ""), said("assistant", "")]},
    "long": {"messages": [said("user" if at % 2 == 0 else "assistant", f"turn {at}\nline") for at in range(6)]},
    "unusual": {"messages": [said("user", "one"), said("user", "two"), said("assistant", "three")]},
    "thoughts": {"messages": [said("user", "2+2?"), said("assistant", "<think>\nadd\n</think>\n\n4"), said("user", "and 3?"),
                              said("assistant", "7", reasoning_content="add more")]},
    "parts": {"messages": [said("user", [{"type": "text", "text": "see"}, {"type": "image"}, {"type": "text", "text": " this"}]),
                           said("assistant", [{"type": "text", "text": "a cat"}])]},
    "tools": {"messages": [
        said("system", "Use tools."), said("user", "High tide in Łeba?"),
        said("assistant", None, tool_calls=[call("tide", {"port": "Łeba", "days": 1, "deep": 1.50, "near": None, "on": True}, id="abcdefghi")]),
        said("tool", '{"high": "04:12"}', name="tide", tool_call_id="abcdefghi"),
        said("assistant", "At 4:12."), said("user", "Thanks")], "tools": TOOLS},
    "calls": {"messages": [
        said("user", "Both?"),
        said("assistant", "Let me see.", tool_calls=[call("tide", {"port": "it's \"x\""}, id="000000001"), call("now", {}, id="000000002")]),
        said("tool", "low", name="tide", tool_call_id="000000001"), said("tool", "12:00", name="now", tool_call_id="000000002"),
        said("assistant", "Low, at noon.")], "tools": TOOLS[:1]},
    "documents": {"messages": [said("user", "What of tides?")], "documents": DOCUMENTS},
}


def rendered(template, given, prompt):
    try:
        text, _ = chat_template_utils.render_jinja_template(
            conversations=[given["messages"]], chat_template=template, tools=given.get("tools"),
            documents=given.get("documents"), add_generation_prompt=prompt, **SPECIAL,
        )
        return {"text": text[0]}
    except UndefinedError:
        return {"fails": True}
    except TemplateError as error:
        return {"refuses": error.message}
    except (TypeError, ValueError, IndexError, KeyError):
        return {"fails": True}


def main():
    chat_template_utils.datetime = Day
    out = []
    for place, (name, template) in enumerate(TEMPLATES.items()):
        cases = []
        for index, (title, given) in enumerate(CONVERSATIONS.items()):
            both = title in ("question", "tools")
            for prompt in [False, True] if both else [(index + place) % 2 == 0]:
                cases.append({"of": title, "prompt": prompt, **rendered(template, given, prompt)})
        texts = [case for case in cases if "text" in case]
        print(f"{name}: {len(texts)} of {len(cases)} rendered")
        assert len(texts) >= 3, name
        out.append({"name": name, "template": template, "cases": cases})
    whole = {"special": SPECIAL, "conversations": CONVERSATIONS, "templates": out}
    (HERE / "shapes.json").write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
