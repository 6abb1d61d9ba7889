"""The portrait in the package gives the same demo clip as the image it was cut from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyfau import demo
from pyfau.demo import demo_frames


def test_portrait_is_the_original_pixel_for_pixel() -> None:
    original = pytest.importorskip("skimage.data").astronaut()
    portrait = demo._portrait()
    assert portrait.shape == (324, 496, 3)
    np.testing.assert_array_equal(portrait, original[:324, :496])


def test_camera_never_sees_what_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = demo_frames()
    whole = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut())
    monkeypatch.setattr(demo, "_portrait", lambda: whole)
    for ours, of_whole in zip(frames, demo_frames(), strict=True):
        np.testing.assert_array_equal(ours, of_whole)


def test_portrait_needs_no_scikit_image() -> None:
    program = (
        "import sys; sys.modules['skimage'] = None\n"
        "from pyfau.demo import demo_frames\n"
        "frames = demo_frames()\n"
        "print(len(frames), *frames[0].shape, frames[0].dtype)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["75", "480", "640", "3", "uint8"]


def test_portrait_file_is_unchanged_and_small() -> None:
    path = Path(demo.__file__).with_name("assets") / "demo" / "portrait.webp"
    stored = path.read_bytes()
    assert len(stored) < 220_000
    rgb = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    digest = hashlib.sha256(rgb.tobytes()).hexdigest()
    assert digest == "903daaead0e7793e0e098881ca853d8079c02fe72af876da8fa988f97a4304d4"
