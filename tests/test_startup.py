"""What starting costs, counted in modules: time depends on the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "cv2",
    "numpy",
    "PIL",
    "scipy",
    "pandas",
    "pyarrow",
    "ray",
    "multiprocessing",
    "huggingface_hub",
)


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import pyfau", 60),  # 31 with Python 3.11, in 0.01 s
        (
            "import pyfau.cli\ntry: pyfau.cli.main(['detect', '--help'])\nexcept SystemExit: pass",
            110,
        ),  # 59, in 0.03 s
        ("import pyfau.cli\npyfau.cli.main(['models'])", 130),
        ("from pyfau.weights import read_manifest\nread_manifest()", 110),
        ("import pyfau.models, pyfau.weights", 60),
    ],
)
def test_few_modules_are_loaded_and_none_of_the_heavy(code: str, most: int) -> None:
    program = (
        f"import sys\nbefore = set(sys.modules)\n{code}\n"
        "print('loaded:', *(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.splitlines()[-1].split()[1:]
    assert "pyfau.errors" in loaded
    assert len(loaded) <= most
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
