"""The container and headless OpenCV."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyfau.demo import write_demo_clip

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in lines]


def test_the_image_runs_without_rights_and_with_the_tested_versions() -> None:
    found = instructions()
    last = found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["10001"]
    assert [rest for word, rest in last if word == "ENTRYPOINT"] == ['["pyfau"]']
    text = " ".join(rest for _, rest in found)
    pins = dict(
        re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    )
    assert f"torch=={pins['torch']} " in text
    assert f"opencv-python-headless=={pins['opencv-python']} " in text
    assert ":latest" not in text
    assert "download.pytorch.org/whl/cpu" in text


def test_another_base_image_is_possible() -> None:
    """Both stages have the same base, and no path has the version of its Python."""
    found = instructions()
    bases = [rest.split(" AS ")[0] for word, rest in found if word == "FROM"]
    assert bases == ["${BASE}", "${BASE}"]
    assert found[0] == ("ARG", "BASE=python:3.12-slim-bookworm")
    rest = " ".join(rest for _, rest in found[1:])
    assert not re.search(r"python3\.\d", rest)


def test_what_the_image_deletes_is_not_pyfaus() -> None:
    """The image has no folders named tests; the package must not have one with that name."""
    assert not list((ROOT / "pyfau").rglob("tests"))


def test_the_builder_gets_what_the_image_copies() -> None:
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY"]
    names = {name for part in copied for name in part if not name.startswith(("--", "/"))}
    sent = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), flags=re.M)
    assert names == set(sent)
    assert all((ROOT / name).exists() for name in names)


@pytest.mark.network
@pytest.mark.slow
def test_headless_opencv_scores_a_clip(tmp_path: Path) -> None:
    """Install opencv-python-headless before the other packages, and score with it."""
    site = tmp_path / "site"
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    version = re.search(r"^opencv-python==([\d.]+)", pinned, flags=re.M)
    assert version is not None
    package = f"opencv-python-headless=={version[1]}"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*install, package], check=True, timeout=600)
    clip = write_demo_clip(tmp_path / "clip.mp4")
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths}

    def pyfau(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pyfau", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)

    where = "import cv2; print(cv2.__file__, cv2.getBuildInformation())"
    told = subprocess.run([sys.executable, "-c", where], env=env, capture_output=True, text=True)
    assert told.stdout.startswith(str(site))
    assert re.search(r"GUI:\s+NONE", told.stdout)
    table, overlay = tmp_path / "clip.csv", tmp_path / "overlay.mp4"
    done = pyfau("detect", str(clip), "-o", str(table), "--overlay", str(overlay), "--quiet")
    assert done.returncode == 0, done.stderr
    assert table.read_text("utf-8").count("\n") == 76
    assert overlay.stat().st_size > 10_000
    live = pyfau("live", str(clip))
    assert live.returncode == 1
    assert "screen" in live.stderr or "install opencv-python" in live.stderr
