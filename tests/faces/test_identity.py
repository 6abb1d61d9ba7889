"""The face descriptor equals that of the original program."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
import torch

from pyfau.demo import demo_frames
from pyfau.faces.identity import _network, cut_identity, describe_crops, load_network
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.packed import PackedConv, can_pack
from pyfau.types import UInt8Array

PARITY = Path(__file__).parents[1] / "data" / "parity" / "identity.json"


def stripes() -> UInt8Array:
    """(150, 150, 3): each channel is a diagonal ramp of its own slope."""
    return (np.indices((150, 150)).sum(0)[..., None] * np.array([1, 2, 3]) % 256).astype(np.uint8)


def test_descriptor_of_the_original_program() -> None:
    stored = json.loads(PARITY.read_text())["descriptor"]
    (found,) = describe_crops(stripes()[None])
    np.testing.assert_allclose(found, stored, rtol=0, atol=5e-4)


def test_a_face_is_near_itself_in_other_light_and_far_from_another_image() -> None:
    frames = demo_frames()
    aligner = MTCNNAligner()
    crops = []
    for rgb in (frames[0], frames[40], (frames[20] * 0.6).astype(np.uint8)):
        (face,) = aligner.detect(rgb)
        crops.append(cut_identity(rgb, face))
    found = describe_crops([*crops, stripes()])
    assert found.shape == (4, 128)
    assert found.dtype == np.float32
    distances = np.linalg.norm(found - found[0], axis=1)
    assert distances[1:3].max() < 0.4
    assert distances[3] > 0.6


@pytest.mark.skipif(not can_pack(), reason="this torch or CPU has no packed convolutions")
@pytest.mark.parametrize("count", [1, 3])
def test_packed_convolutions_give_the_same_descriptors(count: int) -> None:
    with as_file(files("pyfau") / "assets" / "identity" / "model.safetensors") as path:
        plain = load_network(path)
    crops = np.stack([np.roll(stripes(), 20 * k, axis=0) for k in range(count)])
    with torch.inference_mode():
        expected = plain(torch.from_numpy(crops).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(describe_crops(crops), expected, rtol=0, atol=1e-5)
    packed = [module for module in _network().modules() if isinstance(module, PackedConv)]
    assert len(packed) == 29
