"""The scores of one face on a regular grid of times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyfau.analysis.events import frame_interval, scored_rows
from pyfau.errors import InputError, OptionError

if TYPE_CHECKING:
    from pyfau.tables.rows import AURows

Array = npt.NDArray[np.float64]
_LONGEST_BRIDGE = 2.5  # frames: a longer gap between two scored frames is not bridged
_EXACT = 0.01  # frames: a time that is closer to a frame than this counts as the time of the frame


def chosen_aus(result: AURows, aus: Sequence[str] | None) -> tuple[str, ...]:
    """The action units to use; all if None.

    Raises:
        OptionError: The result has no scores of one of them.
    """
    if aus is None:
        return result.aus
    if isinstance(aus, str) or not aus:
        raise OptionError(f"aus must be a list of action units, got {aus!r}")
    for au in aus:
        if au not in result.aus:
            raise OptionError(f"{au!r} is not one of {', '.join(result.aus)}")
    return tuple(aus)


class FaceSeries:
    """The scores of one face over time.

    Args:
        result: The rows of a sequence with times.
        aus: The action units; None for all.
        face_id: The face; None for the face in most frames.

    Attributes:
        aus: The N action units.
        face_id: The face.
        times: (R,) float64, seconds, ascending.
        scores: (R, N) float64.
        step_s: Seconds per frame.

    Raises:
        InputError: There is no scored face, or there are no times.
        OptionError: There is no such face or action unit.
    """

    def __init__(
        self, result: AURows, aus: Sequence[str] | None = None, face_id: int | None = None
    ) -> None:
        self.aus = chosen_aus(result, aus)
        table = scored_rows(result)
        faces, counts = np.unique(table["face_id"].to_numpy(np.int64), return_counts=True)
        if not len(faces):
            raise InputError("there is no scored face")
        self.face_id = int(faces[counts.argmax()]) if face_id is None else face_id
        if self.face_id not in faces.tolist():
            raise OptionError(f"face_id must be one of {', '.join(map(str, faces))}, got {face_id}")
        own = table[table["face_id"] == self.face_id]
        times = own["time_s"].to_numpy(np.float64)
        self.step_s = frame_interval(own, result.metadata.get("fps"))
        if not np.isfinite(times).all() or not math.isfinite(self.step_s) or self.step_s <= 0:
            raise InputError("the rows have no times: score images with fps")
        order = np.argsort(times, kind="stable")
        self.times = times[order]
        self.scores = own[list(self.aus)].to_numpy(np.float64)[order]

    def at(self, times: Array) -> Array:
        """The scores at (T,) times, (T, N): linear between frames, NaN where the face is missing.

        Single missing frames are bridged; longer gaps are not.
        """
        values = np.full((len(times), len(self.aus)), np.nan)
        known = np.isfinite(self.scores)
        for number, column in enumerate(known.T):
            # A frame without a score of this action unit counts as a missing frame.
            values[:, number] = self._interpolated(
                times, self.times[column], self.scores[column, number]
            )
        return values

    def _interpolated(self, times: Array, own: Array, scores: Array) -> Array:
        """The scores (T,) at the times, from those at the (R,) times `own`."""
        if not len(own):
            return np.full(len(times), np.nan)
        after = np.searchsorted(own, times, side="left")
        right = np.clip(after, 0, len(own) - 1)
        left = np.clip(after - 1, 0, len(own) - 1)
        distance = np.minimum(abs(own[right] - times), abs(own[left] - times))
        exact = distance <= _EXACT * self.step_s
        gap = own[right] - own[left]
        # Half a frame before the first and after the last still shows them.
        edge = self.step_s / 2
        inside = (times >= own[0] - edge) & (times <= own[-1] + edge)
        known = exact | inside & (gap <= _LONGEST_BRIDGE * self.step_s)
        return np.where(known, np.interp(times, own, scores), np.nan)
