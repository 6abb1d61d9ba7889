"""From features of frames to scores: the ways to divide a track into windows.

All padding is done here.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, get_args

import numpy as np
import torch

from pyfau.choices import WindowName
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures
from pyfau.models.stream import RelateStream
from pyfau.types import FloatArray

CLIP_LENGTH = 16
Key = TypeVar("Key")

# The key that the caller gave to a frame of the track, and the N scores of the frame.
Scored = list[tuple[Key, FloatArray]]


class Window(Protocol[Key]):
    """The frames of one track that are still needed."""

    def push(self, features: Any, keys: Sequence[Key]) -> Scored[Key]:
        """Add consecutive frames.

        Args:
            features: Output of the network's `encode` for F frames.
            keys: F keys, which are returned with the scores.

        Returns:
            The frames whose scores are now final, in order. Each key is returned once, here or by
            `finish`.
        """
        ...

    def bridge(self, count: int) -> Scored[Key]:
        """Fill `count` frames without the face with the last features. They get no scores."""
        ...

    def finish(self) -> Scored[Key]:
        """End the track and score the remaining frames. Then the window can take a new track."""
        ...


class ContinuousWindow(Generic[Key]):
    """The track as one long window. Only its newest part is in memory.

    A score is final after 7 more frames. Before the first frame and after the last one, the
    features of that frame are repeated. So every frame has 7 frames on both sides.
    """

    def __init__(self, model: MDHR) -> None:
        self._stream = RelateStream(model)
        self._last: FrameFeatures | None = None
        # Of the frames not scored yet; None for filled ones.
        self._keys: deque[Key | None] = deque()

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
    """As `ContinuousWindow`, but without a delay of 7 frames.

    The newest frame takes the place of the 7 frames that follow it. Its scores are those of a track
    that ends with this frame.
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
            self._last = FrameFeatures.cat([features[i : i + 1]])  # a copy, as above
            self._stream.push(self._last)
            # Only the copy of the stream gets the newest frame 7 times more.
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
    """The paper's protocol: clips of 16 frames that do not overlap.

    The last clip is filled with copies of its last frame.
    """

    def __init__(self, model: MDHR) -> None:
        self._model = model
        self._parts: list[FrameFeatures] = []
        self._keys: list[Key | None] = []

    def push(self, features: FrameFeatures, keys: Sequence[Key]) -> Scored[Key]:
        """See `Window.push`."""
        return self._add(features, keys)

    def bridge(self, count: int) -> Scored[Key]:
        """See `Window.bridge`.

        Only a clip that has begun is filled. The next clip begins when the face returns.
        """
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


class FrameWindow(Generic[Key]):
    """For a network that scores single frames: every frame is final at once.

    The features of a frame are its outputs.
    """

    def push(self, features: torch.Tensor, keys: Sequence[Key]) -> Scored[Key]:
        """See `Window.push`; the features are (F, N) outputs."""
        return _report(keys, features)

    def bridge(self, count: int) -> Scored[Key]:
        """See `Window.bridge`: no score depends on the frames between."""
        return []

    def finish(self) -> Scored[Key]:
        """See `Window.finish`: all frames are scored."""
        return []


WINDOW_NAMES: tuple[WindowName, ...] = get_args(WindowName)


def make_window(name: str, model: MDHR | FrameNetwork) -> Window[Key]:
    """A window for a new track: one of `WINDOW_NAMES`, or "prompt" (continuous, no delay)."""
    if isinstance(model, FrameNetwork):
        return FrameWindow()
    kinds: dict[str, Callable[[MDHR], Window[Key]]] = {"clips": ClipWindow, "prompt": PromptWindow}
    return kinds.get(name, ContinuousWindow)(model)


def _repeat(frame: FrameFeatures, count: int) -> FrameFeatures:
    return FrameFeatures(
        frame.static.expand(count, *frame.static.shape[1:]),
        frame.dynamic.expand(count, *frame.dynamic.shape[1:]),
    )


def _report(keys: Sequence[Key | None], scores: torch.Tensor) -> Scored[Key]:
    rows = scores.float().cpu().numpy().astype(np.float32, copy=False)
    return [(key, row) for key, row in zip(keys, rows, strict=True) if key is not None]
