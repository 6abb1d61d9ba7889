from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau.errors import InputError
from pyfau.faces.crop import crop_face, fit_similarity, warp
from pyfau.models.paper import BP4D_TEMPLATE, DISFA_TEMPLATE

TEMPLATES = {"bp4d": np.array(BP4D_TEMPLATE), "disfa": np.array(DISFA_TEMPLATE)}
PROPERTY = settings(max_examples=60, deadline=None)
finite = st.floats(-1000, 1000, allow_nan=False, width=32)
points = st.lists(st.tuples(finite, finite), min_size=2, max_size=8)


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def moved(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ matrix[:, :2].T + matrix[:, 2]


def landmarks_for(
    template: np.ndarray, size: int, scale: float, angle: float, centre: tuple[float, float]
) -> np.ndarray:
    """Pixel coordinates of landmarks whose crop is `scale` times as fine as the image, turned by
    `angle`.
    """
    xy = (template - template.mean(axis=0)) * size / scale
    return moved(similarity(1.0, angle, centre), xy)


def dots(height: int, width: int, centres: np.ndarray, sigma: float) -> np.ndarray:
    """White gaussian dots on black."""
    y, x = np.mgrid[:height, :width]
    light = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy in centres)
    return np.repeat(np.rint(np.minimum(light, 1) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(crop: np.ndarray, near: np.ndarray, radius: float) -> np.ndarray:
    """Centre of the light around a place, in pixel coordinates."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    light = crop[:, :, 1] * (np.hypot(x - near[0], y - near[1]) <= radius)
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


# ---- fit


@given(
    xy=points,
    scale=st.floats(0.05, 20),
    angle=st.floats(-math.pi, math.pi),
    shift=st.tuples(finite, finite),
)
@PROPERTY
def test_a_planted_similarity_is_recovered(
    xy: list[tuple[float, float]], scale: float, angle: float, shift: tuple[float, float]
) -> None:
    source = np.array(xy)
    if np.ptp(source, axis=0).max() < 0.1:
        source[0] += 10.0
    planted = similarity(scale, angle, shift)
    matrix = fit_similarity(source, moved(planted, source))
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix[:, :2], planted[:, :2], atol=1e-3 * scale)
    np.testing.assert_allclose(
        moved(matrix, source), moved(planted, source), atol=1e-6 * (1 + 1000 * scale)
    )


@given(seed=st.integers(0, 2**32), count=st.integers(3, 12))
@PROPERTY
def test_the_fit_is_that_of_least_squares(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, count, 2)) * 50 + 20
    rows = []  # of the linear system in (a, b, x, y), M = [[a, -b, x], [b, a, y]]
    for x, y in source:
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    (a, b, x, y), *_ = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)
    np.testing.assert_allclose(fit_similarity(source, target), [[a, -b, x], [b, a, y]], atol=1e-7)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_mirrored_points_are_not_fitted_by_a_reflection(template: np.ndarray) -> None:
    mirrored = template * [-1, 1] * 300 + [400, 0]
    matrix = fit_similarity(mirrored, template * 300)
    assert np.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix[0, 0], matrix[1, 1])
    np.testing.assert_allclose(matrix[0, 1], -matrix[1, 0])
    # A reflection would leave nothing.
    assert np.abs(moved(matrix, mirrored) - template * 300).max() > 20


FIVE = np.arange(10.0).reshape(5, 2)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.ones((5, 2)), FIVE),
        (np.full((5, 2), np.nan), FIVE),
        (np.where(FIVE == 3, np.inf, FIVE), FIVE),
        (FIVE * 1e200, FIVE),
        (FIVE[:1], FIVE[:1]),
        (FIVE[:0], FIVE[:0]),
        (FIVE, FIVE[:4]),
        (np.ones((5, 3)), np.ones((5, 3))),
        (np.ones(2), np.ones(2)),
    ],
    ids=[
        "coincide",
        "nan",
        "inf",
        "overflow",
        "one point",
        "no points",
        "counts differ",
        "3 D",
        "no list",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_points_that_tell_no_scale_are_refused(source: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected"):
        fit_similarity(source, target)


def test_points_whose_best_scale_is_0_are_refused() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    with pytest.raises(InputError, match="expected"):
        fit_similarity(square, square[:, ::-1])


# ---- geometry of the crop


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("angle", [0.0, 25.0, -100.0])
@pytest.mark.parametrize("scale", [0.3, 0.9, 1.0, 3.0])
@pytest.mark.parametrize("size", [112, 224])
def test_landmarks_come_to_lie_on_the_template(
    template: np.ndarray, angle: float, scale: float, size: int
) -> None:
    side = round(1.2 * size / scale)
    landmarks = landmarks_for(
        template, size, scale, math.radians(angle), (side / 2 + 0.37, side / 2 - 0.21)
    )
    sigma = 2.5  # in the crop
    crop = crop_face(
        dots(side, side, landmarks, sigma / scale), landmarks.astype(np.float32), template, size
    )
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    # The middle of the first pixel is at half a pixel of the template.
    for want in template * size - 0.5:
        got = centroid(crop, want, 3.5 * sigma)
        assert np.abs(got - want).max() <= 0.1


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_quarter_pixel_of_the_landmarks_is_a_quarter_pixel_of_the_crop(
    scale: float, axis: int
) -> None:
    template, size = TEMPLATES["disfa"], 112
    side = round(1.3 * size / scale)
    landmarks = landmarks_for(template, size, scale, 0.0, (side / 2, side / 2))
    image = dots(side, side, landmarks, 2.5 / scale)
    step = np.zeros(2)
    step[axis] = 0.25
    place = template[2] * size - 0.5
    before, after = (
        centroid(crop_face(image, xy, template, size), place, 12.0)
        for xy in (landmarks, landmarks + step)
    )
    np.testing.assert_allclose(after - before, -step * scale, atol=0.02)


def test_the_crop_of_a_crop_sized_image_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    template = TEMPLATES["bp4d"]
    crop = crop_face(image, template * 112 - 0.5, template, 112)
    assert np.abs(crop.astype(int) - image).max() <= 1


def test_channels_stay_in_their_order() -> None:
    image = np.zeros((80, 80, 3), np.uint8)
    image[:] = (200, 100, 50)
    landmarks = landmarks_for(TEMPLATES["bp4d"], 112, 1.7, 0.3, (40, 40))
    assert (crop_face(image, landmarks, TEMPLATES["bp4d"], 112) == (200, 100, 50)).all()


@pytest.mark.parametrize(
    "landmarks",
    [
        landmarks_for(TEMPLATES["disfa"], 112, 1.0, 0.0, (150.3, 150.9)),
        landmarks_for(TEMPLATES["disfa"], 112, 1.4, 0.4, (150.0, 150.6)),
        landmarks_for(TEMPLATES["disfa"], 112, 3.0, -2.0, (15.0, 15.6)),
        TEMPLATES["disfa"] * 28
        + 99.5,  # the crop's corner is that of a pixel: half of what it shows lies beyond
    ],
    ids=["copy", "turned", "at the edge", "at a pixel's corner"],
)
def test_an_enlarged_crop_is_bilinear_up_to_its_border(landmarks: np.ndarray) -> None:
    image = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    crop = crop_face(image, landmarks, DISFA_TEMPLATE, 112)
    to_image = fit_similarity(TEMPLATES["disfa"] * 112 - 0.5, landmarks)
    y, x = np.mgrid[:112, :112]
    place = moved(to_image, np.stack([x, y], axis=-1).astype(float)).clip(0, 299)
    low = np.minimum(np.floor(place).astype(int), 298)
    right, down = np.moveaxis(place - low, -1, 0)[..., None]
    corner = [
        [image[low[..., 1] + i, low[..., 0] + j].astype(float) for j in (0, 1)] for i in (0, 1)
    ]
    top, bottom = (left * (1 - right) + other * right for left, other in corner)
    want = top * (1 - down) + bottom * down
    # OpenCV counts in 32nds of a pixel.
    assert np.abs(crop - want).max() <= 2 * 256 / 32


@pytest.mark.parametrize("scale", [0.35, 1.0, 2.5])
def test_what_lies_far_from_the_face_does_not_matter(scale: float) -> None:
    rng = np.random.default_rng(3)
    side = round(112 / scale)
    big = rng.integers(0, 256, (3 * side, 3 * side, 3), dtype=np.uint8)
    landmarks = landmarks_for(TEMPLATES["disfa"], 112, scale, 0.2, (1.5 * side, 1.5 * side))
    crop = crop_face(big, landmarks, TEMPLATES["disfa"], 112)
    middle = slice(side // 2, -side // 2)
    other = rng.integers(0, 256, big.shape, dtype=np.uint8)
    other[middle, middle] = big[middle, middle]
    np.testing.assert_array_equal(crop_face(other, landmarks, TEMPLATES["disfa"], 112), crop)


# ---- shrinking


@pytest.mark.parametrize("scale", [1 / 8, 1 / 7.3])
@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_a_fine_checkerboard_becomes_grey(scale: float, angle: float) -> None:
    side = round(112 / scale) + 40
    board = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = np.repeat(board[:, :, None], 3, axis=2)
    crop = crop_face(
        image,
        landmarks_for(TEMPLATES["bp4d"], 112, scale, angle, (side / 2, side / 2)),
        BP4D_TEMPLATE,
        112,
    )
    inner = crop[28:84, 28:84].astype(float)
    assert abs(inner.mean() - 127.5) < 1.5
    assert np.abs(inner - 127.5).max() <= 4


def test_a_fine_checkerboard_fades_as_soon_as_it_shrinks() -> None:
    """Bilinear sampling alone leaves a contrast of 63 at this scale, as a moving pattern."""
    board = np.repeat(
        (np.indices((220, 220)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2
    )
    crop = crop_face(
        board, landmarks_for(TEMPLATES["bp4d"], 112, 0.7, 0.0, (110, 110)), BP4D_TEMPLATE, 112
    )
    assert crop.std() < 20


@pytest.mark.parametrize("scale", [0.08, 0.3, 0.6])
def test_a_shrunk_image_keeps_its_light(scale: float) -> None:
    """Single bright pixels are neither skipped nor counted twice."""
    side = round(112 / scale)
    image = np.zeros((side, side, 3), np.uint8)
    lit = np.random.default_rng(0).random((side, side)) < 0.3
    image[lit] = 255
    template = TEMPLATES["disfa"]
    crop = crop_face(image, template * side - 0.5, template, 112)
    assert crop.mean() == pytest.approx(image.mean(), abs=1.0)
    expected_noise = 255 * math.sqrt(0.3 * 0.7) * scale  # of a mean over 1 / scale^2 pixels
    assert 0.4 * expected_noise < crop.std() < 1.6 * expected_noise


# ---- edges


def at_centre(x: float, y: float, size: int = 112, scale: float = 1.0) -> np.ndarray:
    """Landmarks of a face whose crop has its middle there."""
    return (TEMPLATES["bp4d"] - 0.5) * size / scale + [x, y]


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_edges_are_repeated_beside_a_face_partly_outside(scale: float) -> None:
    rows = np.linspace(0, 255, 100).astype(np.uint8)
    # Grey by height alone.
    image = np.repeat(np.repeat(rows[:, None, None], 100, axis=1), 3, axis=2)
    for x in (0.0, 99.0):
        crop = crop_face(image, at_centre(x, 50.0, scale=scale), BP4D_TEMPLATE, 112)[
            :, :, 0
        ].astype(int)
        assert np.ptp(crop, axis=1).max() <= 1  # every row goes on as it was
        assert np.ptp(crop[:, 0]) > 30
    top = crop_face(
        image.transpose(1, 0, 2).copy(), at_centre(50.0, 0.0, scale=scale), BP4D_TEMPLATE, 112
    )[:, :, 0]
    assert np.ptp(top.astype(int), axis=0).max() <= 1


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_face_wholly_outside_is_the_nearest_corner(scale: float, corner: tuple[int, int]) -> None:
    image = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    x, y = (-5e3 if corner[1] == 0 else 5e3), (-5e3 if corner[0] == 0 else 5e3)
    crop = crop_face(image, at_centre(x, y, scale=scale), BP4D_TEMPLATE, 112)
    assert (crop == image[corner]).all()


def test_a_face_beside_the_image_is_its_edge() -> None:
    image = np.random.default_rng(5).integers(0, 256, (112, 60, 3), dtype=np.uint8)
    crop = crop_face(image, at_centre(-1000.0, 55.5), BP4D_TEMPLATE, 112)
    assert np.abs(crop.astype(int) - image[:, :1]).max() <= 1


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_image_of_one_pixel(scale: float) -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    crop = crop_face(image, at_centre(0.0, 0.0, scale=scale), BP4D_TEMPLATE, 112)
    assert crop.shape == (112, 112, 3)
    assert (crop == (10, 20, 30)).all()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.floats(0.02, 50),
    angle=st.floats(-4, 4),
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
)
@PROPERTY
def test_a_crop_is_made_of_the_image_and_leaves_it_alone(
    height: int, width: int, scale: float, angle: float, x: float, y: float
) -> None:
    image = np.random.default_rng(height * 41 + width).integers(
        60, 120, (height, width, 3), dtype=np.uint8
    )
    image.flags.writeable = False
    kept = image.copy()
    crop = crop_face(
        image, landmarks_for(TEMPLATES["disfa"], 112, scale, angle, (x, y)), DISFA_TEMPLATE, 112
    )
    np.testing.assert_array_equal(image, kept)
    assert crop.shape == (112, 112, 3)
    assert crop.min() >= image.min()  # no black border shines through, however the face lies
    assert crop.max() <= image.max()


def test_part_of_a_larger_array_can_be_cropped() -> None:
    """A view with strides of its own, such as a region of interest or a flipped image."""
    whole = np.random.default_rng(8).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for view in (whole[20:170, 30:180], whole[:, ::-1], whole[::2, ::2]):
        landmarks = at_centre(60.0, 60.0)
        np.testing.assert_array_equal(
            crop_face(view, landmarks, BP4D_TEMPLATE, 112),
            crop_face(view.copy(), landmarks, BP4D_TEMPLATE, 112),
        )


def test_warp_counts_from_the_corner_of_the_first_pixel() -> None:
    """Doubling [0, 100] puts it onto crop pixels whose middles are at 1/4, 3/4, 5/4 and 7/4 of the
    image.
    """
    image = np.array([[[0] * 3, [100] * 3]] * 2, np.uint8)
    crops = warp(image, np.array([[[2.0, 0, 0], [0, 2.0, 0]]]), 4)
    assert crops.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(crops[0, 1, :, 0], [0, 25, 75, 100], atol=1)


@pytest.mark.parametrize("scale", [0.4, 1.5])
def test_several_views_are_those_of_each_alone(scale: float) -> None:
    image = np.random.default_rng(9).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)  # its part may be shrunk to another raster
    views = np.stack(
        [similarity(scale * s, a, (x, -20.0)) for s, a, x in ((1.0, 0.0, -30.0), (0.95, 0.2, 5.0))]
    )
    crops = warp(image, views, 64)
    assert np.abs(crops[0].astype(int) - crops[1]).mean() > 3
    for crop, view in zip(crops, views, strict=True):
        assert np.abs(crop.astype(int) - warp(image, view[None], 64)[0]).max() <= 3


def test_landmarks_in_one_place_make_no_crop() -> None:
    with pytest.raises(InputError, match="coincide"):
        crop_face(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2), np.float32), BP4D_TEMPLATE, 112)
