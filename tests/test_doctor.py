"""`pyfau doctor` finds what is missing and says how to get it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyfau.doctor as doctor
from pyfau.cli import main
from pyfau.doctor import Check, examine

ROOT = Path(__file__).parents[1]


def of(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 0
    groups = {check["group"] for check in found["checks"]}
    assert groups == {"versions", "opencv", "codecs", "device", "model", "extras", "speed"}
    for check in found["checks"]:
        assert check["state"] == "ok" or check["advice"] or check["name"] == "cuda"
    speed = next(check for check in found["checks"] if check["group"] == "speed")
    assert float(re.match(r"[\d.]+", speed["value"])[0]) > 0  # type: ignore[index]


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-speed"]) == 0
    out = capsys.readouterr().out
    assert "frames per second" not in out
    assert out.endswith("no problem\n")


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    versions = {"opencv-python": "5.0", "opencv-contrib-python": "4.9", "numpy": "2.0"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    checks = examine(speed=False)
    assert of(checks, "av").state == "problem"
    assert of(checks, "av").advice == "pip install av"
    assert of(checks, "package").state == "problem"
    assert "uninstall -y opencv-python opencv-contrib-python" in of(checks, "package").advice
    assert of(checks, "plot").state == "missing"
    assert "pip install 'pyfau[plot]'" in of(checks, "plot").advice
    assert main(["doctor", "--no-speed"]) == 1
    assert "PROBLEM av" in capsys.readouterr().out


def test_a_check_that_fails_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no codec list")

    monkeypatch.setattr(doctor, "_has_codec", broken)
    checks = examine(speed=False)
    assert of(checks, "codecs") == Check(
        "codecs", "codecs", "problem", "RuntimeError: no codec list"
    )
    assert of(checks, "mdhr-lite").state == "ok"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("cv2", "import"),
        ("torch", "torch"),
        ("av", "av"),
        ("numpy", "numpy"),
        ("pandas", "pandas"),
        ("scipy", "scipy"),
    ],
)
def test_a_package_that_cannot_be_imported(tmp_path: Path, module: str, name: str) -> None:
    """As on a server without libraries of the desktop: the report comes, and says what to do."""
    error = "libGL.so.1: cannot open shared object file"
    (tmp_path / f"{module}.py").write_text(f"raise ImportError({error!r})\n")
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pyfau", "doctor", "--json", "--no-speed"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    check = next(one for one in json.loads(done.stdout)["checks"] if one["name"] == name)
    assert check["state"] == "problem"
    assert error in check["value"]
    assert "install" in check["advice"]
    assert "Traceback" not in done.stderr


def test_windows_codecs_threads_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor._has_windows("  GUI:                           QT5\n")
    assert not doctor._has_windows("  GUI:                           NONE\n")
    assert not doctor._has_codec("nonsense", "r")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    checks = examine(speed=False)
    assert of(checks, "cache").state == "problem"
    assert "PYFAU_CACHE" in of(checks, "cache").advice
    assert of(checks, "threads").state == "problem"
    assert "OMP_NUM_THREADS" in of(checks, "threads").advice


def test_every_extra_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", section, flags=re.M))
    assert set(doctor._EXTRAS) <= extras
