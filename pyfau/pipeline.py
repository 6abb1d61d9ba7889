"""From the frames of one sequence to rows: tracking, encoding and windows.

`score_frames` scores the frames of an iterable in two threads. `AUStream` scores frames that arrive
one by one.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pyfau.checks import is_number
from pyfau.cores import own_cores
from pyfau.errors import OptionError
from pyfau.faces.aligner import Aligner
from pyfau.faces.appearance import Appearance
from pyfau.faces.crop_rules import cut_face
from pyfau.faces.fitted_boxes import detector_to_fit
from pyfau.faces.halves import Halves
from pyfau.faces.measures import cut_view, measure_faces, trusted_confidence
from pyfau.faces.mesh import MeshCrop, MeshPoints
from pyfau.faces.people import People
from pyfau.faces.tracker import FaceTracker, TrackedFace, TrackerUpdate
from pyfau.intensity import expected_intensity
from pyfau.media.images import check_frame
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.layout import OutputLayout
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures
from pyfau.models.windows import Window, make_window
from pyfau.types import (
    NO_MEASURES,
    NO_MESH,
    AURow,
    FaceMeasures,
    FaceMesh,
    FloatArray,
    Frame,
    UInt8Array,
)

_NO_BOX = np.full(4, np.nan, np.float32)
_NO_BOX.flags.writeable = False
# Images that wait for their overlay, in each of two batches.
_MOST_HELD_BYTES = 128 << 20
_NO_IMAGE = np.empty((0, 0, 3), np.uint8)
_NO_LANDMARKS = np.full((5, 2), np.nan, np.float32)
_NO_LANDMARKS.flags.writeable = False


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """The network, the aligner and the options for a sequence; see `pyfau.AUDetector`.

    Attributes:
        model: The network, ready for inference.
        aligner: Finds the faces.
        aus: The N names of the scores.
        thresholds: (N,) float32; a score at or above its threshold is active.
        window: "continuous", "clips" or "prompt" (a continuous window that does not wait for later
            frames).
        batch_size: Frames or faces that are encoded together.
        detect_every: Frames between searches for new faces.
        max_faces: Largest number of faces to follow; None for all.
        max_gap: Largest number of frames that a face can be missing without losing its id.
        grade_offsets: For each AU the two constants of `pyfau.intensity.expected_intensity`; empty
            for rows without intensities.
        layout: Where scores and intensities are among the outputs of a network that scores single
            frames; None for MDHR.
        measures: Whether rows get measures of the face.
        reidentify: Whether a person who returns gets the old id.
        points: Locates 68 landmarks in faces whose aligner has none; None for rows without them.
    """

    model: MDHR | FrameNetwork
    aligner: Aligner
    aus: tuple[str, ...]
    thresholds: npt.NDArray[np.float32]
    window: str
    batch_size: int
    detect_every: int
    max_faces: int | None
    max_gap: int
    grade_offsets: tuple[tuple[float, float], ...] = ()
    layout: OutputLayout | None = None
    measures: bool = False
    reidentify: bool = False
    points: MeshPoints | None = None

    def with_latency(self, latency: int) -> PipelineOptions:
        """The same options with the window for a latency of 0 or 7 frames.

        Raises:
            OptionError: No window has this latency.
        """
        if latency not in (0, CONTEXT) or isinstance(latency, bool):
            raise OptionError(f"latency must be 0 or {CONTEXT} frames, got {latency!r}")
        if latency or not self.model.context:
            return self
        if self.window == "clips":
            raise OptionError(
                "latency 0 is for the continuous window; clips wait for their 16 frames"
            )
        return dataclasses.replace(self, window="prompt")


class AUStream:
    """Scores frames that arrive one by one. `AUDetector.stream` makes it.

    Rows come 7 frames late, or at once.
    """

    def __init__(self, options: PipelineOptions, fps: float | None) -> None:
        if fps is not None and not (is_number(fps) and 0 < fps < math.inf):
            raise OptionError(f"fps must be a positive number, got {fps!r}")
        self._options = options
        self._fps = fps
        self.reset()

    def push(self, frame: Any, time_s: float | None = None) -> list[AURow]:
        """Take the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB; grey, RGBA, 16-bit and float arrays in [0, 1] are
                converted.
            time_s: Time of the frame in seconds; by default computed from fps.

        Returns:
            The rows that became final, in order. They often belong to an earlier frame; the list
            is often empty.

        Raises:
            InputError: The frame is not an image. The stream continues without it.
        """
        rgb = check_frame(frame)
        if time_s is not None and not is_number(time_s):
            raise OptionError(f"time_s must be a number of seconds, got {time_s!r}")
        if time_s is None:
            time_s = self._count / self._fps if self._fps else math.nan
        with torch.inference_mode():
            self._pipeline.add(Frame(self._count, time_s, rgb))
            self._count += 1
            return _flat(self._pipeline.score())

    def flush(self) -> list[AURow]:
        """End all tracks and return the rows that are not final yet.

        The stream can continue afterwards, as after a cut.
        """
        with torch.inference_mode():
            return _flat(self._pipeline.finish())

    def reset(self) -> None:
        """Start again: the next frame is frame 0."""
        self._pipeline = Pipeline(self._options, keep=False, independent=False)
        self._count = 0


@torch.inference_mode()
def score_frames(
    frames: Iterable[Frame],
    options: PipelineOptions,
    *,
    keep: bool = False,
    independent: bool = False,
    batch_size: int | None = None,
) -> Generator[tuple[Frame, list[AURow]], None, None]:
    """Score the frames of one sequence.

    If the source or the aligner fails, the rows of the frames before are yielded first, and then
    the error is raised.

    Args:
        frames: The frames, in their order.
        options: The network, the aligner and the options.
        keep: Whether the yielded frames keep their images.
        independent: The frames are not a sequence.
        batch_size: Replaces the batch size of the options.

    Yields:
        Each frame with its final rows, in order.
    """
    pipeline = Pipeline(options, keep, independent)
    size = batch_size or options.batch_size
    error: Exception | None = None
    source = iter(frames)
    with ThreadPoolExecutor(1, "pyfau-score") as scorer:
        scoring: Future[_Scored] | None = None
        while True:
            try:
                frame = next(source, None)
                if frame is None:
                    break
                pipeline.add(frame)
            except Exception as failure:
                error = failure
                break
            if pipeline.waiting < size:
                continue
            done = scoring.result() if scoring else []
            if size > 1 and _gains_from_thread(options):
                scoring = scorer.submit(pipeline.score, pipeline.take())
            else:
                scoring = None
                done += pipeline.score()
            yield from done
        if scoring:
            yield from scoring.result()
    yield from pipeline.finish()
    if error is not None:
        raise error


def _gains_from_thread(options: PipelineOptions) -> bool:
    """Whether one thread should score a batch while another finds the faces of the next.

    OpenCV and torch release the interpreter lock. On a single core, the second thread only costs
    switches: a sixteenth of the time of a frame. With several jobs, the number of cores for this
    process grows when the other jobs end.
    """
    if options.model.device.type != "cpu":
        return True
    return own_cores() > 1


@dataclass(slots=True, eq=False)
class _Slot:
    """A face in a frame that waits for its scores."""

    tracked: TrackedFace
    scores: FloatArray | None = None
    measures: FaceMeasures | None = None
    mesh: FaceMesh | None = None


@dataclass(slots=True)
class _Open:
    """A frame whose rows are not final yet."""

    frame: Frame
    slots: list[_Slot]


@dataclass(slots=True)
class _Run:
    """Consecutive frames of one track that wait for `score`: faces, a gap, or the end.

    A track can begin again after its end, when a person returns.
    """

    slots: list[_Slot]
    crops: list[int]
    gap: int = 0
    ends: bool = False


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """A face that waits for its measures: its view, and width and height of its image."""

    slot: _Slot
    view: UInt8Array
    size: tuple[int, int]


@dataclass(slots=True)
class _Batch:
    """The frames and crops that wait for `score`."""

    opened: list[_Open] = field(default_factory=list)
    crops: list[UInt8Array] = field(default_factory=list)
    unmeasured: list[_Unmeasured] = field(default_factory=list)
    unlocated: list[tuple[_Slot, MeshCrop]] = field(default_factory=list)
    runs: dict[int, list[_Run]] = field(default_factory=dict)
    held_bytes: int = 0


_Scored = list[tuple[Frame, list[AURow]]]


class Pipeline:
    """Tracking, encoding and windows of one sequence.

    `add` finds the faces of a frame and keeps their crops (and the image, with `keep`). `score`
    encodes the waiting crops of all frames and faces at once, and returns the frames that became
    final. One thread can add frames while another scores a batch from `take`.
    """

    def __init__(self, options: PipelineOptions, keep: bool, independent: bool) -> None:
        self._options = options
        self._model = options.model
        crop = options.model.config.crop
        self._fit_box = detector_to_fit(crop.detector, options.aligner)
        self._keep = keep
        self._independent = independent
        self._tracker = FaceTracker(
            options.aligner, options.detect_every, options.max_faces, options.max_gap
        )
        self._windows: dict[int, Window[_Slot]] = {}
        self._open: deque[_Open] = deque()
        stable = getattr(options.aligner, "stable_crops", False)
        self._appearance = Appearance() if stable else None
        self._people = People(options.reidentify) if stable and not independent else None
        self._shape: tuple[int, ...] | None = None
        self._index: int | None = None  # of the last frame
        self._batch = _Batch()

    @property
    def waiting(self) -> float:
        """Size of the waiting batch: the larger number of frames and faces.

        It is infinite if the images that wait for an overlay take too much memory.
        """
        if self._batch.held_bytes > _MOST_HELD_BYTES:
            return math.inf
        return max(len(self._batch.opened), len(self._batch.crops))

    def add(self, frame: Frame) -> None:
        """Find the faces of the next frame."""
        if self._independent or (self._shape is not None and frame.image.shape != self._shape):
            # If the size of the images changes, the scene is another one.
            self._end(self._tracker.reset())
            if self._appearance is not None:
                self._appearance.reset()
        self._shape = frame.image.shape
        self._pass_hole(frame.index)
        image = Halves(frame.image)
        update = self._tracker.update(image)
        config = self._model.config
        crops = [
            cut_face(image, tracked.face, config.crop, config.input_size, self._fit_box)
            for tracked in update.faces
        ]
        self._separate_people(image, update, crops, frame.time_s)
        self._end(update.ended)
        for face_id in update.missed:
            self._run(face_id, gap=True).gap += 1
        slots = [_Slot(tracked) for tracked in update.faces]
        for slot, crop in zip(slots, crops, strict=True):
            run = self._run(slot.tracked.face_id, gap=False)
            run.slots.append(slot)
            run.crops.append(len(self._batch.crops))
            self._batch.crops.append(crop)
            if self._options.measures:
                view = cut_view(image, slot.tracked.face)
                self._batch.unmeasured.append(_Unmeasured(slot, view, image.size(0)))
            self._take_points(image, slot)
        if self._keep:
            self._batch.held_bytes += frame.image.nbytes
        else:
            frame = Frame(frame.index, frame.time_s, _NO_IMAGE, frame.file)
        self._batch.opened.append(_Open(frame, slots))

    def _take_points(self, rgb: Halves, slot: _Slot) -> None:
        """Take the landmarks of the aligner, or keep the crop in which `score` locates them."""
        if self._options.points is None:
            return
        face = slot.tracked.face
        slot.mesh = face.mesh
        if face.mesh is None:
            self._batch.unlocated.append((slot, self._options.points.cut(rgb, face)))

    def _pass_hole(self, index: int) -> None:
        """Bridge or end the tracks where frames are missing before this one.

        The windows never treat the frames on both sides of a hole as neighbours.
        """
        missing = 0 if self._index is None else index - self._index - 1
        self._index = index
        if missing <= 0 or self._independent:
            return
        update = self._tracker.skip(missing)
        self._end(update.ended)
        for face_id in update.missed:
            self._run(face_id, gap=True).gap += missing
        if self._appearance is not None:
            self._appearance.reset()

    def _separate_people(
        self, rgb: Halves, update: TrackerUpdate, crops: list[UInt8Array], time_s: float
    ) -> None:
        """Give a new id to a face that is another person than in the frame before."""
        if self._appearance is None:
            return
        before = [tracked.face_id for tracked in update.faces]
        owners = self._appearance.compare(before, crops, time_s, trusted=update.turned)
        names: dict[int, int] = {}
        if self._people is not None:
            owners = self._people.decide(rgb, update, owners)
        if owners:
            names = self._rename(update, owners)
            self._appearance.follow([tracked.face_id for tracked in update.faces], crops)
        if self._people is not None:
            self._people.learn(rgb, update, names)

    def _rename(self, update: TrackerUpdate, owners: dict[int, int | None]) -> dict[int, int]:
        """Give tracks the ids of the people that they show; returns the new ids."""
        names = self._tracker.rename(owners)
        update.faces = [
            TrackedFace(names.get(tracked.face_id, tracked.face_id), tracked.face)
            for tracked in update.faces
        ]
        seen = set(names.values())
        update.missed = [face_id for face_id in update.missed if face_id not in seen]
        update.ended += [face_id for face_id in owners if face_id not in seen]
        return names

    def take(self) -> _Batch:
        """The waiting batch, for `score`; a new batch starts."""
        batch, self._batch = self._batch, _Batch()
        return batch

    @torch.inference_mode()
    def score(self, batch: _Batch | None = None) -> _Scored:
        """Score the waiting batch, or one from `take`, and return the frames that became final."""
        batch = self.take() if batch is None else batch
        self._open.extend(batch.opened)
        self._measure(batch.unmeasured)
        self._locate(batch.unlocated)
        features = self._encode(batch.crops)
        for face_id, runs in batch.runs.items():
            for run in runs:
                self._score_run(face_id, run, features)
        return self._final()

    def _score_run(self, face_id: int, run: _Run, features: Any) -> None:
        if run.ends:
            if face_id in self._windows:
                self._fill(self._windows.pop(face_id).finish())
            return
        if face_id not in self._windows:
            self._windows[face_id] = make_window(self._options.window, self._model)
        window = self._windows[face_id]
        if run.gap:
            self._fill(window.bridge(run.gap))
            return
        index = torch.tensor(run.crops, device=self._model.device)
        self._fill(window.push(features[index], run.slots))

    def finish(self) -> _Scored:
        """End every track and return the remaining frames."""
        self._end(self._tracker.reset())
        return self.score()

    def _run(self, face_id: int, gap: bool) -> _Run:
        """The run of a track that the next frame belongs to."""
        runs = self._batch.runs.setdefault(face_id, [])
        if not runs or runs[-1].ends or bool(runs[-1].gap) != gap:
            runs.append(_Run([], []))
        return runs[-1]

    def _end(self, face_ids: Iterable[int]) -> None:
        """Note that tracks end before the next frame."""
        for face_id in face_ids:
            self._batch.runs.setdefault(face_id, []).append(_Run([], [], ends=True))

    def _encode(self, crops: list[UInt8Array]) -> Any:
        """`FrameFeatures` of MDHR, or the outputs (F, N) of another network; None for no crops."""
        size = self._options.batch_size
        parts: list[Any] = [
            self._model.encode(self._model.preprocess(np.stack(crops[i : i + size])))
            for i in range(0, len(crops), size)
        ]
        if not parts:
            return None
        join: Any = torch.cat if isinstance(parts[0], torch.Tensor) else FrameFeatures.cat
        return join(parts)

    @staticmethod
    def _measure(waiting: list[_Unmeasured]) -> None:
        measured = measure_faces(
            [item.slot.tracked.face for item in waiting],
            [item.view for item in waiting],
            [item.size for item in waiting],
        )
        for item, measures in zip(waiting, measured, strict=True):
            item.slot.measures = measures

    def _locate(self, waiting: list[tuple[_Slot, MeshCrop]]) -> None:
        if self._options.points is None:
            return
        meshes = self._options.points.locate([crop for _, crop in waiting])
        for (slot, _), mesh in zip(waiting, meshes, strict=True):
            slot.mesh = mesh

    @staticmethod
    def _fill(scored: list[tuple[_Slot, FloatArray]]) -> None:
        for slot, scores in scored:
            slot.scores = scores

    def _final(self) -> _Scored:
        done = []
        while self._open and all(slot.scores is not None for slot in self._open[0].slots):
            opened = self._open.popleft()
            done.append((opened.frame, self._make_rows(opened)))
        return done

    def _split(self, values: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """The values of a face from its window -> scores and intensities."""
        if self._options.layout is not None:
            return self._options.layout.split(values)
        offsets = self._options.grade_offsets
        return values, expected_intensity(values, offsets) if offsets else None

    def _make_rows(self, opened: _Open) -> list[AURow]:
        if not opened.slots:
            return [self._make_empty_row(opened.frame)]
        return [self._make_row(opened.frame, slot) for slot in opened.slots]

    def _make_row(self, frame: Frame, slot: _Slot) -> AURow:
        assert slot.scores is not None
        scores, intensity = self._split(slot.scores)
        face, measures = slot.tracked.face, slot.measures
        return AURow(
            frame=frame.index,
            time_s=frame.time_s,
            face_id=slot.tracked.face_id,
            success=True,
            confidence=trusted_confidence(face, measures) if measures else face.confidence,
            box_xyxy=face.box_xyxy.copy(),
            landmarks=face.landmarks.copy(),
            scores=scores,
            active=scores >= self._options.thresholds,  # False for NaN
            aus=self._options.aus,
            file=frame.file,
            intensity=intensity,
            measures=measures,
            mesh=slot.mesh,
        )

    def _make_empty_row(self, frame: Frame) -> AURow:
        count = len(self._model.config.outputs)
        scores, intensity = self._split(np.full(count, np.nan, np.float32))
        return AURow(
            frame=frame.index,
            time_s=frame.time_s,
            face_id=None,
            success=False,
            confidence=0.0,
            box_xyxy=_NO_BOX,
            landmarks=_NO_LANDMARKS,
            scores=scores,
            active=np.zeros(len(scores), np.bool_),
            aus=self._options.aus,
            file=frame.file,
            intensity=intensity,
            measures=NO_MEASURES if self._options.measures else None,
            mesh=None if self._options.points is None else NO_MESH,
        )


def _flat(pairs: _Scored) -> list[AURow]:
    return [row for _, rows in pairs for row in rows]
