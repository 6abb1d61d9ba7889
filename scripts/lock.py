"""Make the lock files again: every package that pyfau and its tests need, with versions and hashes.

    python scripts/lock.py              # `make lock`: keeps the versions that still fit
    python scripts/lock.py --upgrade    # newest versions where constraints.txt has none

Both need uv (in pyfau[dev]) and a package index.

`requirements/lock.txt` has every package except torch. `requirements/torch.txt` has torch as PyPI
offers it, and the CUDA packages that this build needs on Linux. They are two files because one
version of torch has several builds. The CPU build for Linux is not on PyPI and has another hash.

The files are valid for Linux, macOS and Windows and for each Python that pyfau supports. They leave
out the extra `mediapipe`: MediaPipe brings opencv-contrib-python, which replaces opencv-python.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "lock.txt"
TORCH_LOCK = ROOT / "requirements" / "torch.txt"
OLDEST_PYTHON = "3.10"
LEFT_OUT_EXTRAS = ("mediapipe",)
TORCH_ONLY = re.compile(r"torch==|triton==|nvidia-|cuda-")  # torch and what nothing but torch needs
HEAD = """\
# {what}
# Made by `make lock` from pyproject.toml and constraints.txt. Do not edit.
"""
LOCK_HEAD = HEAD.format(
    what="Every package that pyfau[dev] and the extras need, except torch: see torch.txt."
)
TORCH_HEAD = HEAD.format(
    what="torch as PyPI offers it. On Linux this is the CUDA build: several gigabytes."
)


def extras() -> list[str]:
    """The names of pyfau's extras that can be installed together."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    names = re.findall(r"^([\w-]+) = \[", section, flags=re.MULTILINE)
    return [name for name in names if name not in LEFT_OUT_EXTRAS]


def resolve(previous: str = "") -> str:
    """The text of one lock file with all packages, as uv writes it.

    Args:
        previous: Text of an older lock. Versions in it are kept where they still fit.
    """
    command = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--constraint",
        "constraints.txt",
        "--quiet",
    ]
    command += ["--universal", "--python-version", OLDEST_PYTHON, "--python", sys.executable]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    for extra in extras():
        command += ["--extra", extra]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        # Uv takes its preferences from the file that it replaces.
        output.write_text(previous, encoding="utf-8")
        subprocess.run([*command, "--output-file", output], cwd=ROOT, check=True)
        return output.read_text(encoding="utf-8")


def stored() -> str:
    """The text of both lock files as they are now."""
    return "".join(path.read_text(encoding="utf-8") for path in (LOCK, TORCH_LOCK) if path.exists())


def split(lock: str) -> tuple[str, str]:
    """Take the packages that only torch needs out of the others."""
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
    others = [entry for entry in entries if not TORCH_ONLY.match(entry)]
    torch = [entry for entry in entries if TORCH_ONLY.match(entry)]
    return "".join(others), "".join(torch)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make the lock files again.")
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest version of transitive packages"
    )
    previous = "" if parser.parse_args().upgrade else stored()
    others, torch = split(resolve(previous))
    LOCK.parent.mkdir(exist_ok=True)
    LOCK.write_text(LOCK_HEAD + others, encoding="utf-8", newline="\n")
    TORCH_LOCK.write_text(TORCH_HEAD + torch, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
