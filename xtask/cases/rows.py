"""Rows of people's files: nothing is dropped without a word."""

import json
from decimal import Decimal

from harness import Failed, Model, Place, case, check_equal

ROLES = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.content is string %}{{ m.content }}{% elif m.content %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ call.function.name ~ '(' ~ call.function.arguments ~ ')' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
)
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + ROLES


@case("csv-quote-open-at-the-end")
def csv_quote_open(place: Place) -> None:
    rows = 'text,label\na calm day,good\na dull day,bad\n"a long day,bad\nno rest,bad\nfun,good\n'
    place.classify(place.write("rows.csv", rows)).refused("rows.csv", "4", "quote")


@case("csv-letters-behind-a-quote")
def csv_letters_behind_a_quote(place: Place) -> None:
    rows = 'text,label\na calm day,good\n"a dull day,bad\nrain,bad\nmore "sun" now,good\n'
    place.classify(place.write("rows.csv", rows)).refused("rows.csv", "quote")


@case("csv-quotes-as-they-should-be")
def csv_quotes_as_they_should_be(place: Place) -> None:
    rows = 'text,label\n"a ""calm"" day, with\na second line",good\n"x",bad\ny,bad\n'
    check_equal(place.classify(place.write("rows.csv", rows)).json()["examples"], 3, "rows")


@case("csv-header-twice")
def csv_header_twice(place: Place) -> None:
    rows = "text,label,text\na calm day,good,b\na dull day,bad,c\n"
    place.classify(place.write("rows.csv", rows)).refused("rows.csv", "text")
    tabbed = rows.replace(",", "\t")
    place.classify(place.write("rows.tsv", tabbed)).refused("rows.tsv", "text")


@case("csv-fields-of-another-number")
def csv_fields_of_another_number(place: Place) -> None:
    place.classify(place.write("many.csv", "text,label\na day,good,x\nrain,bad\n")).refused("many.csv", "2")
    place.classify(place.write("few.csv", "text,label\na day,good\nrain\n")).refused("few.csv", "3")


@case("csv-latin-1")
def csv_latin_1(place: Place) -> None:
    place.classify(place.write("rows.csv", b"text,label\na caf\xe9,good\nrain,bad\n")).refused("rows.csv", "UTF-8")


@case("json-comma-at-the-end")
def json_comma(place: Place) -> None:
    rows = '[{"text": "a day", "label": "good"},\n {"text": "rain", "label": "bad"},\n]\n'
    place.classify(place.write("rows.json", rows)).refused("rows.json", "trailing comma")
    rows = '{"text": "a day", "label": "good",}\n'
    place.classify(place.write("rows.jsonl", rows)).refused("rows.jsonl", "trailing comma")


def chat_model(place: Place, template: str = ROLES) -> Model:
    model = place.tiny("llama").edit(max_position_embeddings=4096)
    return model.edit("tokenizer_config.json", chat_template=template, tokenizer_class="PreTrainedTokenizerFast")


def rendered(place: Place, row: dict, turns: list[dict], template: str = ROLES, tools: list | None = None) -> None:
    """Fails unless the row becomes the tokens that transformers makes of these turns."""
    model = chat_model(place, template)
    found = place.tokens(model, place.rows(row), "--max-tokens", 2000)[0]
    right = model.tokenizer().apply_chat_template(turns, tools=tools, return_dict=False)
    check_equal(found, right, "tokens of a conversation")


USER = {"role": "user", "content": "what is it?"}
ANSWER = {"role": "assistant", "content": "a boat"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]}
RESULT = {"role": "tool", "content": "a boat"}


@case("turns-with-tools")
def turns_with_tools(place: Place) -> None:
    rendered(place, {"messages": [USER, CALL, RESULT, ANSWER]}, [USER, CALL, RESULT, ANSWER])


@case("turns-of-a-developer")
def turns_of_a_developer(place: Place) -> None:
    turns = [{"role": "developer", "content": "be brief"}, USER, ANSWER]
    rendered(place, {"messages": turns}, turns)


