"""Augmentation for the landmark network: views of cached crops as a tracker sees them."""

from __future__ import annotations

import cv2
import numpy as np
from mesh_data import CACHED, CENTRE, MIRROR, SIDE, ZOOM

TENTH = SIDE / 10
NEGATIVE = 0.1  # share of views without a face
# Kinds of views: share, standard deviation of shift (pixels), log scale and roll (degrees).
TRACKING = (0.62, 2.5, 0.06, 6.0)
FAST = (0.18, 6.0, 0.15, 18.0)
DRIFTED = (0.06, 34.0, 0.15, 18.0)  # the distance of the shift is uniform, from 15 pixels
START = (0.14, 5.0, 0.15, 180.0)  # the roll is uniform
LEAST_DRIFT = 15.0
WAY_SHARES = (TRACKING[0], FAST[0], DRIFTED[0], START[0])
# Faces whose nose is this close to an eye's outer corner, as a share of the distance between the
# outer corners, are turned far to the side. They are rare, and drawn more often.
FAR_TURNED, FAR_TURNED_WEIGHT = 0.2, 3.0
MOST_ROLL = 50.0  # with more roll, the points do not count in the loss


def similarity(roll: float, scale: float, shift: np.ndarray) -> np.ndarray:
    """(2, 3) map from a cached crop to a view: turned clockwise, scaled, shifted."""
    cos, sin = np.cos(np.radians(roll)) * scale, np.sin(np.radians(roll)) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array([CENTRE, CENTRE]) + shift - linear @ np.array([CACHED / 2, CACHED / 2]) / ZOOM
    return np.concatenate([linear / ZOOM, offset[:, None]], axis=1)


