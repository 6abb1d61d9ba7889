"""FANAligner on the real package: fresh weights where it looks for them, then planted heat maps for
the geometry.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from pyfau.errors import DependencyError, WeightsError
from pyfau.faces import fan as fan_module
from pyfau.faces.aligner import Aligner
from pyfau.faces.fan import FANAligner
from pyfau.types import UInt8Array

FAN_FILE = "2DFAN4-11f355bf06.pth.tar"
SFD_FILE = "s3fd-619a316812.pth"

face_alignment = pytest.importorskip("face_alignment")
if not hasattr(face_alignment.api, "FAN"):
    pytest.skip("these tests make the weights of face-alignment 1.5", allow_module_level=True)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """torch.hub's folder, with a FAN and an SFD of fresh weights where face-alignment looks for
    them.
    """
    from face_alignment.detection.sfd.net_s3fd import s3fd

    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(face_alignment.api.FAN(4).state_dict(), folder / "checkpoints" / FAN_FILE)
        sfd = s3fd()
    # Blind but for the coarsest layer, which sees a face of 512 px at each of its cells.
    for name, module in sfd.named_children():
        if name.endswith("_conf"):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, 0.0)
            nothing = 0 if name != "conv7_2_mbox_conf" else 1
            module.bias.data[nothing] = 20.0
        elif name.endswith("_loc"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    torch.save(sfd.state_dict(), folder / "checkpoints" / SFD_FILE)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    yield folder
    torch.hub.set_dir(before)
    shutil.rmtree(folder)  # pytest would keep the 190 MB of the last three runs


@pytest.fixture(scope="module")
def fan(hub: Path) -> FANAligner:
    return FANAligner()


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub folder without weights, and no internet."""

    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no internet in this test")

    monkeypatch.setattr("face_alignment.utils.download_url_to_file", fail)
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    return tmp_path


class Planted(nn.Module):
    """Stands for FAN's network: heat maps with one Gaussian for each of 68 places in the window."""

    def __init__(
        self,
        places: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
        height: float = 1.0,
    ):
        super().__init__()
        self.places, self.height, self.calls = places, height, 0

    def forward(self, x: Tensor) -> list[Tensor]:
        assert x.shape[1:] == (3, 256, 256)
        assert float(x.min()) >= 0.0
        assert float(x.max()) <= 1.0
        maps = [
            gaussians(self.places(window), self.height)
            for window in x.permute(0, 2, 3, 1).double().numpy()
        ]
        self.calls += 1
        return [torch.zeros(len(x), 68, 64, 64), torch.from_numpy(np.stack(maps)).float()]


def gaussians(
    fractions: npt.NDArray[np.float64], height: float = 1.0, sigma: float = 1.5
) -> npt.NDArray[np.float64]:
    centres = np.arange(64) + 0.5
    dx = centres[None, None, :] - fractions[:, 0, None, None] * 64
    dy = centres[None, :, None] - fractions[:, 1, None, None] * 64
    return height * np.exp(-(dx**2 + dy**2) / (2 * sigma**2))


def plant(fan: FANAligner, monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> None:
    monkeypatch.setattr(fan, "_network", network)


def read(path: Path) -> UInt8Array:
    bgr = cv2.imread(str(path))
    assert bgr is not None, path
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


class TestWeights:
    @pytest.mark.parametrize(
        ("detector", "files"), [("mtcnn", [FAN_FILE]), ("sfd", [FAN_FILE, SFD_FILE])]
    )
    def test_missing_weights_are_named(
        self, empty_hub: Path, detector: str, files: list[str]
    ) -> None:
        with pytest.raises(WeightsError) as caught:
            FANAligner(detector=detector)
        message = str(caught.value)
        assert all(
            part in message for part in [*files, str(empty_hub / "checkpoints"), "internet once"]
        )

    def test_only_what_is_missing_is_named(self, empty_hub: Path, hub: Path) -> None:
        (empty_hub / "checkpoints").mkdir()
        (empty_hub / "checkpoints" / SFD_FILE).symlink_to(hub / "checkpoints" / SFD_FILE)
        with pytest.raises(WeightsError, match=FAN_FILE) as caught:
            FANAligner(detector="sfd")
        assert SFD_FILE not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
    def test_damaged_weights_are_named(self, empty_hub: Path, content: bytes) -> None:
        file = empty_hub / "checkpoints" / FAN_FILE
        file.parent.mkdir()
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="delete it") as caught:
            FANAligner()
        assert str(file) in str(caught.value)

    def test_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "face_alignment", None)
        with pytest.raises(DependencyError, match="pip install face-alignment"):
            FANAligner()


