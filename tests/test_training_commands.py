"""The commands of training/README.md, as they stand there and in their order, on a cut of the shared data.

They need MediaPipe, which labels the faces, and are skipped without it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyfau import AUDetector

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # its modules import each other by their names

from data import face_person, hashed_split

ROOT = Path(__file__).parents[1]
STEPS = ["--alone-steps", "3", "--together-steps", "3", "--windows-steps", "2"]  # instead of more
PEOPLE = ("grid00", "grid03", "intel1", "grid04", "nice", "grid02", "edtalk_m")  # of clips, from all splits
FACES, RENDERED = {"train": 60, "validation": 150, "test": 100}, 40  # pictures by split, and people of each part


def cut_tar(source: Path, target: Path, names: Callable[[str], str | None]) -> None:
    """The files of a tar under other names, without those that get none."""
    with tarfile.open(source) as whole, tarfile.open(target, "w") as part:
        for member in whole:
            data, name = whole.extractfile(member), names(member.name)
            if data is not None and name is not None:
                member.name = name
                part.addfile(member, io.BytesIO(data.read()))


@pytest.fixture
def cut(shared: Path, tmp_path: Path) -> Path:
    """As ../shared, with a few faces, people and clips of each split."""
    pytest.importorskip("mediapipe", reason="the faces are labelled by MediaPipe")
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    folder, whole = tmp_path / "shared", shared / "data"
    for name in ("faces", "clips", "sequences"):
        (folder / "data" / name).mkdir(parents=True)
    (folder / "models").symlink_to(shared / "models")

    known = dict(np.load(whole / "faces/teacher.npz"))
    split = np.array([hashed_split("faces", face_person(source)) for source in known["source"]])
    chosen = np.sort(np.concatenate([np.flatnonzero(split == name)[:count] for name, count in FACES.items()]))
    per_face = {k: v[chosen] if len(v) == len(split) else v for k, v in known.items()}
    np.savez(folder / "data/faces/teacher.npz", **per_face)
    numbers = {f"{old:05d}": f"{new:05d}.jpg" for new, old in enumerate(chosen)}  # pictures are named by their row
    cut_tar(whole / "faces/faces.tar", folder / "data/faces/faces.tar", lambda name: numbers.get(Path(name).stem))

    with (whole / "clips/SOURCES.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["person"] in PEOPLE]
    with (folder / "data/clips/SOURCES.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        for ending in ("mp4", "npz"):
            shutil.copy(whole / f"clips/{row['name']}.{ending}", folder / "data/clips")

    for part in ("part1", "part2"):
        labels = dict(np.load(whole / f"sequences/{part}.npz"))
        people = len(labels["au"])
        np.savez(
            folder / f"data/sequences/{part}.npz",
            **{k: v[:RENDERED] if len(v) == people else v for k, v in labels.items()},
        )
        cut_tar(
            whole / f"sequences/{part}.tar",
            folder / f"data/sequences/{part}.tar",
            lambda name: name if int(Path(name).parent.name) < RENDERED else None,
        )
    return folder


def commands() -> list[list[str]]:
    """The words of each command of the first block of training/README.md that runs a script there."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "training/README.md").read_text(), re.DOTALL)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if " training/" in line]


@pytest.mark.slow
def test_a_model_comes_out_of_the_commands_of_the_readme(cut: Path, tmp_path: Path) -> None:
    runs, model, manifest = tmp_path / "runs", tmp_path / "mdhr-lite", tmp_path / "manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    places = {"../shared": str(cut), "pyfau/assets/mdhr-lite": str(model)}
    launchers = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    scripts = []
    for launcher, *words in commands():
        script = next(Path(word).name for word in words if word.startswith("training/"))
        options = [places.get(word, word.replace("../runs", str(runs))) for word in words]
        options += {"train.py": STEPS, "export.py": ["--manifest", str(manifest)]}.get(script, [])
        command = [*launchers[launcher], *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=environment)
        assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
        scripts.append(script)
    assert scripts == ["prepare.py", "train.py", "export.py", "evaluate.py"]
    stages = [json.loads(line)["stage"] for line in (runs / "lite/log.jsonl").read_text().splitlines()]
    assert stages == ["alone", "together", "windows"]
    report = json.loads((runs / "lite/report.json").read_text())
    assert min(report["head"]["counts"].values()) > 0
    assert len(list((runs / "lite/sheets").glob("*.png"))) == 2 * len(report["head"]["aus"])
    detector = AUDetector(model, device="cpu")
    digest = json.loads(manifest.read_text())["models"]["mdhr-lite"]["sha256"]
    assert detector.detect_image(np.zeros((64, 64, 3), np.uint8)).metadata["model_sha256"] == digest
