"""Lets PyTorch's Linux wheel start without its 3 GB of GPU libraries.

The wheel is linked to cuBLAS, cuDNN, NCCL and others even where nothing runs on a GPU. For each that is missing this
compiles a library of the same name whose functions end the process, and puts it beside PyTorch's own. Only the check
of exported adapters uses it; it computes on the CPU and never calls them.
"""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Ours are the CUDA runtime and CUPTI, which are installed for real.
PREFIX = re.compile(r"lib(cu|nccl|nv)")
REAL = re.compile(r"lib(cudart|cupti)\.")


def needed(library: pathlib.Path) -> list[str]:
    text = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", text)


def undefined(library: pathlib.Path) -> list[tuple[str, str]]:
    """Names of GPU functions that the library asks for, each with its version (or "")."""
    text = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    names = (line.split()[-1].partition("@") for line in text.splitlines())
    return [(name, version) for name, _, version in names if re.match(r"cu|nccl|nv", name)]


def main() -> None:
    # `find_spec` finds the package without importing it.
    folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    libraries = sorted(folder.glob("*.so"))
    wanted = {name for library in libraries for name in needed(library) if PREFIX.match(name)}
    missing = sorted(name for name in wanted if not REAL.match(name) and not (folder / name).exists())
    functions: dict[str, set[str]] = {}
    for library in libraries:
        for name, version in undefined(library):
            functions.setdefault(version, set()).add(name)

    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("no C compiler was found\nfix: install one (Debian, Ubuntu: apt-get install gcc)")
    # A version is named after its library, NVSHMEM's by a word of its own. Which library holds the functions without a
    # version cannot be told, so every library without versions holds them all.
    loose = functions.get("", set())
    with tempfile.TemporaryDirectory() as work:
        for name in missing:
            version = "NVSHMEM" if name.startswith("libnvshmem") else name
            own = functions.get(version, set())
            source = pathlib.Path(work) / "stand_in.c"
            source.write_text("".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in sorted(own or loose)))
            command = [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(source), f"-Wl,-soname,{name}"]
            if own:
                script = pathlib.Path(work) / "versions"
                script.write_text(f"{version} {{ global: *; }};\n")
                command.append(f"-Wl,--version-script={script}")
            subprocess.run(command, check=True)
    print(f"{len(missing)} GPU libraries are stood in for")


if __name__ == "__main__":
    main()
