"""From features of frames to scores: the two ways to lay windows over a track. Padding lives here and nowhere else."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures
from pyfau.models.stream import RelateStream
from pyfau.types import FloatArray

CLIP_LENGTH = 16
Key = TypeVar("Key")
# A frame of the track, by whatever the caller calls it, and its N scores.
Scored = list[tuple[Key, FloatArray]]


class Window(Protocol[Key]):
    """The frames of one track that still matter."""

    def push(self, features: FrameFeatures, keys: Sequence[Key]) -> Scored[Key]:
        """Add consecutive frames.

        Args:
            features: Features of F frames.
            keys: F names, given back with the scores.

        Returns:
            The frames that became final, in order. Each key comes back once, from here or from `finish`.
        """
        ...

    def bridge(self, count: int) -> Scored[Key]:
        """Fill frames in which the face was not seen with the last features; they are not reported."""
        ...

    def finish(self) -> Scored[Key]:
        """End the track: score what is left. The window can be used for a new track afterwards."""
        ...


class ContinuousWindow(Generic[Key]):
    """The track as one long window, of which only a sliding part is held.

    A score is final when 7 more frames have come. Before the first and after the last frame their features are
    repeated, so that every frame is scored as an inner frame.
    """

    def __init__(self, model: MDHR) -> None:
        self._stream = RelateStream(model)
        self._last: FrameFeatures | None = None
        self._keys: deque[Key | None] = deque()  # of the frames not scored yet; None for filled ones

    def push(self, features: FrameFeatures, keys: Sequence[Key]) -> Scored[Key]:
        """See `Window.push`."""
        if not len(keys):
            return []
        if self._last is None:
            features = FrameFeatures.cat([_repeat(features[:1], CONTEXT), features])
        self._keys.extend(keys)
        return self._advance(features)

    def bridge(self, count: int) -> Scored[Key]:
        """See `Window.bridge`."""
        if self._last is None or count <= 0:
            return []
        self._keys.extend([None] * count)
        return self._advance(_repeat(self._last, count))

    def finish(self) -> Scored[Key]:
        """See `Window.finish`."""
        if self._last is None:
            return []
        scored = self._advance(_repeat(self._last, CONTEXT))
        self._stream, self._last = RelateStream(self._stream.model), None
        return scored

    def _advance(self, features: FrameFeatures) -> Scored[Key]:
        self._last = FrameFeatures.cat([features[-1:]])  # a copy, so that the others are freed
        scores = self._stream.push(features)
        return _report([self._keys.popleft() for _ in range(len(scores))], scores)


class PromptWindow(Generic[Key]):
    """As `ContinuousWindow`, but every frame is scored at once, from the frames so far: the newest stands in for the
    7 that are to come. Its scores are those that the frame would have if the track ended with it.
    """

    def __init__(self, model: MDHR) -> None:
        self._stream = RelateStream(model)
        self._last: FrameFeatures | None = None

    def push(self, features: FrameFeatures, keys: Sequence[Key]) -> Scored[Key]:
        """See `Window.push`."""
        if self._last is None and len(keys):
            self._stream.push(_repeat(features[:1], CONTEXT))
        scored: Scored[Key] = []
        for i, key in enumerate(keys):
            self._last = FrameFeatures.cat([features[i : i + 1]])
            self._stream.push(self._last)
            ahead = copy.copy(self._stream).push(_repeat(self._last, CONTEXT))
            scored += _report([key], ahead[-1:])
        return scored

    def bridge(self, count: int) -> Scored[Key]:
        """See `Window.bridge`."""
        if self._last is not None and count > 0:
            self._stream.push(_repeat(self._last, count))
        return []

    def finish(self) -> Scored[Key]:
        """See `Window.finish`: nothing is left to score."""
        self._stream, self._last = RelateStream(self._stream.model), None
        return []


class ClipWindow(Generic[Key]):
    """The paper's protocol: clips of 16 frames, not overlapping, the last one filled by repeating its last frame."""

    def __init__(self, model: MDHR) -> None:
        self._model = model
        self._parts: list[FrameFeatures] = []
        self._keys: list[Key | None] = []

    def push(self, features: FrameFeatures, keys: Sequence[Key]) -> Scored[Key]:
        """See `Window.push`."""
        return self._add(features, keys)

    def bridge(self, count: int) -> Scored[Key]:
        """See `Window.bridge`. Only a begun clip is filled; the next one begins when the face is back."""
        if not self._parts:
            return []
        count = min(count, CLIP_LENGTH - len(self._keys))
        return self._add(_repeat(self._parts[-1][-1:], count), [None] * count)

    def finish(self) -> Scored[Key]:
        """See `Window.finish`."""
        return self.bridge(CLIP_LENGTH)

    def _add(self, features: FrameFeatures, keys: Sequence[Key | None]) -> Scored[Key]:
        scored: Scored[Key] = []
        taken = 0
        while taken < len(keys):
            room = CLIP_LENGTH - len(self._keys)
            self._parts.append(features[taken : taken + room])
            self._keys.extend(keys[taken : taken + room])
            taken += room
            if len(self._keys) == CLIP_LENGTH:
                clip = FrameFeatures.cat(self._parts).unflatten(1, CLIP_LENGTH)
                scored += _report(self._keys, self._model.relate(clip)[0])
                self._parts, self._keys = [], []
        return scored


WINDOW_NAMES = ("continuous", "clips")


def make_window(name: str, model: MDHR) -> Window[Key]:
    """A window for a new track, by one of `WINDOW_NAMES` or "prompt" (continuous, without waiting)."""
    kinds: dict[str, Callable[[MDHR], Window[Key]]] = {"clips": ClipWindow, "prompt": PromptWindow}
    return kinds.get(name, ContinuousWindow)(model)


def _repeat(frame: FrameFeatures, count: int) -> FrameFeatures:
    return FrameFeatures(
        frame.static.expand(count, *frame.static.shape[1:]), frame.dynamic.expand(count, *frame.dynamic.shape[1:])
    )


def _report(keys: Sequence[Key | None], scores: torch.Tensor) -> Scored[Key]:
    rows = scores.float().cpu().numpy().astype(np.float32, copy=False)
    return [(key, row) for key, row in zip(keys, rows, strict=True) if key is not None]
