"""The commands of training/README.md, in their order, on a cut of the data."""

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

# The modules of training/ import each other by their names.
sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

from data import SPLITS, face_person, hashed_split

ROOT = Path(__file__).parents[2]
STEPS = ["--coded-steps", "3", "--student-steps", "3", "--precision", "float32"]
PEOPLE = ("grid00", "grid03", "grid04", "grid02")  # of all splits
FACES = {"train": 24, "validation": 24, "test": 24}
RENDERED = 3  # people of each part


def cut_tar(source: Path, target: Path, names: Callable[[str], str | None]) -> None:
    """Copy the files of a tar under other names, without those that get none."""
    with tarfile.open(source) as whole, tarfile.open(target, "w") as part:
        for member in whole:
            data, name = whole.extractfile(member), names(member.name)
            if data is not None and name is not None:
                member.name = name
                part.addfile(member, io.BytesIO(data.read()))


def cut_faces(whole: Path, part: Path) -> None:
    """Some coded faces of each split, under new numbers."""
    known = dict(np.load(whole / "faces/teacher.npz"))
    split = np.array([hashed_split("faces", face_person(str(s))) for s in known["source"]])
    tables = {name: whole / f"coded/faces_{name}.csv" for name in SPLITS}
    rows = {name: list(csv.DictReader(path.open(newline=""))) for name, path in tables.items()}
    coded = np.unique([int(row["face"]) for table in rows.values() for row in table])
    chosen = np.concatenate([coded[split[coded] == name][:count] for name, count in FACES.items()])
    chosen.sort()
    numbers = {f"{old:05d}": f"{new:05d}" for new, old in enumerate(chosen)}
    per_face = {k: v[chosen] if len(v) == len(split) else v for k, v in known.items()}
    np.savez(part / "faces/teacher.npz", **per_face)

    def renamed(name: str) -> str | None:
        number = numbers.get(Path(name).stem)
        return number and f"{number}.jpg"

    cut_tar(whole / "faces/faces.tar", part / "faces/faces.tar", renamed)
    for name, table in rows.items():
        with (part / f"coded/faces_{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            mine = [row for row in table if row["face"] in numbers]
            writer.writerows(row | {"face": numbers[row["face"]]} for row in mine)


@pytest.fixture
def cut(shared: Path, tmp_path: Path) -> Path:
    """As ../shared, with a few faces, people and clips of each split."""
    pytest.importorskip("sklearn", reason="the figures of training/ need scikit-learn")
    folder, whole = tmp_path / "shared", shared / "data"
    part = folder / "data"
    for name in ("faces", "clips", "sequences", "coded"):
        (part / name).mkdir(parents=True)
    cut_faces(whole, part)
    for name in (*(f"frames_{split}.csv" for split in SPLITS), "stills.csv", "stills.tar"):
        shutil.copy(whole / "coded" / name, part / "coded")

    with (whole / "clips/SOURCES.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["person"] in PEOPLE]
    with (part / "clips/SOURCES.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        for ending in ("mp4", "npz"):
            shutil.copy(whole / f"clips/{row['name']}.{ending}", part / "clips")

    for name in ("part1", "part2"):
        labels = dict(np.load(whole / f"sequences/{name}.npz"))
        people = len(labels["au"])
        few = {k: v[:RENDERED] if len(v) == people else v for k, v in labels.items()}
        np.savez(part / f"sequences/{name}.npz", **few)
        cut_tar(
            whole / f"sequences/{name}.tar",
            part / f"sequences/{name}.tar",
            lambda file: file if int(Path(file).parent.name) < RENDERED else None,
        )
    return folder


def commands() -> list[list[str]]:
    """The words of each command of training/README.md's first block that runs a script there."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "training/README.md").read_text(), re.DOTALL)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if " training/" in line]


@pytest.mark.slow
def test_a_model_comes_out_of_the_commands_of_the_readme(cut: Path, tmp_path: Path) -> None:
    runs, model = tmp_path / "runs", tmp_path / "new"
    manifest = tmp_path / "manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    for name in ("mdhr-lite", "mdhr-lite-9"):  # in place of versions 8 and 9
        shutil.copytree(ROOT / "pyfau/assets/mdhr-lite", runs / name)
    places = {"../shared": str(cut), "pyfau/assets/mdhr-lite": str(model)}
    more = {"train.py": STEPS, "export.py": ["--manifest", str(manifest)]}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    scripts = []
    for _, *words in commands():
        script = next(Path(word).name for word in words if word.startswith("training/"))
        options = [places.get(word, word.replace("../runs", str(runs))) for word in words]
        command = [sys.executable, *options, *more.get(script, [])]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=environment
        )
        assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
        scripts.append(script)
    assert scripts == [
        *("prepare.py", "prepare.py", "train.py"),
        *("mean.py", "export.py", "evaluate.py"),
    ]
    log = (runs / "lite/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in log] == ["coded"]
    report = json.loads((runs / "lite/report.json").read_text())
    assert report["faces"]["pictures"] > 15
    assert report["frames"]["pictures"] > 0
    assert report["rest"]["studio"]["pictures"] == 40
    detector = AUDetector(model, device="cpu")
    digest = json.loads(manifest.read_text())["models"]["mdhr-lite"]["sha256"]
    blank = detector.detect_image(np.zeros((64, 64, 3), np.uint8))
    assert blank.metadata["model_sha256"] == digest
