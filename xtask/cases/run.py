"""Runs the cases, or those that are named, and says how each ended.

Every case is an input that people really have. What is right comes from transformers, peft, pyarrow and Python itself.
"""

import argparse
import pathlib
import shutil
import sys
import time
import traceback
import warnings

import torch
import transformers

import adapters  # noqa: F401 (importing a module registers its cases)
import models  # noqa: F401
import rows  # noqa: F401
import templates  # noqa: F401
import tokens  # noqa: F401
from harness import CASES, Failed, Place


def absolute(path: str) -> pathlib.Path:
    return pathlib.Path(path).absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=absolute, required=True, help="folder of the built programs")
    parser.add_argument("--goldens", type=absolute, required=True, help="folder of the tiny models")
    parser.add_argument("--work", type=absolute, required=True, help="a folder for the inputs; emptied")
    parser.add_argument("--only", action="append", default=[], help="part of the names of the cases to run")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    chosen = [name for name in CASES if not options.only or any(part in name for part in options.only)]
    shutil.rmtree(options.work, ignore_errors=True)
    failed = []
    for name in chosen:
        folder = options.work / name
        folder.mkdir(parents=True)
        started = time.monotonic()
        try:
            CASES[name](Place(folder, options.programs, options.goldens))
            print(f"ok      {name}  {time.monotonic() - started:.1f} s", flush=True)
        except Failed as error:
            failed.append(name)
            print(f"FAILED  {name}: {error}", flush=True)
        except Exception:
            failed.append(name)
            print(f"FAILED  {name}: {traceback.format_exc()}", flush=True)
    print(f"\n{len(chosen) - len(failed)} cases are right, {len(failed)} are not", *failed)
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
