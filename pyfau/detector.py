"""`AUDetector`: frames in, action unit scores out. The one file that knows all the steps."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from pyfau import __version__
from pyfau.aligners import Aligner, load_aligner
from pyfau.baseline import Baseline, measure
from pyfau.crop import crop_face
from pyfau.errors import OptionError, PyfauError
from pyfau.models.inference import accelerate
from pyfau.models.mdhr import CONTEXT, FrameFeatures
from pyfau.overlay import OverlayWriter, check_is_other, draw_overlay, write_overlay_picture
from pyfau.result import AUResult, open_writer
from pyfau.tracker import FaceTracker, TrackedFace
from pyfau.types import AURow, FloatArray, Frame, UInt8Array, au_name
from pyfau.video import (
    FrameReader,
    StrPath,
    check_frame,
    file_record,
    read_arrays,
    read_camera,
    read_frames,
    read_images,
    read_picture,
    read_video,
)
from pyfau.weights.store import DEFAULT_MODEL, open_model, resolve_device
from pyfau.windows import WINDOW_NAMES, Window, make_window

Threshold = float | Mapping[str | int, float]
_NO_BOX = np.full(4, np.nan, np.float32)
_NO_BOX.flags.writeable = False
_MOST_HELD_BYTES = 128 << 20  # of pictures that wait for their overlay, in each of two batches
_NO_PICTURE = np.empty((0, 0, 3), np.uint8)
_NO_LANDMARKS = np.full((5, 2), np.nan, np.float32)
_NO_LANDMARKS.flags.writeable = False


class AUDetector:
    """Scores facial action units (AUs) of every face in pictures, picture sequences, video or a camera.

    A score is in [0, 1] and says how surely an action unit is present in a frame. It is not an intensity.

    Args:
        model: A bundled name or a name of weights_manifest.json (`pyfau models` lists them), a local model directory,
            an official MDHR `.pth` checkpoint, or `user/repo` on the Hugging Face Hub. The default is bundled and works
            offline.
        revision: Commit, tag or branch, for a Hub repository.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps", or a torch.device.
        precision: How the encoder computes: "float32", "bfloat16", "float16" (GPU only), or "auto", which is bfloat16
            on a CPU that multiplies it, for networks whose scores were found to stay close, and else float32. The
            metadata of a result says which. See docs/performance.md.
        engine: Who computes the encoder: "torch", "onnxruntime", "openvino" (both on the CPU, each with its extra
            installed), or "auto", which is torch.
        aligner: How faces are found: "mtcnn" (embedded), "fan", "mediapipe", "aligned" (every picture is a crop
            already), or an object with `detect` and `refine`; see `pyfau.aligners`.
        aligner_options: Passed to the aligner's constructor.
        threshold: A score at or over it counts as active: one number in [0, 1], or one for some AUs by name or number
            (the others keep the model's own), or None for the model's own.
        max_faces: Follow at most so many faces, the largest first; None for all.
        batch_size: Frames or faces, whichever is more, that are encoded together. Scores do not depend on it.
        detect_every: Frames between searches for new faces.
        window: "continuous" scores every frame with 7 frames of context on both sides; "clips" is the paper's protocol
            of separate 16-frame clips.
        max_gap: A face that is missing for at most so many frames keeps its id and its window; after more, its track
            ends.
        progress: Show a progress bar on standard error.
        local_files_only: Do not ask the Hub; use what its cache holds.

    Attributes:
        model: The network, a `pyfau.models.mdhr.MDHR` that can only infer; `pyfau.load_model` gives the plain one.
        aus: Names of the scores, such as "AU12", in order.
        thresholds: (N,) float32.

    Raises:
        OptionError: An option has a value that it does not take.
        DeviceError: The device is unknown or not available.
        WeightsError: The model could not be found, fetched, verified or loaded.
    """

    def __init__(
        self,
        model: StrPath = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        engine: str = "auto",
        aligner: str | Aligner = "mtcnn",
        aligner_options: Mapping[str, Any] | None = None,
        threshold: Threshold | None = None,
        max_faces: int | None = None,
        batch_size: int = 32,
        detect_every: int = 30,
        window: str = "continuous",
        max_gap: int = 15,
        progress: bool = False,
        local_files_only: bool = False,
    ) -> None:
        if window not in WINDOW_NAMES:
            raise OptionError(f"unknown window {window!r}: expected one of {', '.join(WINDOW_NAMES)}")
        self._window = window
        self._max_faces = None if max_faces is None else _whole(max_faces, "max_faces", 1)
        self._batch_size = _whole(batch_size, "batch_size", 1)
        self._detect_every = _whole(detect_every, "detect_every", 1)
        self._max_gap = _whole(max_gap, "max_gap", 0)
        self._progress = progress
        self._device = resolve_device(device)
        loaded = open_model(
            str(model), self._device, revision=revision, local_files_only=local_files_only, progress=progress
        )
        self.model = loaded.model
        precision, engine = accelerate(self.model, precision, engine)
        self.aus = self.model.config.au_names
        self.thresholds = _thresholds(threshold, self.aus, self.model.config.thresholds)
        if not isinstance(aligner_options, Mapping | None):
            raise OptionError(f"aligner_options must be a mapping, got {aligner_options!r}")
        options = dict(aligner_options or {})
        if not all(isinstance(name, str) for name in options):
            raise OptionError(f"aligner_options are named by text, got {aligner_options!r}")
        if options and not isinstance(aligner, str):
            raise OptionError("aligner_options are for an aligner by name; this one is an object already")
        if aligner == "aligned":
            options.setdefault("template", self.model.config.template)
        self._aligner = load_aligner(aligner, self._device, **options)
        self._metadata: dict[str, Any] = {
            "pyfau_version": __version__,
            "model": self.model.config.name,
            "model_version": self.model.config.version,
            "model_sha256": loaded.sha256,
            "model_origin": loaded.origin,
            "aus": list(self.aus),
            "score": "occurrence in [0, 1], not intensity",
            "thresholds": {au: round(float(t), 6) for au, t in zip(self.aus, self.thresholds, strict=True)},
            "aligner": aligner if isinstance(aligner, str) else type(aligner).__name__,
            "aligner_options": dict(aligner_options or {}),
            "window": window,
            "max_gap": self._max_gap,
            "detect_every": self._detect_every,
            "max_faces": self._max_faces,
            "precision": precision,
            "engine": engine,
            "device": str(self._device),
        }

    def __repr__(self) -> str:
        return f"AUDetector({self.model.config.name}, {len(self.aus)} AUs, {self._device}, {self._window})"

    def settings(self) -> dict[str, Any]:
        """What decides about the scores, as it stands in the metadata of every result; not the device or engine."""
        return {key: value for key, value in self._metadata.items() if key not in ("device", "engine", "model_origin")}

    def detect_video(
        self,
        path: StrPath,
        *,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AUResult:
        """Score a video file.

        Args:
            path: Any video that OpenCV opens.
            save: Also write the rows to this .csv, .jsonl or .parquet file while the work runs. What has been written
                survives a kill; a Parquet file comes into being when it is closed, which Ctrl-C and errors do too.
            overlay: Also write a video with boxes, landmarks and active AUs to this file.
            metadata: Added to the metadata of the result, or in the place of what is there under the same names, such
                as the `source` of a copy. It must be expressible in JSON.

        Returns:
            One row per frame and face; a frame without a face is a row with `success` False.

        Raises:
            MediaError: Missing, empty, or not a video.
        """
        return self._run(read_video(path), save, overlay, metadata=metadata)

    def detect_camera(
        self,
        index: int = 0,
        *,
        seconds: float | None = None,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
    ) -> AUResult:
        """Score a camera until `seconds` have passed, or Ctrl-C is pressed while the next frame is awaited.

        Raises:
            MediaError: The camera could not be opened.
        """
        return self._run(read_camera(index), save, overlay, seconds=seconds)

    def detect_images(
        self,
        source: StrPath | Iterable[StrPath],
        *,
        fps: float | None = None,
        independent: bool = False,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
    ) -> AUResult:
        """Score picture files as the frames of one sequence, or each on its own.

        Args:
            source: A folder, whose pictures are taken in natural order (img2 before img10), or paths in their order.
            fps: Frames per second of the sequence, for `time_s`; without it times are empty.
            independent: The pictures have nothing to do with each other: every one is searched for faces and scored
                on its own, and every face gets an id of its own.
            save: As in `detect_video`.
            overlay: As in `detect_video`.

        Returns:
            Rows as in `detect_video`, with the picture in `file`. Files that could not be read are listed in
            `failures` and have no row.

        Raises:
            MediaError: There is no readable picture.
        """
        return self._run(read_images(source, fps=fps), save, overlay, independent=independent)

    def detect_image(
        self,
        picture: Any,
        *,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AUResult:
        """Score one picture.

        Args:
            picture: A picture file, or an (H, W, 3) uint8 RGB array; grey, RGBA, 16 bit, floats in [0, 1] and Pillow
                images are converted.
            save: Also write the rows to this .csv, .jsonl or .parquet file.
            overlay: Also write the picture with boxes, landmarks and active AUs to this .png or .jpg file.
            metadata: As in `detect_video`.

        Returns:
            One row a face, or one row with `success` False.

        Raises:
            InputError: The array is not a picture.
            MediaError: The file is missing or not a picture.
        """
        file = os.fspath(picture) if isinstance(picture, str | os.PathLike) else None
        for output in (save, overlay):
            if output is not None and file is not None:
                check_is_other(output, file)
        rgb = check_frame(picture) if file is None else read_picture(file)
        record = self._metadata | {"source": file or "array", "fps": None, "independent": True}
        if file is not None:
            record["input"] = file_record(file)
        record |= metadata or {}
        result = AUResult(self.aus, record, files=file is not None)
        name = None if file is None else str(record["source"])
        for _, rows in self._rows([Frame(0, math.nan, rgb, name)], independent=True):
            result.extend(rows)
        if overlay is not None:
            write_overlay_picture(overlay, draw_overlay(rgb, result))
            record["overlay"] = file_record(overlay)
        if save is not None:
            with open_writer(save, self.aus, record, file is not None) as writer:
                writer.write(result)
        return result

    def detect_frames(
        self,
        frames: Iterable[Any],
        *,
        fps: float | None = None,
        color: str = "rgb",
        save: StrPath | None = None,
        overlay: StrPath | None = None,
    ) -> AUResult:
        """Score arrays, the frames of one sequence.

        Args:
            frames: Any iterable of (H, W, 3) uint8 arrays; grey, RGBA, 16 bit and floats in [0, 1] are converted.
            fps: Frames per second, for `time_s`.
            color: "rgb" or "bgr" (what OpenCV reads).
            save: As in `detect_video`.
            overlay: As in `detect_video`.

        Raises:
            InputError: A frame is not a picture; the rows before it are in the error's `partial_result`.
        """
        return self._run(read_arrays(frames, fps=fps, color=color), save, overlay)

    def calibrate(self, neutral_frames: Any, *, independent: bool = False) -> Baseline:
        """Measure one person's face at rest, for `AUResult.baseline`. The detector itself does not change.

        Args:
            neutral_frames: Frames in which the person's face is at rest: anything that `pyfau.video.read_frames` takes,
                such as a video, a picture, a folder or list of pictures, or arrays.
            independent: The frames have nothing to do with each other, as photos taken on different days.

        Returns:
            For each action unit the median score of the frames that show the face.

        Raises:
            InputError: No frame shows a face, or one shows several.
        """
        reader = neutral_frames if isinstance(neutral_frames, FrameReader) else read_frames(neutral_frames)
        return measure(self._run(reader, None, None, independent=independent))

    def iter_video(self, path: StrPath) -> Generator[AURow, None, None]:
        """Score a video file row by row, in constant memory; see `detect_video`."""
        return self.iter_frames(read_video(path))

    def iter_camera(self, index: int = 0, *, latency: int = CONTEXT) -> Generator[AURow, None, None]:
        """Score a camera row by row; see `detect_camera`, and `stream` for `latency`."""
        return self.iter_frames(read_camera(index), batch_size=1, latency=latency)

    def iter_frames(
        self, source: Any, *, fps: float | None = None, batch_size: int | None = None, latency: int = CONTEXT
    ) -> Generator[AURow, None, None]:
        """Score anything that `pyfau.video.read_frames` takes, row by row, in constant memory.

        Rows come when a batch of `batch_size` frames is full; with 1, and `latency` as for `stream`, as soon as can be.
        """
        window = self._window_for(latency)
        reader = source if isinstance(source, FrameReader) else read_frames(source, fps=fps)

        def rows() -> Generator[AURow, None, None]:
            with reader:
                for _, final in self._rows(reader, batch_size=batch_size, window=window):
                    yield from final

        return rows()

    def stream(self, fps: float | None = None, *, latency: int = CONTEXT) -> AUStream:
        """Score frames that arrive one by one.

        Args:
            fps: Frames per second, for `time_s`.
            latency: 7: a row comes when the 7 frames after its own are there, with the scores that a whole video would
                get. 0: every frame's rows come at once, with scores from the frames so far; the newest one stands in
                for those to come, so that the answer to a movement builds up over the next frames.

        Raises:
            OptionError: Another latency, or 0 with `window="clips"`.
        """
        return AUStream(self, fps, latency)

    def _window_for(self, latency: int) -> str:
        """The name of the window that answers so many frames late."""
        if latency not in (0, CONTEXT) or isinstance(latency, bool):
            raise OptionError(f"latency must be 0 or {CONTEXT} frames, got {latency!r}")
        if latency == 0 and self._window == "clips":
            raise OptionError("latency 0 is for the continuous window; clips wait for their 16 frames")
        return self._window if latency else "prompt"

    def _run(
        self,
        reader: FrameReader,
        save: StrPath | None,
        overlay: StrPath | None,
        *,
        independent: bool = False,
        seconds: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AUResult:
        """Read to the end into a result, and into files on the way."""
        files = reader.kind == "images"
        record = self._metadata | {"source": reader.name, "fps": reader.fps, "independent": independent}
        if reader.kind == "video" or files:
            record["input"] = file_record(reader.name)
        record |= metadata or {}
        result = AUResult(self.aus, record, files=files)
        bar = tqdm(
            reader, total=reader.frame_count, unit="frame", desc=Path(reader.name).name, disable=not self._progress
        )
        frames = _until(bar, seconds) if reader.kind == "camera" else bar
        try:
            with ExitStack() as stack:
                stack.enter_context(reader)
                stack.callback(bar.close)  # before anything else is printed
                for output in (save, overlay):
                    if output is not None and reader.kind == "video":
                        check_is_other(output, reader.name)
                # The overlay first: if its path is no good, a table that is there already must not suffer.
                video = writer = None
                if overlay is not None:
                    sound = reader.name if reader.kind == "video" else None
                    hold = 0 if independent else self._max_gap
                    video = stack.enter_context(OverlayWriter(overlay, reader.fps, source=sound, hold=hold))
                    record["overlay"] = {"path": file_record(overlay)["path"]}
                if save is not None:
                    writer = stack.enter_context(open_writer(save, self.aus, record, files))
                batch_size = 1 if reader.kind == "camera" else None
                pairs = self._rows(frames, keep=video is not None, independent=independent, batch_size=batch_size)
                try:
                    for frame, rows in pairs:
                        result.extend(rows)
                        if writer is not None:
                            writer.write(rows)
                        if video is not None:
                            video.write(frame.rgb, rows, frame.time_s)
                    if video is not None and overlay is not None:
                        video.close()  # before the table, which is complete only if the overlay plays
                        result.metadata["overlay_video"] = video.describe()
                        if writer is not None:
                            writer.metadata |= {"overlay": file_record(overlay), "overlay_video": video.describe()}
                finally:
                    result.failures.extend(reader.failures)
                    result.warnings.extend(reader.warnings)
                    result.warnings.extend(video.warnings if video is not None else [])
                    if writer is not None:
                        writer.metadata["failures"] = [dataclasses.asdict(failure) for failure in reader.failures]
                        writer.metadata["warnings"] = list(result.warnings)
        except PyfauError as error:
            error.partial_result = result
            raise
        return result

    @torch.inference_mode()
    def _rows(
        self,
        frames: Iterable[Frame],
        *,
        keep: bool = False,
        independent: bool = False,
        batch_size: int | None = None,
        window: str | None = None,
    ) -> Generator[tuple[Frame, list[AURow]], None, None]:
        """Frames with their final rows, in order. Their pictures are kept only if asked for.

        If the source or the aligner fails, the rows of the frames before are given out before the error goes on.
        """
        pipeline = _Pipeline(self, keep, independent, window)
        size = batch_size or self._batch_size
        error: Exception | None = None
        source = iter(frames)
        # While one batch is scored, the faces of the next are found: OpenCV and torch let go of the interpreter.
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
                if size == 1:
                    yield from pipeline.score()
                    continue
                done = scoring.result() if scoring else []
                scoring = scorer.submit(pipeline.score, pipeline.take())
                yield from done
            if scoring:
                yield from scoring.result()
        yield from pipeline.finish()
        if error is not None:
            raise error


class AUStream:
    """Frames one by one, rows 7 frames late or at once. Made by `AUDetector.stream`."""

    def __init__(self, detector: AUDetector, fps: float | None, latency: int = CONTEXT) -> None:
        self._window = detector._window_for(latency)
        if fps is not None and not (_is_number(fps) and 0 < fps < math.inf):
            raise OptionError(f"fps must be a positive number, got {fps!r}")
        self._detector = detector
        self._fps = fps
        self.reset()

    def push(self, frame: Any, time_s: float | None = None) -> list[AURow]:
        """Take the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB; grey, RGBA, 16 bit and floats in [0, 1] are converted.
            time_s: Its time in seconds; by default it follows from fps.

        Returns:
            The rows that became final, in order; often of an earlier frame, often none.

        Raises:
            InputError: The frame is not a picture. The stream goes on as if it had not been pushed.
        """
        rgb = check_frame(frame)
        if time_s is not None and not _is_number(time_s):
            raise OptionError(f"time_s must be a number of seconds, got {time_s!r}")
        if time_s is None:
            time_s = self._count / self._fps if self._fps else math.nan
        with torch.inference_mode():
            self._pipeline.add(Frame(self._count, time_s, rgb))
            self._count += 1
            return _flat(self._pipeline.score())

    def flush(self) -> list[AURow]:
        """End all tracks and return the rows that were still open. Frames may be pushed afterwards, as after a cut."""
        with torch.inference_mode():
            return _flat(self._pipeline.finish())

    def reset(self) -> None:
        """Forget everything; the next frame is frame 0."""
        self._pipeline = _Pipeline(self._detector, keep=False, independent=False, window=self._window)
        self._count = 0


@dataclass(slots=True, eq=False)
class _Slot:
    """A face in a frame that waits for its scores."""

    tracked: TrackedFace
    scores: FloatArray | None = None


@dataclass(slots=True)
class _Open:
    """A frame whose rows are not final yet."""

    frame: Frame
    slots: list[_Slot]


@dataclass(slots=True)
class _Run:
    """Consecutive frames of one track that wait for `score`: faces, or a gap."""

    slots: list[_Slot]
    crops: list[int]
    gap: int = 0


@dataclass(slots=True)
class _Batch:
    """What has gathered for `score`."""

    opened: list[_Open] = field(default_factory=list)
    crops: list[UInt8Array] = field(default_factory=list)
    runs: dict[int, list[_Run]] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    held_bytes: int = 0


_Scored = list[tuple[Frame, list[AURow]]]


class _Pipeline:
    """Tracking, encoding and windows of one sequence.

    `add` takes a frame and keeps its crops alone (and its picture, if that was asked for); `score` encodes the crops
    that have gathered, of all frames and faces at once, and gives out the frames that became final. One thread may add
    while another scores what was taken before.
    """

    def __init__(self, detector: AUDetector, keep: bool, independent: bool, window: str | None = None) -> None:
        self._detector = detector
        self._window = window or detector._window
        self._model = detector.model
        self._keep = keep
        self._independent = independent
        self._tracker = FaceTracker(detector._aligner, detector._detect_every, detector._max_faces, detector._max_gap)
        self._windows: dict[int, Window[_Slot]] = {}
        self._open: deque[_Open] = deque()
        self._shape: tuple[int, ...] | None = None
        self._batch = _Batch()

    @property
    def waiting(self) -> float:
        """How much has gathered, in frames: the larger of frames and faces, and of pictures held against a bound."""
        if self._batch.held_bytes > _MOST_HELD_BYTES:
            return math.inf
        return max(len(self._batch.opened), len(self._batch.crops))

    def add(self, frame: Frame) -> None:
        """Find the faces of the next frame."""
        if self._independent or (self._shape is not None and frame.rgb.shape != self._shape):
            self._batch.ended += self._tracker.reset()  # pictures of another size are another scene
        self._shape = frame.rgb.shape
        update = self._tracker.update(frame.rgb)
        config = self._model.config
        crops = [
            crop_face(frame.rgb, tracked.face.landmarks, config.template, config.input_size) for tracked in update.faces
        ]
        self._batch.ended += update.ended
        for face_id in update.missed:
            self._run(face_id, gap=True).gap += 1
        slots = [_Slot(tracked) for tracked in update.faces]
        for slot, crop in zip(slots, crops, strict=True):
            run = self._run(slot.tracked.face_id, gap=False)
            run.slots.append(slot)
            run.crops.append(len(self._batch.crops))
            self._batch.crops.append(crop)
        if self._keep:
            self._batch.held_bytes += frame.rgb.nbytes
        else:
            frame = Frame(frame.index, frame.time_s, _NO_PICTURE, frame.file)
        self._batch.opened.append(_Open(frame, slots))

    def take(self) -> _Batch:
        """What has gathered, for `score`; a new batch begins."""
        batch, self._batch = self._batch, _Batch()
        return batch

    @torch.inference_mode()
    def score(self, batch: _Batch | None = None) -> _Scored:
        """Score what has gathered, or was taken, and return the frames that became final."""
        batch = self.take() if batch is None else batch
        self._open.extend(batch.opened)
        features = self._encode(batch.crops)
        for face_id, runs in batch.runs.items():
            if face_id not in self._windows:
                self._windows[face_id] = make_window(self._window, self._model)
            window = self._windows[face_id]
            for run in runs:
                if run.gap:
                    self._fill(window.bridge(run.gap))
                else:
                    assert features is not None
                    index = torch.tensor(run.crops, device=self._model.device)
                    self._fill(window.push(features[index], run.slots))
        for face_id in batch.ended:
            if face_id in self._windows:
                self._fill(self._windows.pop(face_id).finish())
        return self._final()

    def finish(self) -> _Scored:
        """End every track and return all frames that are left."""
        self._batch.ended += self._tracker.reset()
        return self.score()

    def _run(self, face_id: int, gap: bool) -> _Run:
        """The run of a track that the coming frame belongs to."""
        runs = self._batch.runs.setdefault(face_id, [])
        if not runs or bool(runs[-1].gap) != gap:
            runs.append(_Run([], []))
        return runs[-1]

    def _encode(self, crops: list[UInt8Array]) -> FrameFeatures | None:
        size = self._detector._batch_size
        parts = [
            self._model.encode(self._model.preprocess(np.stack(crops[i : i + size])))
            for i in range(0, len(crops), size)
        ]
        return FrameFeatures.cat(parts) if parts else None

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

    def _make_rows(self, opened: _Open) -> list[AURow]:
        aus, thresholds = self._detector.aus, self._detector.thresholds
        frame = opened.frame

        def row(tracked: TrackedFace | None, scores: FloatArray) -> AURow:
            return AURow(
                frame=frame.index,
                time_s=frame.time_s,
                face_id=tracked.face_id if tracked else None,
                success=tracked is not None,
                confidence=tracked.face.confidence if tracked else 0.0,
                box_xyxy=tracked.face.box_xyxy.copy() if tracked else _NO_BOX,
                landmarks=tracked.face.landmarks.copy() if tracked else _NO_LANDMARKS,
                scores=scores,
                active=scores >= thresholds,  # False for NaN
                aus=aus,
                file=frame.file,
            )

        if not opened.slots:
            return [row(None, np.full(len(aus), np.nan, np.float32))]
        return [row(slot.tracked, slot.scores) for slot in opened.slots if slot.scores is not None]


def _flat(pairs: _Scored) -> list[AURow]:
    return [row for _, rows in pairs for row in rows]


def _until(frames: Iterable[Frame], seconds: float | None) -> Iterator[Frame]:
    """Frames until the time is over or, while the next one is awaited, Ctrl-C is pressed."""
    source = iter(frames)
    while True:
        try:
            frame = next(source, None)
        except KeyboardInterrupt:
            return
        if frame is None or (seconds is not None and frame.time_s > seconds):
            return
        yield frame


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _whole(value: Any, name: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def _thresholds(option: Threshold | None, aus: tuple[str, ...], own: tuple[float, ...]) -> npt.NDArray[np.float32]:
    thresholds = dict(zip(aus, own, strict=True))
    if isinstance(option, Mapping):
        for key, value in option.items():
            au = au_name(int(key)) if _is_number(key) else key
            if au not in thresholds:
                raise OptionError(f"threshold for {key!r}: the model scores {', '.join(aus)}")
            thresholds[au] = value
    elif option is not None:
        thresholds = dict.fromkeys(aus, option)
    for au, value in thresholds.items():
        if not _is_number(value) or not 0.0 <= value <= 1.0:
            raise OptionError(f"threshold of {au} must be a number in [0, 1], got {value!r}")
    return np.array(list(thresholds.values()), np.float32)
