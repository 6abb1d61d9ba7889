"""`AUDetector` with networks that score single frames, and their crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zoo

from pyfau import AUDetector
from pyfau.errors import InputError, OptionError
from pyfau.faces.crop_rules import crop_box, crop_ffhq, cut_face
from pyfau.models.layout import make_layout
from pyfau.models.protocol import Crop, Output
from pyfau.tables.readers import read_table
from pyfau.tables.rows import AURows
from pyfau.types import Face
from pyfau.weights.store import load_model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Official files with rule-made weights."""
    folder = tmp_path_factory.mktemp("zoo")
    paths = {}
    for name in ("libreface-combined", "opengraphau-s1-resnet18"):
        paths[name] = folder / f"{name}.pth"
        torch.save({"model": zoo.official_state(name)}, paths[name])
    return paths


def test_kinds_become_scores_and_intensities(
    files: dict[str, Path], media: Path, tmp_path: Path
) -> None:
    detector = AUDetector(files["libreface-combined"], device="cpu")
    assert detector.has_intensity
    image = media / "single_face.jpg"
    (row,) = detector.detect_image(image, save=tmp_path / "a.csv")
    assert len(row.aus) == len(set(row.aus)) == 17
    assert row.intensity is not None
    values = dict(zip(row.aus, row.scores, strict=True))
    grades = dict(zip(row.aus, row.intensity, strict=True))
    assert np.isnan(values["AU05"])
    assert 0 <= grades["AU05"] <= 5
    assert np.isnan(grades["AU07"])
    assert 0 <= values["AU07"] <= 1
    assert not row.active[row.aus.index("AU05")]
    # The same as the network on the crop.
    rgb = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    model = load_model(files["libreface-combined"])
    crop = crop_ffhq(rgb, row.landmarks, 224, 224 / 256)
    with torch.inference_mode():
        outputs = model(model.preprocess(crop[None, None]))[0, 0].numpy()
    names = model.config.au_names
    assert values["AU12"] == pytest.approx(outputs[names.index("AU12")], abs=1e-4)
    assert grades["AU12"] == pytest.approx(outputs[names.index("AU12_r")], abs=1e-4)
    rows = read_table(tmp_path / "a.csv", AURows)
    np.testing.assert_allclose(rows.scores[0], row.scores, atol=1e-6)
    assert not AUDetector(files["libreface-combined"], intensity=False, device="cpu").has_intensity


def test_sides_are_columns_and_rows_have_no_latency(files: dict[str, Path], media: Path) -> None:
    detector = AUDetector(files["opengraphau-s1-resnet18"], device="cpu", aligner="mtcnn")
    assert detector.aus[-2:] == ("AU14L", "AU14R")
    bgr = cv2.imread(str(media / "single_face.jpg"))
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    stream = detector.stream(fps=25)
    (first,) = stream.push(rgb)
    assert first.frame == 0
    assert first["AU12L"] == pytest.approx(detector.detect_image(rgb)[0]["AU12L"], abs=1e-5)
    (empty,) = stream.push(np.zeros_like(rgb))
    assert stream.flush() == []
    result = detector.detect_frames([rgb, rgb])
    assert result.metadata["crop"] == "ffhq, from five landmarks"
    assert len(result) == 2
    assert len(empty.scores) == 41


def test_aligned_images_need_a_template(files: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="has a crop of kind 'ffhq'"):
        AUDetector(files["opengraphau-s1-resnet18"], device="cpu", aligner="aligned")
    with pytest.raises(OptionError, match="'float16' is for a GPU"):
        AUDetector(files["opengraphau-s1-resnet18"], device="cpu", precision="float16")


def test_half_precision_is_near(files: dict[str, Path]) -> None:
    plain = load_model(files["libreface-combined"])
    half = load_model(files["libreface-combined"], precision="bfloat16")
    x = zoo.images(7)[None]
    widths = torch.tensor([output.range[1] for output in plain.config.outputs])
    with torch.inference_mode():
        gap = ((plain(x) - half(x)) / widths).abs().max()
    assert 0 < float(gap) < 0.1


LANDMARKS = np.array([[80, 100], [120, 100], [100, 120], [86, 140], [114, 140]], np.float32)