def cut(crop: np.ndarray, matrix: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """The view (SIDE, SIDE, 3) of a cached crop. Coordinates are continuous."""
    inner = matrix.copy()
    inner[:, 2] += inner[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(crop, inner, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=border)


def far_turned(points: np.ndarray) -> np.ndarray:
    """(N,) bool: whether each face (N, 68 or more, 2) is turned far to the left or right."""
    left, right, nose = points[:, 36], points[:, 45], points[:, 30]
    across = right - left
    place = ((nose - left) * across).sum(axis=1) / np.maximum((across**2).sum(axis=1), 1e-6)
    return np.minimum(place, 1 - place) < FAR_TURNED


class Augment:
    """Makes batches of views.

    Args:
        crops: (N, CACHED, CACHED, 3) uint8.
        columns: `points`, `corners`, `openness` and `kinds` of training/mesh_data.py.
        mean: (70, 2) the mean face in pixels of the input.
        seed: Of the random numbers.
    """

    def __init__(self, crops: np.ndarray, columns: dict, mean: np.ndarray, seed: int) -> None:
        self.crops, self.mean = crops, mean
        self.points = columns["points"]
        self.corners = columns["corners"]
        self.openness = columns["openness"]
        self.random = np.random.default_rng(seed)
        kinds = columns["kinds"]
        weights = np.select([kinds == "face", kinds == "clip"], [1.0, 2.0], 0.6)
        weights = weights * np.where(far_turned(self.points), FAR_TURNED_WEIGHT, 1.0)
        self.share = np.cumsum(weights / weights.sum())

    def batch(self, size: int) -> dict[str, np.ndarray]:
        """Views (size, SIDE, SIDE, 3) uint8 and their targets."""
        views = [self.view() for _ in range(size)]
        return {key: np.stack([view[key] for view in views]) for key in views[0]}

    def view(self) -> dict[str, np.ndarray]:
        """Make one view (SIDE, SIDE, 3) uint8 and its targets."""
        rng = self.random
        i = int(np.searchsorted(self.share, rng.random()))
        i = min(i, len(self.points) - 1)
        if rng.random() < NEGATIVE:
            return self._negative(i)
        way = (TRACKING, FAST, DRIFTED, START)[int(rng.choice(4, p=WAY_SHARES))]
        _, shift, spread, angle = way
        roll = rng.uniform(-angle, angle) if way is START else rng.normal(0, angle)
        scale = float(np.exp(np.clip(rng.normal(0, spread), -0.4, 0.35)))
        if way is DRIFTED:
            direction = rng.uniform(0, 2 * np.pi)
            length = rng.uniform(LEAST_DRIFT, shift)
            move = length * np.array([np.cos(direction), np.sin(direction)])
        else:
            move = np.clip(rng.normal(0, shift, 2), -18, 18)
        matrix = similarity(roll, scale, move)
        view = self._cut(i, matrix)
        points = self.points[i] @ matrix[:, :2].T + matrix[:, 2]
        openness = self.openness[i]
        centre = np.array([CENTRE, CENTRE]) + move
        if rng.random() < 0.5:
            view = view[:, ::-1].copy()
            points = points[MIRROR] * (-1, 1) + (SIDE, 0)
            openness = openness[::-1]
            centre[0] = SIDE - centre[0]
            roll = -roll
        inside = ((points > 0) & (points < SIDE)).all(1)
        view, seen = self._border(view, points)
        view, free = self._occlude(view, points)
        seen = seen & inside & free
        view = self._light(view)
        view = self._degrade(view)
        off = abs((roll + 180) % 360 - 180)
        near = float(np.clip((MOST_ROLL - off) / 10, 0, 1))
        weight = near * np.where(seen, 1.0, 0.4)
        radians = np.radians(roll)
        frame = [np.cos(radians) * scale, np.sin(radians) * scale, *((centre - CENTRE) / CENTRE)]
        return {
            "views": view,
            "points": ((points - self.mean) / TENTH).astype(np.float32),
            "weight": weight.astype(np.float32),
            "openness": openness.astype(np.float32),
            "frame": np.array(frame, np.float32),
            "presence": np.float32(1 if seen[:68].mean() > 0.25 else 0.5),
            "visible": np.float32(seen[:68].mean()),
        }

    def _cut(self, i: int, matrix: np.ndarray) -> np.ndarray:
        """The view. Outside the image, it shows replicated edges, black, or another scene."""
        rng = self.random
        crop = self.crops[i]
        style = rng.random()
        border = cv2.BORDER_REPLICATE if style < 0.8 else cv2.BORDER_CONSTANT
        view = cut(crop, matrix, border)
        if rng.random() < 0.5:
            corners = self.corners[i] @ matrix[:, :2].T + matrix[:, 2]
            corners = np.clip(corners, -2000, 2000)
            outside = np.ones((SIDE, SIDE), np.uint8)
            cv2.fillConvexPoly(outside, np.round(corners).astype(np.int32), 0)
            if outside.any():
                scene = self._scene() if style < 0.7 else np.zeros_like(view)
                view = np.where(outside[..., None] > 0, scene, view)
        return view

    def _scene(self) -> np.ndarray:
        """A patch of another image, which is hardly recognisable, or coloured noise."""
        rng = self.random
        if rng.random() < 0.3:
            size = int(rng.integers(2, 24))
            low = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            return cv2.resize(low, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        crop = self.crops[int(rng.integers(len(self.crops)))]
        side = int(rng.integers(16, 50))
        # The edges of the cached crops show hair, clothes and the scene.
        x, y = (int(v) for v in rng.integers(0, CACHED - side, 2))
        if rng.random() < 0.7:
            x = 0 if rng.random() < 0.5 else CACHED - side
        patch = crop[y : y + side, x : x + side]
        return cv2.resize(patch, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    def _negative(self, i: int) -> dict[str, np.ndarray]:
        rng = self.random
        if rng.random() < 0.45:
            view = self._scene()
        else:
            # The face is far from the middle of the crop, much too large or much too small.
            angle = rng.uniform(0, 2 * np.pi)
            far = rng.random()
            scale, length = float(np.exp(rng.normal(0, 0.2))), rng.uniform(48, 70)
            if far < 0.25:
                scale, length = rng.uniform(2.8, 6.0), rng.uniform(0, 60)
            elif far < 0.35:
                scale, length = rng.uniform(0.12, 0.25), rng.uniform(0, 20)
            shift = np.array([np.cos(angle), np.sin(angle)]) * length
            view = cut(self.crops[i], similarity(rng.uniform(-180, 180), scale, shift))
        view = self._degrade(self._light(view))
        return {
            "views": view,
            "points": np.zeros((70, 2), np.float32),
            "weight": np.zeros(70, np.float32),
            "openness": np.full(2, np.nan, np.float32),
            "frame": np.full(4, np.nan, np.float32),
            "presence": np.float32(0),
            "visible": np.float32(0),
        }

    def _border(self, view: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hide one side, as at the edge of an image."""
        rng = self.random
        seen = np.ones(len(points), bool)
        if rng.random() > 0.12:
            return view, seen
        depth = int(rng.integers(4, 38))
        turn = int(rng.integers(4))
        turned = np.ascontiguousarray(np.rot90(view, turn))
        black = rng.random() < 0.3
        turned[:depth] = 0 if black else turned[depth]
        view = np.ascontiguousarray(np.rot90(turned, -turn))
        x, y = points[:, 0], points[:, 1]
        # After `turn` quarter turns counter-clockwise the cut side is at the top.
        distance = (y, SIDE - x, SIDE - y, x)[turn]
        return view, distance > depth

    def _occlude(self, view: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = self.random
        hidden = np.zeros((SIDE, SIDE), np.uint8)
        if rng.random() < 0.06:
            self._mask(hidden, points)
        if rng.random() < 0.25:
            self._blob(hidden)
        if not hidden.any():
            return view, np.ones(len(points), bool)
        if rng.random() < 0.5:
            colour = rng.integers(0, 256, 3)
            paint = np.broadcast_to(colour.astype(np.uint8), view.shape)
        elif rng.random() < 0.5:
            # The colour of the skin of this face, as a hand has.
            nose = np.clip(points[29].astype(int), 0, SIDE - 1)
            skin = view[nose[1], nose[0]].astype(float) * rng.uniform(0.6, 1.2)
            noise = cv2.resize(rng.normal(0, 18, (6, 6)), (SIDE, SIDE))
            paint = np.clip(skin + noise[..., None], 0, 255).astype(np.uint8)
        else:
            paint = self._scene()
        soft = cv2.blur(hidden * 255, (3, 3))[..., None].astype(np.float32) / 255
        view = (view * (1 - soft) + paint * soft).astype(np.uint8)
        x, y = np.clip(points.astype(int), 0, SIDE - 1).T
        return view, hidden[y, x] == 0

    def _mask(self, hidden: np.ndarray, points: np.ndarray) -> None:
        """A mask over mouth and nose."""
        top = points[28 + int(self.random.integers(3))]
        outline = np.concatenate([points[1:16], top[None]])
        cv2.fillPoly(hidden, [np.round(outline).astype(np.int32)], 1)

    def _blob(self, hidden: np.ndarray) -> None:
        """Rectangles and ellipses, also long ones such as fingers and hair."""
        rng = self.random
        for _ in range(int(rng.integers(1, 4))):
            x, y = (int(v) for v in rng.integers(0, SIDE, 2))
            axes = [int(v) for v in rng.integers(3, 22, 2)]
            if rng.random() < 0.4:
                cv2.rectangle(hidden, (x, y), (x + 2 * axes[0], y + 2 * axes[1]), 1, -1)
            else:
                cv2.ellipse(hidden, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)

    def _light(self, view: np.ndarray) -> np.ndarray:
        rng = self.random
        if rng.random() < 0.15:
            grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
            view = np.repeat(grey[..., None], 3, axis=2)
        values = np.arange(256) / 255
        gamma = np.exp(rng.normal(0, 0.3))
        gain, bias = np.exp(rng.normal(0, 0.25)), rng.normal(0, 0.06)
        tint = np.exp(rng.normal(0, 0.08, 3)) if rng.random() < 0.5 else np.ones(3)
        if rng.random() < 0.04:
            gain *= rng.uniform(0.05, 0.3)
        curves = (gain * values**gamma + bias)[:, None] * tint
        table = np.clip(curves * 255, 0, 255).astype(np.uint8)
        view = cv2.LUT(view, table[:, None])
        if rng.random() < 0.15:  # light from one side
            slope = np.linspace(rng.uniform(0.3, 1), 1, SIDE, dtype=np.float32)
            slope = slope if rng.random() < 0.5 else slope[::-1]
            view = (view * slope[None, :, None]).astype(np.uint8)
        return view

    def _degrade(self, view: np.ndarray) -> np.ndarray:
        rng = self.random
        if rng.random() < 0.25:
            small = int(rng.uniform(26, 72))  # the face then has 16 to 45 px
            method = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
            low = cv2.resize(view, (small, small), interpolation=method)
            view = cv2.resize(low, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        elif rng.random() < 0.12:
            length = int(rng.integers(3, 8))
            kernel = (length, 1) if rng.random() < 0.5 else (1, length)
            view = cv2.blur(view, kernel)
        if rng.random() < 0.12:
            noise = np.empty(view.shape, np.int16)
            cv2.randn(noise, 0, float(rng.uniform(2, 14)))
            view = np.clip(view + noise, 0, 255).astype(np.uint8)
        if rng.random() < 0.1:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))]
            view = cv2.imdecode(cv2.imencode(".jpg", view, quality)[1], cv2.IMREAD_COLOR)
        return view
