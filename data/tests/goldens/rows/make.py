"""Makes the Parquet files beside this script with pyarrow, the library that most of them are written with.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install pyarrow
    /tmp/goldens/bin/python make.py

choice.parquet    ARC's shape: a struct of two lists; dictionary pages, snappy, two row groups, a null
messages.parquet  conversations: a list of structs, zstd, data page version 2
answers.parquet   numbers as answers: floats, integers, plain encoding, gzip
rows.json         what is in them, as Python sees it
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
CHOICE = [
    {
        "id": f"q{n}", "question": f"Question {n}, with ünïcode 😀?",
        "choices": {"text": [f"option {n}-{k}" for k in range(3 + n % 2)], "label": ["A", "B", "C", "D"][: 3 + n % 2]},
        "answerKey": "ABC"[n % 3], "note": None if n % 4 else "a note",
    }
    for n in range(12)
]
MESSAGES = [
    {"messages": [{"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": f"say {n}\n" * (n + 1)}]}
    for n in range(5)
]
ANSWERS = [{"original_text": f"How many are {n} and {n}?", "ans": n * 2.0 + n % 2 / 4, "number": n} for n in range(6)]


def write(name, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), HERE / f"{name}.parquet", **options)


def main():
    write("choice", CHOICE, row_group_size=5, compression="snappy")
    write("messages", MESSAGES, compression="zstd", data_page_version="2.0")
    write("answers", ANSWERS, compression="gzip", use_dictionary=False)
    rows = {"choice": CHOICE, "messages": MESSAGES, "answers": ANSWERS}
    (HERE / "rows.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


main()
