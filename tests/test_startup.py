"""What starting costs, counted in modules: time depends on the machine."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from pyfau.startup import collection_paused

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


def output_of(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout


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
    loaded = output_of(program).splitlines()[-1].split()[1:]
    assert "pyfau.errors" in loaded
    assert len(loaded) <= most
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_garbage_is_searched_once_after_loading() -> None:
    program = (
        "import gc, sys\nsearches = []\n"
        "gc.callbacks.append(lambda phase, info: searches.append('torch.nn' in sys.modules))\n"
        "from pyfau import AUDetector\n"
        "assert gc.isenabled() and 'torch' in sys.modules\nprint(sum(searches))"
    )
    assert int(output_of(program)) <= 2  # the start and the end of one search


def test_a_pause_leaves_collection_as_it_was() -> None:
    was_enabled = gc.isenabled()
    try:
        gc.disable()
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
        gc.enable()
        with pytest.raises(KeyError), collection_paused():
            raise KeyError
        assert gc.isenabled()
    finally:
        (gc.enable if was_enabled else gc.disable)()