class TestEndToEnd:
    def test_real_network_on_a_real_image(self, fan: FANAligner, media: Path) -> None:
        assert isinstance(fan, Aligner)
        image = read(media / "single_face.jpg")
        faces = fan.detect(image)
        assert len(faces) == 1  # MTCNN's search; what fresh weights make of it is another matter
        face = faces[0]
        assert face.box_xyxy.shape == (4,)
        assert face.landmarks.shape == (5, 2)
        assert face.landmarks.dtype == face.box_xyxy.dtype == np.float32
        assert np.isfinite(face.landmarks).all()
        assert 0.0 <= face.confidence <= 1.0

    def test_nothing_to_find(self, fan: FANAligner) -> None:
        assert fan.detect(np.zeros((1, 1, 3), np.uint8)) == []
        assert fan.refine(np.zeros((64, 64, 3), np.uint8), []) == []

    def test_sfd_search(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fan = FANAligner(detector="sfd")
        places = np.random.default_rng(2).uniform(0.3, 0.7, (68, 2))
        plant(fan, monkeypatch, Planted(lambda window: places))
        faces = fan.detect(np.full((256, 256, 3), 128, np.uint8))
        assert faces
        assert all(np.isfinite(f.landmarks).all() for f in faces)
        assert fan.detect(np.full((20, 300, 3), 128, np.uint8)) == []  # too small for SFD

    def test_sfd_boxes_come_back_in_the_image_s_scale(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fan = FANAligner(detector="sfd")
        seen = []

        def found(image: UInt8Array) -> list[npt.NDArray[np.float64]]:
            seen.append(image.shape)
            return [np.array([100, 50, 200, 150, 0.9])]

        monkeypatch.setattr(fan._sfd, "detect_from_image", found)
        (box,) = fan._search_sfd(np.zeros((1280, 2560, 3), np.uint8))
        assert seen == [(640, 1280, 3)]
        np.testing.assert_allclose(box, [200, 100, 400, 300])


class TestGeometry:
    """Where a peak in a heat map comes to lie in the image."""

    BOXES = (
        [100, 120, 220, 260],
        [300, 40, 380, 130],
        [-40, -30, 60, 90],  # reaches outside
        [560, 400, 660, 500],
        [10, 440, 70, 505],
    )

    def windows(
        self, boxes: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """FAN's windows, by the package's own rule: 200 scale, scale = (w + h) / 195, centre 0.12 h
        up.
        """
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        side = 200 * (width + height) / 195
        centre = np.stack(
            [boxes[:, 0] + width / 2, boxes[:, 1] + height / 2 - 0.12 * height], axis=1
        )
        return centre - side[:, None] / 2, side

    def test_planted_points_come_out_where_they_are(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(1)
        fractions = rng.uniform(0.05, 0.95, (5, 68, 2))
        # Five boxes pass as 2 + 2 + 1; each window's top left pixel tells which box it is.
        monkeypatch.setattr(fan, "_batch_size", 2)
        sequence = iter(fractions)
        network = Planted(lambda window: next(sequence))
        plant(fan, monkeypatch, network)
        boxes = np.array(self.BOXES, np.float32)
        faces = fan.refine(np.zeros((480, 640, 3), np.uint8), list(boxes))
        assert network.calls == 3
        corners, sides = self.windows(boxes.astype(np.float64))
        for face, corner, side, places in zip(faces, corners, sides, fractions, strict=True):
            points = corner + places * side
            cell = side / 64
            expected = np.stack(
                [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
            )
            # 0.5: landmarks are pixel coordinates, the first pixel's centre at 0.
            assert np.abs(face.landmarks - (expected - 0.5)).max() < 0.1 * cell
            box = np.concatenate([points.min(axis=0), points.max(axis=0)])
            assert np.abs(face.box_xyxy - box).max() < 0.1 * cell
            assert 0.9 < face.confidence <= 1.0

    def test_agrees_with_the_package(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On the same heat maps the package's own answer is ours, rounded down to whole pixels."""
        package = fan_module._load(torch.device("cpu"), sfd=False)
        package.flip_input = False
        places = np.random.default_rng(3).uniform(0.1, 0.9, (68, 2))
        package.face_alignment_net = Planted(lambda window: places)
        plant(fan, monkeypatch, Planted(lambda window: places))
        box = np.array([100, 120, 220, 260], np.float32)
        image = np.zeros((480, 640, 3), np.uint8)
        (theirs,) = package.get_landmarks_from_image(image, detected_faces=[box.astype(np.float64)])
        (face,) = fan.refine(image, [box])
        side = self.windows(box[None].astype(np.float64))[1][0]
        ours = face.landmarks[[2, 3, 4]]
        # Theirs sits on a quarter of a cell and a whole pixel.
        assert np.abs(theirs[[30, 48, 54]] - ours).max() <= 0.25 * side / 64 + 1.0
        eyes = np.stack([theirs[36:42].mean(0), theirs[42:48].mean(0)])
        assert np.abs(eyes - face.landmarks[:2]).max() <= 0.25 * side / 64 + 1.0

    def test_peak_on_the_edge_of_a_map(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = np.tile([[0.5 / 64, 63.5 / 64]], (68, 1))
        plant(fan, monkeypatch, Planted(lambda window: places))
        box = np.array([100, 120, 220, 260], np.float32)
        (face,) = fan.refine(np.zeros((480, 640, 3), np.uint8), [box])
        corners, sides = self.windows(box[None].astype(np.float64))
        np.testing.assert_allclose(
            face.landmarks[2], corners[0] + places[0] * sides[0] - 0.5, atol=1e-3
        )

    @pytest.mark.parametrize(
        ("height", "confidence"), [(0.0, 0.0), (0.375, 0.5), (0.75, 1.0), (1.2, 1.0)]
    )
    def test_confidence_follows_the_peaks(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch, height: float, confidence: float
    ) -> None:
        places = (
            np.full((68, 2), 20) + 0.5
        ) / 64  # on a cell's centre, where the map is as high as the Gaussian
        plant(fan, monkeypatch, Planted(lambda window: places, height))
        (face,) = fan.refine(
            np.zeros((64, 64, 3), np.uint8), [np.array([10, 10, 50, 50], np.float32)]
        )
        assert face.confidence == pytest.approx(confidence, abs=1e-6)

    def test_mirrored_pass_is_mirrored_back(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from face_alignment.utils import flip

        class Symmetric(nn.Module):
            """A network that sees a mirrored window as a mirrored face, left and right points
            exchanged.
            """

            def __init__(self, maps: Tensor) -> None:
                super().__init__()
                self.maps, self.windows = maps, list[Tensor]()

            def forward(self, x: Tensor) -> list[Tensor]:
                self.windows.append(x)
                return [self.maps if len(self.windows) == 1 else flip(self.maps, is_label=True)]

        places = np.random.default_rng(4).uniform(0.1, 0.9, (68, 2))
        image = np.random.default_rng(5).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        box = np.array([50, 50, 150, 150], np.float32)
        plant(fan, monkeypatch, Planted(lambda window: places))
        (expected,) = fan.refine(image, [box])
        network = Symmetric(torch.from_numpy(gaussians(places)[None]).float())
        plant(fan, monkeypatch, network)
        monkeypatch.setattr(fan, "_flip", True)
        (face,) = fan.refine(image, [box])
        torch.testing.assert_close(network.windows[1], network.windows[0].flip(-1))
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)


class TestTracking:
    """A network that finds 68 coloured dots stands for one that finds a face: it answers to where
    the window lies.
    """

    LAYOUT = np.stack(np.meshgrid(np.linspace(0, 1, 10), np.linspace(0, 1, 7)), axis=-1).reshape(
        -1, 2
    )[:68]

    def image(
        self, low: tuple[float, float], side: float, size: int = 400
    ) -> tuple[UInt8Array, np.ndarray]:
        """68 dots on a black image, each with its own green and blue, and their places."""
        points = np.array(low) + self.LAYOUT * side
        image = np.zeros((size, size, 3), np.uint8)
        for number, (x, y) in enumerate(points):
            cv2.circle(
                image, (round(x), round(y)), 4, (255, 36 * (number // 9), 31 * (number % 9)), -1
            )
        return image, np.round(points)

    @staticmethod
    def find(window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Places of the dots in the window, each the centroid of its colour; the middle for those
        out of sight.
        """
        red, green, blue = np.moveaxis(window * 255, -1, 0)
        share = 255 / np.maximum(red, 1)  # dots fade towards their edges, colours stay
        number = 9 * np.round(green * share / 36) + np.round(blue * share / 31)
        number[red < 64] = -1
        places = np.full((68, 2), 0.5)
        for n in range(68):
            rows, columns = np.nonzero(number == n)
            if len(rows):
                weights = red[rows, columns]
                places[n] = (
                    np.average(np.stack([columns, rows]), axis=1, weights=weights) + 0.5
                ) / 256
        return places

    def test_boxes_converge_and_stay(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image, points = self.image((150, 160), 130)
        plant(fan, monkeypatch, Planted(self.find))
        # MTCNN's box of this "face": from the forehead down, some 20 % higher than the points.
        box = np.array([155, 125, 275, 295], np.float32)
        faces = []
        for _ in range(6):
            (face,) = fan.refine(image, [box])
            faces.append(face)
            box = face.box_xyxy
        expected = np.concatenate([points.min(axis=0), points.max(axis=0)]) + 0.5
        assert np.abs(faces[0].box_xyxy - expected).max() < 1.0
        for face in faces[1:]:
            assert np.abs(face.box_xyxy - expected).max() < 1.0
            assert np.abs(face.landmarks - faces[-1].landmarks).max() < 0.5
        eye = points[36:42].mean(axis=0)
        np.testing.assert_allclose(faces[-1].landmarks[0], eye, atol=0.5)

    def test_small_steps_are_followed(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(fan, monkeypatch, Planted(self.find))
        box = np.array([80, 80, 210, 210], np.float32)
        for step in range(8):
            image, points = self.image((80 + 12 * step, 80 + 6 * step), 130)
            (face,) = fan.refine(image, [box])
            np.testing.assert_allclose(face.landmarks[2], points[30], atol=1.0)
            box = face.box_xyxy

    def test_window_beyond_the_image_is_black(
        self, fan: FANAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def look(window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            seen.append(window)
            return np.full((68, 2), 0.5)

        plant(fan, monkeypatch, Planted(look))
        white = np.full((100, 100, 3), 255, np.uint8)
        # The window is 205.1 px wide and reaches from (-102.6, -114.6) to (102.6, 90.6).
        fan.refine(
            white,
            [np.array([-50, -50, 50, 50], np.float32), np.array([900, 900, 950, 950], np.float32)],
        )
        black = seen[0].max(axis=-1) == 0
        assert black[:, :127].all()
        assert black[:142].all()
        assert not black[146:, 130:250].any()
        assert black[:, 254:].all()
        assert seen[1].max() == 0
