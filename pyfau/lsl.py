"""Lab Streaming Layer (LSL): rows go out as samples, and codes of stimuli come in.

LSL joins the streams of a laboratory by their time stamps. Needs `pyfau[lsl]`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pyfau.errors import DependencyError, OptionError, PyfauError
from pyfau.types import AURow
from pyfau.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

    from pyfau.pipeline import AUStream

_POSE = ("pitch", "yaw", "roll")
_WAIT_S = 5.0  # longest search for a stream of markers


class Channel(NamedTuple):
    """One channel of the stream.

    Attributes:
        label: Such as "AU12".
        unit: Such as "probability".
    """

    label: str
    unit: str


class Marker(NamedTuple):
    """A code of a stimulus that arrived.

    Attributes:
        came_s: Its time stamp by `time.monotonic` of this machine.
        code: Its text.
    """

    came_s: float
    code: str


class LSLOutlet:
    """Sends rows as samples of one LSL stream: a context manager.

    A sample is one face in one frame, or a frame without a face, whose values are NaN. Its time
    stamp is the capture time of the frame. Several faces in a frame are several samples with the
    same time stamp. The rate is irregular, because cameras drop frames.

    Args:
        name: Name of the stream. Its type is "AU".
        aus: The column names of the scores.
        intensity: Whether rows have intensities, sent as "AU12_r".
        pose: Whether rows have head pose, sent as "pitch", "yaw" and "roll".
        source_id: Identifies this source, so that a recording continues after a restart.

    Attributes:
        channels: The channels, in order: face_id, confidence, pose, scores, intensities.

    Raises:
        OptionError: The name is empty.
        DependencyError: pylsl or its library is not installed.
    """

    def __init__(
        self,
        name: str,
        aus: Sequence[str],
        *,
        intensity: bool = False,
        pose: bool = False,
        source_id: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise OptionError(f"the name of an LSL stream must be text, got {name!r}")
        self._lsl = _import_pylsl()
        self._pose, self._intensity = pose, intensity
        self.channels = [Channel("face_id", "number"), Channel("confidence", "probability")]
        self.channels += [Channel(label, "degrees") for label in _POSE if pose]
        self.channels += [Channel(au, "probability") for au in aus]
        self.channels += [Channel(f"{au}_r", "FACS intensity 0 to 5") for au in aus if intensity]
        info = self._lsl.StreamInfo(
            name,
            "AU",
            len(self.channels),
            self._lsl.IRREGULAR_RATE,
            self._lsl.cf_float32,
            source_id or f"pyfau-{name}",
        )
        described = info.desc().append_child("channels")
        for label, unit in self.channels:
            one = described.append_child("channel")
            one.append_child_value("label", label).append_child_value("unit", unit)
            one.append_child_value("type", "AU" if label.startswith("AU") else "face")
        info.desc().append_child_value("manufacturer", f"pyfau {__version__}")
        self._outlet: Any = self._lsl.StreamOutlet(info)

    def push(self, rows: Sequence[AURow], came_s: float | None = None) -> None:
        """Send rows.

        Args:
            rows: Rows of one frame.
            came_s: Capture time of the frame by `time.monotonic`; None for now.
        """
        if self._outlet is None:
            raise OptionError("cannot send: the LSL stream is closed")
        now = time.monotonic()
        stamp = self._lsl.local_clock() + ((now if came_s is None else came_s) - now)
        for row in rows:
            self._outlet.push_sample(self._sample(row), stamp)

    def close(self) -> None:
        """End the stream. Calling it again does nothing."""
        self._outlet = None  # pylsl ends a stream when its outlet is deleted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _sample(self, row: AURow) -> list[float]:
        values = [math.nan if row.face_id is None else float(row.face_id), row.confidence]
        if self._pose:
            measures = row.measures
            values += [math.nan if measures is None else getattr(measures, one) for one in _POSE]
        values += row.scores.tolist()
        if self._intensity:
            grades = row.intensity
            values += [math.nan] * len(row.aus) if grades is None else grades.tolist()
        return values


class LSLStream:
    """An `AUStream` whose rows also go to an LSL stream, each with the capture time of its frame.

    With the default latency of 7 frames, rows come later than their frames; their time stamps are
    still those of the frames.

    Args:
        stream: As of `AUDetector.stream`.
        outlet: Takes the rows.
    """

    def __init__(self, stream: AUStream, outlet: LSLOutlet) -> None:
        self._stream, self._outlet = stream, outlet
        self._came: dict[int, float] = {}
        self._count = 0

    def push(
        self, frame: Any, time_s: float | None = None, came_s: float | None = None
    ) -> list[AURow]:
        """Take the next frame; see `AUStream.push`.

        Args:
            frame: The frame.
            time_s: Its time in the recording.
            came_s: Its capture time by `time.monotonic`; None for now.
        """
        came = time.monotonic() if came_s is None else came_s
        rows = self._stream.push(frame, time_s)
        self._came[self._count] = came
        self._count += 1
        return self._send(rows)

    def flush(self) -> list[AURow]:
        """End all tracks and send the rows that were not final yet; see `AUStream.flush`."""
        return self._send(self._stream.flush())

    def _send(self, rows: list[AURow]) -> list[AURow]:
        for row in rows:
            self._outlet.push([row], self._came.get(row.frame))
        if rows:
            last = max(row.frame for row in rows)
            self._came = {frame: came for frame, came in self._came.items() if frame >= last}
        return rows


class MarkerInlet:
    """Receives the codes of stimuli from an LSL stream: a context manager.

    Args:
        name: Name of the stream. Numbers are turned into text.
        wait_s: Longest search for the stream, in seconds.

    Raises:
        PyfauError: There is no such stream.
        DependencyError: pylsl or its library is not installed.
    """

    def __init__(self, name: str, wait_s: float = _WAIT_S) -> None:
        self._lsl = _import_pylsl()
        found = self._lsl.resolve_byprop("name", name, 1, wait_s)
        if not found:
            raise PyfauError(f"no LSL stream has the name {name!r}: searched for {wait_s:g} s")
        self._inlet = self._lsl.StreamInlet(found[0], recover=True)
        self._inlet.open_stream(wait_s)
        self._shift = self._inlet.time_correction(wait_s)

    def pull(self) -> list[Marker]:
        """The codes that arrived since the last call."""
        samples, stamps = self._inlet.pull_chunk(0.0)
        offset = time.monotonic() - self._lsl.local_clock() + self._shift
        return [
            Marker(stamp + offset, str(sample[0]))
            for sample, stamp in zip(samples, stamps, strict=True)
        ]

    def close(self) -> None:
        """End the reception."""
        self._inlet.close_stream()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _import_pylsl() -> Any:
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:  # without its library, RuntimeError
        first = (str(error).splitlines() or [""])[0]
        raise DependencyError(
            f"Lab Streaming Layer needs the package pylsl: pip install 'pyfau[lsl]' ({first})"
        ) from None
    return pylsl
