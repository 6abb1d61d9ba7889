"""Paths that the documentation promises: they import, and old paths give the same objects."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pyfau

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Files and packages of other names, which are no paths of Python.
NOT_PYTHON = {"pyfau.cdx.json"}


def resolve(path: str) -> Any:
    """The object at a dotted path: the longest module in it, then attributes."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not path.startswith(str(error.name)):
                raise  # the module is there, and one that it imports is missing
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def promised() -> list[str]:
    paths = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        paths |= set(re.findall(r"\bpyfau(?:\.[A-Za-z_]+)+", text))
        for module, names in re.findall(r"from (pyfau[\w.]*) import ([\w, ]+)", text):
            paths |= {f"{module}.{name.strip()}" for name in names.split(",")}
    return sorted(paths - NOT_PYTHON)


@pytest.mark.parametrize("path", promised())
def test_a_path_that_the_documentation_names_exists(path: str) -> None:
    assert resolve(path) is not None


def test_the_documentation_names_paths() -> None:
    expected = {"pyfau.AUDetector", "pyfau.analysis.find_events", "pyfau.result.open_writer"}
    assert expected <= set(promised())


def test_every_public_name_is_there() -> None:
    for name in pyfau.__all__:
        assert getattr(pyfau, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        resolve("pyfau.nothing")


@pytest.mark.parametrize(
    ("public", "home"),
    [
        ("pyfau.AUDetector", "pyfau.detector.AUDetector"),
        ("pyfau.AUResult", "pyfau.result.AUResult"),
        ("pyfau.AUStream", "pyfau.pipeline.AUStream"),
        ("pyfau.Baseline", "pyfau.analysis.baseline.Baseline"),
        ("pyfau.draw_overlay", "pyfau.overlay.drawing.draw_overlay"),
        ("pyfau.load_model", "pyfau.weights.store.load_model"),
        ("pyfau.aligners.Aligner", "pyfau.faces.aligner.Aligner"),
        ("pyfau.aligners.ALIGNER_NAMES", "pyfau.faces.aligner.ALIGNER_NAMES"),
        ("pyfau.aligners.load_aligner", "pyfau.faces.aligner.load_aligner"),
        ("pyfau.crop.crop_face", "pyfau.faces.crop.crop_face"),
        ("pyfau.crop.fit_similarity", "pyfau.faces.crop.fit_similarity"),
        ("pyfau.encoders.Encoder", "pyfau.media.encoding.VideoEncoder"),
        ("pyfau.encoders.open_encoder", "pyfau.media.encoding.open_encoder"),
        ("pyfau.events.events", "pyfau.analysis.events.find_events"),
        ("pyfau.overlay.OverlayWriter", "pyfau.overlay.writer.OverlayWriter"),
        ("pyfau.overlay.draw_overlay", "pyfau.overlay.drawing.draw_overlay"),
        ("pyfau.overlay.write_overlay_image", "pyfau.overlay.writer.write_overlay_image"),
        ("pyfau.report.write_report", "pyfau.report.html.write_report"),
        ("pyfau.result.CSVWriter", "pyfau.tables.writers.CSVWriter"),
        ("pyfau.result.JSONLinesWriter", "pyfau.tables.writers.JSONLinesWriter"),
        ("pyfau.result.ParquetWriter", "pyfau.tables.writers.ParquetWriter"),
        ("pyfau.result.ResultWriter", "pyfau.tables.writers.ResultWriter"),
        ("pyfau.result.is_complete", "pyfau.tables.metadata.is_complete"),
        ("pyfau.result.open_writer", "pyfau.tables.writers.open_writer"),
        ("pyfau.result.read_metadata", "pyfau.tables.metadata.read_metadata"),
        ("pyfau.video.FrameReader", "pyfau.media.frames.FrameReader"),
        ("pyfau.video.read_arrays", "pyfau.media.readers.read_arrays"),
        ("pyfau.video.read_camera", "pyfau.media.readers.read_camera"),
        ("pyfau.video.read_frames", "pyfau.media.readers.read_frames"),
        ("pyfau.video.read_images", "pyfau.media.readers.read_images"),
        ("pyfau.video.read_image", "pyfau.media.images.read_image"),
        ("pyfau.video.read_video", "pyfau.media.readers.read_video"),
    ],
)
def test_a_public_path_is_the_same_object_as_its_home(public: str, home: str) -> None:
    assert resolve(public) is resolve(home)


@pytest.mark.parametrize(
    "path",
    [
        "pyfau.weights.store.save_model",
        "pyfau.formats.elan.read_elan",
        "pyfau.formats.events.read_events",
        "pyfau.formats.openface.read_openface",
        "pyfau.formats.pyfeat.read_pyfeat",
    ],
)
def test_a_path_of_the_api_page_is_a_function(path: str) -> None:
    assert callable(resolve(path))