def gradient(height: int = 240, width: int = 200) -> np.ndarray:
    """Red states the column and green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_the_square_of_ffhq() -> None:
    """Eyes 40 px apart, the mouth 40 px below: half a side is max(80, 72), the centre 4 px down."""
    crop = crop_ffhq(gradient(), LANDMARKS, 160).astype(int)
    # The crop is 160 px wide, at the scale of the image, from column 20 and row 24.
    assert crop[0, 0, 0] == pytest.approx(20, abs=1)
    assert crop[0, 0, 1] == pytest.approx(24, abs=1)
    assert crop[-1, -1, 0] == pytest.approx(179, abs=1)
    half = crop_ffhq(gradient(), LANDMARKS, 80, keep=0.5)
    np.testing.assert_allclose(half, crop[40:120, 40:120], atol=1)


def test_a_turned_face_is_cut_out_upright() -> None:
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = np.zeros((400, 400, 3), np.uint8)
    points = (LANDMARKS - 110) @ turn.T + 200
    for x, y in points[:2]:
        cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    crop = crop_ffhq(image, points.astype(np.float32), 160)
    rows, _ = np.nonzero(crop[..., 0] > 128)
    assert np.ptp(rows) <= 11  # both eyes on one level
    assert rows.mean() == pytest.approx(76, abs=2)


def test_a_box_is_stretched_and_black_outside() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_box(image, np.array([0, 0, 100, 50], np.float32), 224)
    assert crop.shape == (224, 224, 3)
    assert (crop == 200).all()
    outside = crop_box(image, np.array([-50, 0, 50, 100], np.float32), 100)
    assert (outside[:, :49] == 0).all()
    assert (outside[:, 51:] == 200).all()
    # A margin of half a box on each side doubles the sides; keep of a half restores the box.
    box = np.array([20, 30, 60, 70], np.float32)
    first = crop_box(gradient(), box, 40)
    np.testing.assert_array_equal(first, crop_box(gradient(), box, 40, margin=0.5, keep=0.5))
    assert tuple(first[0, 0, :2]) == (20, 30)


def test_a_box_grows_to_a_square_with_a_mirrored_border() -> None:
    image = gradient(100, 100)
    box = np.array([20, 10, 40, 90], np.float32)
    square = crop_box(image, box, 80, square=True)
    # Around the middle (30, 50), 80 px wide: from column -10, which is outside.
    assert (square[:, :10] == 0).all()
    assert tuple(square[5, 10, :2]) == (0, 15)
    mirrored = crop_box(image, box, 80, square=True, outside="mirror")
    np.testing.assert_array_equal(mirrored[:, 10:], square[:, 10:])
    assert tuple(mirrored[5, 9, :2]) == (0, 15)
    assert tuple(mirrored[5, 0, :2]) == (9, 15)
    far = crop_box(image, box + 500, 80, outside="mirror")
    assert (far == 0).all()


@pytest.mark.parametrize("rule", [Crop("ffhq"), Crop("box", margin=0.05)])
def test_a_face_without_a_place_is_refused(rule: Crop) -> None:
    nowhere = Face(np.full(4, np.nan, np.float32), np.full((5, 2), np.nan, np.float32), 0.5)
    with pytest.raises(InputError, match="expected"):
        cut_face(gradient(), nowhere, rule, 224)


def test_a_layout_joins_the_kinds_of_one_unit() -> None:
    outputs = [Output(4, "intensity"), Output(5, "intensity"), Output(4), Output(7, side="left")]
    layout = make_layout(outputs)
    assert layout.aus == ("AU04", "AU05", "AU07L")
    scores, intensity = layout.split(np.array([2.0, 3.0, 0.4, 0.7], np.float32))
    np.testing.assert_allclose(scores, [0.4, np.nan, 0.7], rtol=1e-6)
    np.testing.assert_allclose(intensity, [2, 3, np.nan])
    assert layout.thresholds([1, 1, 0.5, 0.6]) == (0.5, 1.0, 0.6)
    assert make_layout(outputs, intensity=False).split(np.zeros(4, np.float32))[1] is None
