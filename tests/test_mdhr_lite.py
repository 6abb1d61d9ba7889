"""The bundled model on coded faces: no contradictions, few false alarms at rest, smiles found."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pyfau import AUDetector
from pyfau.weights.store import open_model

PADDING = 0.35  # the images are tight
Active = dict[str, np.ndarray]


def read_images(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Some images of a tar file by the stem of their name, padded."""
    images = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name = Path(member.name).name
            data = tar.extractfile(member)
            if data is None or name not in wanted:
                continue
            rgb = np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB"))
            border = round(max(rgb.shape[:2]) * PADDING)
            images[name] = cv2.copyMakeBorder(rgb, *[border] * 4, cv2.BORDER_REPLICATE)
    return images


def active_units(detector: AUDetector, images: dict[str, np.ndarray]) -> Active:
    """By image, which action units of its widest face are active."""
    found = {}
    for name, rgb in images.items():
        rows = [row for row in detector.detect_image(rgb) if row.box_xyxy is not None]
        if rows:
            widest = max(rows, key=lambda row: row.box_xyxy[2] - row.box_xyxy[0])
            found[name] = widest.active
    return found


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture(scope="module")
def faces(shared: Path, detector: AUDetector) -> Active:
    """Coded faces of people who were never trained on."""
    folder = shared / "data"
    with (folder / "coded/faces_test.csv").open(newline="") as stream:
        wanted = {row["face"] + ".jpg" for row in csv.DictReader(stream)}
    return active_units(detector, read_images(folder / "faces/faces.tar", wanted))


@pytest.fixture(scope="module")
def stills(shared: Path, detector: AUDetector) -> Active:
    folder = shared / "data/coded"
    with (folder / "stills.csv").open(newline="") as stream:
        wanted = {row["file"] for row in csv.DictReader(stream)}
    return active_units(detector, read_images(folder / "stills.tar", wanted))


@pytest.mark.slow
def test_flags_do_not_contradict_each_other(
    detector: AUDetector, faces: Active, stills: Active
) -> None:
    active = np.stack([*faces.values(), *stills.values()])
    column = {au: active[:, i] for i, au in enumerate(detector.aus)}
    assert len(active) > 600
    wrong = {
        "pressed lips that are apart": column["AU24"] & column["AU25"],
        "closed eyes that are tightened": column["AU43"] & column["AU07"],
        "a dropped jaw with closed lips": column["AU26"] & ~column["AU25"],
    }
    for name, flags in wrong.items():
        assert flags.mean() < 0.01, name


@pytest.mark.slow
def test_studio_faces_at_rest_have_few_false_alarms(detector: AUDetector, stills: Active) -> None:
    studio = np.stack([row for name, row in stills.items() if name.startswith("canada_")])
    assert len(studio) == 40
    others = [i for i, au in enumerate(detector.aus) if au != "AU25"]
    assert studio[:, others].any(axis=1).mean() <= 0.08
    assert studio[:, others].mean(axis=0).max() <= 0.03


@pytest.mark.slow
def test_smiles_are_found_as_often_as_by_coders(
    shared: Path, detector: AUDetector, faces: Active
) -> None:
    with np.load(shared / "data/faces/teacher.npz") as stored:
        emotion = stored["emotion"]
    happy = {name for name in faces if emotion[int(Path(name).stem)] == "happiness"}
    assert len(happy) > 100
    grades: dict[str, list[float]] = {}
    with (shared / "data/coded/faces_test.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["AU12"]:
                grades.setdefault(row["face"] + ".jpg", []).append(float(row["AU12"]))
    coded = np.mean([np.mean(grades[name]) >= 0.75 for name in happy if name in grades])
    found = np.mean([faces[name][detector.aus.index("AU12")] for name in happy])
    assert found >= coded > 0.8


def test_the_bundled_model_has_twenty_units_and_intensity() -> None:
    config = open_model("mdhr-lite").model.config
    assert config.aus == (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 24, 25, 26, 28, 43)
    assert config.has_intensity
    assert len(config.calibration) == len(config.thresholds) == 20