@case("turns-in-parts")
def turns_in_parts(place: Place) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "what "}, {"type": "text", "text": "now"}]}
    rendered(place, {"messages": [parts, ANSWER]}, [parts, ANSWER])


@case("turns-with-pictures")
def turns_with_pictures(place: Place) -> None:
    parts = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x.png"}}]}
    place.evaluate(chat_model(place), place.rows({"messages": [parts, ANSWER]})).refused("image")


@case("tools-of-a-row")
def tools_of_a_row(place: Place) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    rendered(place, {"messages": [USER, ANSWER], "tools": tools}, [USER, ANSWER], TOOLS, tools)


@case("tools-that-the-template-drops")
def tools_that_the_template_drops(place: Place) -> None:
    row = {"tools": json.dumps([{"name": "look"}]), "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
    place.evaluate(chat_model(place), place.rows(row)).says("tools")


@case("sharegpt-calls")
def sharegpt_calls(place: Place) -> None:
    turns = [("human", "what?"), ("function_call", '{"name": "look", "arguments": {}}'), ("observation", "a boat"), ("gpt", "a boat")]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    ended = place.evaluate(chat_model(place), place.rows(row))
    if ended.code != 0:
        ended.refused("function_call")


@case("sharegpt-system")
def sharegpt_system(place: Place) -> None:
    row = {"system": "be brief", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
    ]
    rendered(place, row, turns)


def trained_tokens(place: Place, row: dict) -> int:
    return place.evaluate(Model(place.folder / "model"), place.rows(row)).json()["tokens"]


@case("turns-without-weight")
def turns_without_weight(place: Place) -> None:
    """A turn of weight 0 is read and adds nothing to the loss."""
    chat_model(place)
    silent = {**ANSWER, "content": "a very long wrong answer", "weight": 0}
    both = trained_tokens(place, {"messages": [USER, {**silent, "weight": 1}, USER, ANSWER]})
    one = trained_tokens(place, {"messages": [USER, silent, USER, {**ANSWER, "weight": 1}]})
    if not one < both:
        raise Failed(f"{one} tokens add to the loss with the weight, {both} without")


@case("alpaca-system-and-history")
def alpaca_system_and_history(place: Place) -> None:
    plain = {"instruction": "go on", "input": "", "output": "the end"}
    full = {**plain, "system": "be kind", "history": [["first", "one"], ["second", "two"]]}
    model = chat_model(place)
    ended = place.evaluate(model, place.rows(full))
    if ended.code == 1:
        ended.refused("system")
        return
    before, after = (place.tokens(model, place.rows(row), "--max-tokens", 2000)[0] for row in (plain, full))
    text = model.tokenizer().decode(after)
    if len(after) <= len(before) or not all(word in text for word in ("be kind", "first", "one", "second", "two")):
        raise Failed(f"`system` and `history` are not in the text: {text!r}")


@case("parquet-decimals")
def parquet_decimals(place: Place) -> None:
    import pyarrow
    import pyarrow.parquet

    for number, kind in enumerate([pyarrow.decimal128(5, 0), pyarrow.decimal128(38, 0), pyarrow.decimal256(50, 0)]):
        labels = pyarrow.array([Decimal(1), Decimal(0), Decimal(1)], kind)
        table = pyarrow.table({"text": ["a day", "rain", "fun"], "label": labels})
        path = place.folder / f"rows-{number}.parquet"
        pyarrow.parquet.write_table(table, path)
        check_equal(place.classify(path, "0,1").json()["examples"], 3, f"rows with labels of {kind}")


@case("labels-with-blanks")
def labels_with_blanks(place: Place) -> None:
    path = place.write("rows.csv", "text,label\na calm day, good\nrain,bad \n")
    check_equal(place.classify(path, "bad, good").json()["examples"], 2, "rows")
    place.classify(path, "bad, bad").refused("bad")


@case("labels-that-no-row-has")
def labels_that_no_row_has(place: Place) -> None:
    path = place.write("rows.csv", "text,label\na calm day,fine\nrain,poor\n")
    place.classify(path).refused("fine")
