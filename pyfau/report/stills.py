"""Stills: for each face and AU the crop of the frame with the highest score."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pyfau.limits import LIMITS, Limits
from pyfau.media.readers import read_frames
from pyfau.messages import printable, progress_bar
from pyfau.types import StrPath

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.types import UInt8Array


@dataclass(frozen=True)
class Still:
    """A crop of one frame.

    Attributes:
        uri: A JPEG image as data URI.
        name: Name of the frame; see `row_names`.
        time_s: Its time in seconds; NaN without one.
        score: Of the AU, in [0, 1].
        active: Whether the score is at or above the threshold.
    """

    uri: str
    name: str
    time_s: float
    score: float
    active: bool


_BOX = ["x1", "y1", "x2", "y2"]
_SURE = 0.9  # confidence of a good frame; where the face's median is lower, that
_MARGIN = 0.3  # added on each side, in widths and heights of the face box
_SIDE = 176  # the most pixels of a still


def best_rows(rows: pd.DataFrame, aus: tuple[str, ...]) -> dict[str, Any]:
    """For each AU, the label of the row with its highest score among the rows with good confidence.

    Args:
        rows: One face's rows of `AUResult.to_dataframe`.
        aus: The columns of the scores.
    """
    confidence = rows["confidence"]
    good = rows[(confidence >= min(_SURE, confidence.median())) & rows[_BOX].notna().all(axis=1)]
    return {au: good[au].idxmax() for au in aus if good[au].notna().any()}


def take_stills(
    source: StrPath,
    faces: Mapping[int, pd.DataFrame],
    aus: tuple[str, ...],
    progress: bool,
    limits: Limits = LIMITS,
) -> tuple[dict[tuple[int, str], Still], list[str]]:
    """Cut the best stills out of a video or a folder of images.

    The video is read from its start, because frame numbers are uncertain after a seek.

    Args:
        source: Path of the scored input.
        faces: The rows of each face, with a column `name`.
        aus: The columns of the scores.
        progress: Whether to show a bar.
        limits: Larger images and videos are refused.

    Returns:
        The stills by face and AU; and the problems, in words.

    Raises:
        MediaError: The source cannot be read.
    """
    wanted: dict[int, list[tuple[int, str, pd.Series[Any]]]] = defaultdict(list)
    for face_id, rows in faces.items():
        for au, label in best_rows(rows, aus).items():
            row = rows.loc[label]
            wanted[int(row["frame"])].append((face_id, au, row))
    last = max(wanted, default=-1)
    stills: dict[tuple[int, str], Still] = {}
    reader = read_frames(source, limits=limits)
    bar = progress_bar(
        total=last + 1, unit="frame", desc=printable(Path(source).name), disable=not progress
    )
    with reader, bar:
        for frame in reader:
            if frame.index > last:
                break
            for face_id, au, row in wanted.pop(frame.index, ()):
                uri = _cut_out(frame.rgb, *(float(row[name]) for name in _BOX))
                if uri is not None:
                    found = (
                        str(row["name"]),
                        float(row["time_s"]),
                        float(row[au]),
                        bool(row[f"{au}_c"]),
                    )
                    stills[face_id, au] = Still(uri, *found)
            bar.update()
    if not wanted:
        return stills, []
    ended = f"{Path(source).name} ends before frame {max(wanted)} of the table"
    return stills, [f"{ended}: is it the video that was scored?"]


def _cut_out(rgb: UInt8Array, x1: float, y1: float, x2: float, y2: float) -> str | None:
    """The face with a margin as a data URI; None if the box is outside the image."""
    height, width = rgb.shape[:2]
    dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    left, top = max(0, int(x1 - dx)), max(0, int(y1 - dy))
    right, bottom = min(width, int(x2 + dx) + 1), min(height, int(y2 + dy) + 1)
    if right <= left or bottom <= top:
        return None
    image = Image.fromarray(rgb[top:bottom, left:right])
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
