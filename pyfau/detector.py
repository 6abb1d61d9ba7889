"""`AUDetector`: frames in, action unit scores out."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pyfau.analysis.baseline import Baseline, measure
from pyfau.analysis.quality import quality_warnings
from pyfau.aus import au_name
from pyfau.checks import check_choice, check_whole, is_number
from pyfau.choices import BaselineSource, Engine, Precision, WindowName
from pyfau.errors import OptionError, PyfauError
from pyfau.faces.aligner import Aligner, load_aligner, resolve_aligner
from pyfau.faces.fitted_boxes import detector_to_fit
from pyfau.faces.mesh import MeshAligner, MeshPoints
from pyfau.files import check_is_other
from pyfau.intensity import FROM_NETWORK
from pyfau.limits import LIMITS, Limits
from pyfau.media.frames import FrameReader
from pyfau.media.images import check_frame, file_record, read_image
from pyfau.media.readers import read_arrays, read_camera, read_frames, read_images, read_video
from pyfau.messages import printable, progress_bar
from pyfau.models.devices import resolve_device
from pyfau.models.frame_config import FrameConfig
from pyfau.models.inference import accelerate
from pyfau.models.layout import OutputLayout, make_layout
from pyfau.models.mdhr import CONTEXT
from pyfau.models.protocol import Crop
from pyfau.outputs import Outputs, open_outputs
from pyfau.overlay.drawing import draw_overlay
from pyfau.overlay.hiding import hide_faces
from pyfau.overlay.writer import write_overlay_image
from pyfau.pipeline import AUStream, PipelineOptions, score_frames
from pyfau.result import AUResult
from pyfau.tables.writers import open_writer, rewrite_table
from pyfau.types import AURow, Frame, StrPath, UInt8Array
from pyfau.version import __version__
from pyfau.weights.find import DEFAULT_MODEL
from pyfau.weights.store import LoadedModel, open_model

Threshold = float | Mapping[str | int, float]


class AUDetector:
    """Scores the facial action units (AUs) of every face in images, video or a camera.

    A score is the probability that an action unit is present in a frame, in [0, 1]. It is not an
    intensity. A model that was trained on grades also gives the expected FACS intensity in
    [0, 5], which is experimental.

    One detector can be used from several threads at the same time. A forked process must call
    `torch.set_num_threads(1)` first; see docs/tasks/embed.md. A detector can be pickled, for
    example for workers of multiprocessing, joblib or Ray: the copy is made from the same
    arguments, and loads the model again.

    Args:
        model: A name that `pyfau models` lists, a local model directory, an official MDHR `.pth`
            checkpoint, or `user/repo` on the Hugging Face Hub. The default model is part of the
            package and works offline.
        revision: Commit, tag or branch of a Hub repository.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps", or a
            torch.device.
        precision: Number format of the encoder: "float32", "bfloat16", "float16" (GPU only),
            "int8" (CPU only, with the extra `onnx` installed), or "auto". "auto" is bfloat16 if the
            CPU multiplies it faster than float32 and the scores of the network stay close;
            otherwise it is float32. The metadata of a result states the format. See
            docs/performance.md.
        engine: Inference backend of the encoder: "torch", "onnxruntime" or "openvino" (both on the
            CPU, each with its extra installed), or "auto", which is torch.
        aligner: Face detector: "auto" (the aligner that the model's config names), "mtcnn"
            (embedded), "mesh" (embedded; with 68 points), "fan", "mediapipe", "aligned" (every
            image is an aligned crop already), or an object with `detect` and `refine`; see
            `pyfau.aligners`. The metadata of a result states the aligner.
        aligner_options: Arguments of the aligner's constructor.
        threshold: A score at or above the threshold is active. One number in [0, 1], or a mapping
            from AU names or numbers to numbers (the other AUs keep the model's thresholds), or
            None for the model's thresholds.
        max_faces: Largest number of faces to follow, the largest faces first; None for all.
        batch_size: Number of frames or faces, whichever is larger, that are encoded together.
            Scores do not depend on it.
        detect_every: Number of frames between searches for new faces.
        window: "continuous" scores every frame with 7 frames of context on both sides; "clips" is
            the paper's protocol of separate 16-frame clips.
        max_gap: A face that is missing for at most `max_gap` frames keeps its id and its window.
            After a longer gap its track ends.
        intensity: Whether rows get intensities, and tables the columns "AU12_r", if the model has
            intensities. False leaves them out.
        measures: Whether rows get head pose, size, sharpness and quality of the face, and tables
            the columns of `pyfau.types.FaceMeasures`. False leaves them out and keeps the
            aligner's confidence as it is.
        landmarks: Whether rows get 68 landmarks, irises and eye openness (`AURow.mesh`), and tables
            their columns; see docs/landmarks.md. The network `face-mesh-lite` locates them, with
            every aligner.
        reidentify: Whether a person who returns later in a recording gets the old `face_id` back.
            False: a face that was missing for more than `max_gap` frames gets a new one. It needs
            an aligner with `stable_crops`.
        anonymise: Whether overlays cover faces; see `--anonymise` in docs/overlay.md. Tables stay
            the same.
        baseline: "auto" finds where each face is at rest in a recording and subtracts its scores
            there, as `AUResult.baseline("auto")` does after the last frame. It is not for streams
            and overlays. None leaves the scores as they are.
        progress: Show a progress bar on standard error.
        local_files_only: Use the files in the Hub's cache, without network access.
        limits: Larger images, videos and tables are refused before they are decoded; see
            `pyfau.limits.Limits`.

    Attributes:
        model: The network, a `pyfau.models.mdhr.MDHR` for inference only. `pyfau.load_model`
            returns a network that can be trained and saved.
        aus: Names of the scores, such as "AU12", in order.
        thresholds: (N,) float32.
        anonymise: As given.
        baseline: As given.
        limits: As given.

    Raises:
        OptionError: An option has an invalid value.
        DeviceError: The device is unknown or not available.
        WeightsError: The model could not be found, fetched, verified or loaded.
    """

    # Subclasses without this constructor have the defaults.
    limits: Limits = LIMITS
    baseline: BaselineSource | None = None

    def __init__(
        self,
        model: StrPath = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        engine: Engine = "auto",
        aligner: str | Aligner = "auto",
        aligner_options: Mapping[str, Any] | None = None,
        threshold: Threshold | None = None,
        max_faces: int | None = None,
        batch_size: int = 32,
        detect_every: int = 30,
        window: WindowName = "continuous",
        max_gap: int = 15,
        intensity: bool = True,
        measures: bool = True,
        landmarks: bool = False,
        reidentify: bool = False,
        anonymise: bool = False,
        baseline: BaselineSource | None = None,
        progress: bool = False,
        local_files_only: bool = False,
        limits: Limits = LIMITS,
    ) -> None:
        # For `__reduce__`; taken first, when the arguments are the only local variables.
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        check_choice(window, "window", WindowName)
        if baseline is not None:
            check_choice(baseline, "baseline", BaselineSource)
        max_faces = None if max_faces is None else check_whole(max_faces, "max_faces", 1)
        batch_size = check_whole(batch_size, "batch_size", 1)
        detect_every = check_whole(detect_every, "detect_every", 1)
        max_gap = check_whole(max_gap, "max_gap", 0)
        if not isinstance(limits, Limits):
            raise OptionError(f"limits must be a pyfau.limits.Limits, got {limits!r}")
        self.limits = limits
        self._progress = progress
        self.anonymise = bool(anonymise)
        self.baseline: BaselineSource | None = baseline
        self._device = resolve_device(device)
        loaded = open_model(
            str(model),
            self._device,
            revision=revision,
            local_files_only=local_files_only,
            progress=progress,
        )
        self.model = loaded.model
        used_precision, used_engine = accelerate(self.model, precision, engine, loaded.folder)
        config: Any = self.model.config
        layout, self.aus, thresholds = _outputs_of(config, intensity)
        self.thresholds = _thresholds(threshold, self.aus, thresholds)
        aligner = resolve_aligner(aligner, config)
        loaded_aligner = self._load_aligner(aligner, aligner_options)
        self._options = PipelineOptions(
            model=self.model,
            aligner=loaded_aligner,
            aus=self.aus,
            thresholds=self.thresholds,
            window=window,
            batch_size=batch_size,
            detect_every=detect_every,
            max_faces=max_faces,
            max_gap=max_gap,
            grade_offsets=config.grade_offsets if intensity else (),
            layout=layout,
            measures=bool(measures),
            reidentify=bool(reidentify),
            points=_points_of(loaded_aligner, self._device) if landmarks else None,
        )
        self._metadata = self._describe(loaded, aligner, aligner_options)
        self._metadata |= {"precision": used_precision, "engine": used_engine}
        self._metadata["device"] = str(self._device)
        if layout is not None:
            self._metadata |= _describe_layout(
                layout, config.crop, self._metadata["aligner"], loaded_aligner
            )

    def _load_aligner(
        self, aligner: str | Aligner, aligner_options: Mapping[str, Any] | None
    ) -> Aligner:
        """The face detector, which for aligned crops needs the template of the model."""
        options = _aligner_options(aligner, aligner_options)
        if aligner == "aligned":
            config: Any = self.model.config
            _check_has_template(config)
            options.setdefault("template", config.template)
        return load_aligner(aligner, self._device, **options)

    def _describe(
        self,
        loaded: LoadedModel,
        aligner: str | Aligner,
        aligner_options: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The model and the options, for the metadata of every result."""
        options = self._options
        thresholds = zip(self.aus, self.thresholds, strict=True)
        return {
            "pyfau_version": __version__,
            "model": self.model.config.name,
            "model_version": self.model.config.version,
            "model_sha256": loaded.sha256,
            "model_origin": loaded.origin,
            "aus": list(self.aus),
            "score": "occurrence in [0, 1], not intensity",
            "thresholds": {au: round(float(t), 6) for au, t in thresholds},
            "grade_offsets": _named_offsets(self.aus, options.grade_offsets),
            "aligner": aligner if isinstance(aligner, str) else type(aligner).__name__,
            "aligner_options": dict(aligner_options or {}),
            "measures": options.measures,
            "landmarks": options.points is not None,
            "window": options.window,
            "max_gap": options.max_gap,
            "detect_every": options.detect_every,
            "max_faces": options.max_faces,
            "reidentify": options.reidentify,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: a copy in another process loads the model there."""
        return _make_again, (type(self), self._arguments)

    def __repr__(self) -> str:
        name = self.model.config.name
        return f"AUDetector({name}, {len(self.aus)} AUs, {self._device}, {self._options.window})"

    @property
    def has_intensity(self) -> bool:
        """Whether rows get intensities: the model has them, and the option `intensity` is on."""
        layout = self._options.layout
        if layout is not None:
            return layout.intensity is not None
        return bool(self._options.grade_offsets)

    @property
    def has_measures(self) -> bool:
        """Whether rows get measures of the face: the option `measures`."""
        return self._options.measures

    @property
    def has_landmarks(self) -> bool:
        """Whether rows get 68 landmarks: the option `landmarks`."""
        return self._options.points is not None

    @property
    def cuts_planes(self) -> bool:
        """Whether only small parts of most video frames need to become RGB.

        It is True with the aligner `mesh`. The frames of `pyfau.video.read_video(path,
        planar=detector.cuts_planes)` get the same scores as in `detect_video`.
        """
        shares_halves = getattr(self._options.aligner, "shares_halves", False)
        return bool(shares_halves) and self.model.config.crop.kind != "box"

    def settings(self) -> dict[str, Any]:
        """The settings that the scores depend on, as in the metadata of every result.

        The device and the location of the model are left out. The engine is also left out, unless
        the precision is int8, because each engine has its own int8 form.
        """
        left_out = ["device", "model_origin"]
        if self._metadata["precision"] != "int8":
            left_out.append("engine")
        return {key: value for key, value in self._metadata.items() if key not in left_out}

    def detect_video(
        self,
        path: StrPath,
        *,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
        metadata: Mapping[str, Any] | None = None,
        stream: int | None = None,
    ) -> AUResult:
        """Score a video file.

        Args:
            path: The video file.
            save: Also write the rows to this .csv, .jsonl or .parquet file during the work. Rows
                written so far survive a crash; a Parquet file is readable only after close, which
                Ctrl-C and errors do as well.
            overlay: Also write a video with boxes, landmarks and active AUs to this file.
            metadata: Values for the metadata of the result, which JSON must be able to express.
                They replace values of the same name. An example is the `source` of a copied file.
            stream: Which video stream of a file with several, from 0; None for the one that the
                file marks as its default, or the first. The metadata has the number.

        Returns:
            One row per frame and face; a frame without a face is a row with `success` False.

        Raises:
            MediaError: The file is missing, empty, or not a video.
            OptionError: There is no such stream.
        """
        reader = self._read_video(path, stream)
        chosen = {"stream": stream}
        return self._run(reader, save, overlay, metadata=chosen | dict(metadata or {}))

    def detect_camera(
        self,
        index: int = 0,
        *,
        seconds: float | None = None,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
    ) -> AUResult:
        """Score a camera until `seconds` have passed, or until Ctrl-C.

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
        """Score image files as the frames of one sequence, or each on its own.

        Args:
            source: A folder, whose images are read in natural order (img2 before img10), or paths
                in their order.
            fps: Frames per second of the sequence, for `time_s`; without it times are empty.
            independent: The images are not a sequence. Each image is searched for faces and scored
                on its own, and every face gets its own id.
            save: As in `detect_video`.
            overlay: As in `detect_video`.

        Returns:
            Rows as in `detect_video`, with the image file in `file`. Files that could not be read
            are listed in `failures` and have no row.

        Raises:
            MediaError: There is no readable image.
        """
        return self._run(
            read_images(source, fps=fps, limits=self.limits), save, overlay, independent=independent
        )

    def detect_image(
        self,
        image: Any,
        *,
        save: StrPath | None = None,
        overlay: StrPath | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AUResult:
        """Score one image.

        Args:
            image: An image file, or an (H, W, 3) uint8 RGB array; grey, RGBA, 16-bit and float
                arrays in [0, 1] and Pillow images are converted.
            save: Also write the rows to this .csv, .jsonl or .parquet file.
            overlay: Also write the image with boxes, landmarks and active AUs to this .png or .jpg
                file.
            metadata: As in `detect_video`.

        Returns:
            One row for each face, or one row with `success` False.

        Raises:
            InputError: The array is not an image.
            MediaError: The file is missing or not an image.
        """
        file = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        self._check_overlay(overlay)
        for output in (save, overlay):
            if output is not None and file is not None:
                check_is_other(output, file)
        warnings: list[str] = []
        if file is None:
            rgb = check_frame(image)
        else:
            rgb = read_image(file, limits=self.limits, warnings=warnings)
        record = self._metadata | {"source": file or "array", "fps": None, "independent": True}
        if file is not None:
            record["input"] = file_record(file)
        record |= metadata or {}
        files = file is not None
        columns = self._columns()
        result = AUResult(self.aus, record, files, **columns)
        result.warnings.extend(warnings)
        name = None if file is None else str(record["source"])
        frames = [Frame(0, math.nan, rgb, name)]
        for _, rows in score_frames(frames, self._options, independent=True):
            result.extend(rows)
        result.warnings.extend(quality_warnings(result))
        if overlay is not None:
            boxes = [row.box_xyxy for row in result]
            shown = hide_faces(rgb, boxes + self._find_faces(rgb)) if self.anonymise else rgb
            drawn = draw_overlay(shown, result, landmarks=not self.anonymise)
            write_overlay_image(overlay, drawn)
            if self.anonymise:
                record["anonymised_overlay"] = True
            record["overlay"] = file_record(overlay)
        if save is not None:
            with open_writer(save, self.aus, record, files, **columns) as writer:
                if result.warnings:
                    writer.metadata["warnings"] = list(result.warnings)
                writer.write(result)
        return self._with_baseline(result, save)

    def detect_frames(
        self,
        frames: Iterable[Any],
        *,
        fps: float | None = None,
        color: str = "rgb",
        save: StrPath | None = None,
        overlay: StrPath | None = None,
    ) -> AUResult:
        """Score arrays as the frames of one sequence.

        Args:
            frames: Any iterable of (H, W, 3) uint8 arrays; grey, RGBA, 16-bit and float arrays in
                [0, 1] are converted.
            fps: Frames per second, for `time_s`.
            color: Order of the channels: "rgb", or "bgr" as OpenCV reads them.
            save: As in `detect_video`.
            overlay: As in `detect_video`.

        Raises:
            InputError: A frame is not an image. The rows before it are in the error's
                `partial_result`.
        """
        return self._run(read_arrays(frames, fps=fps, color=color), save, overlay)

    def calibrate(self, neutral_frames: Any, *, independent: bool = False) -> Baseline:
        """Measure one person's resting face, for `AUResult.baseline`.

        The detector itself does not change.

        Args:
            neutral_frames: Frames of the person's resting face: anything that
                `pyfau.video.read_frames` reads, such as a video, an image, a folder or list of
                images, or arrays.
            independent: The frames are not a sequence, for example photos of different days.

        Returns:
            For each action unit the median score of the frames that show the face.

        Raises:
            InputError: No frame shows a face, or a frame shows several faces.
        """
        reader = neutral_frames
        if not isinstance(reader, FrameReader):
            reader = read_frames(neutral_frames, limits=self.limits, planar=self.cuts_planes)
        return measure(self._score(reader, None, None, independent=independent))

    def iter_video(
        self, path: StrPath, *, stream: int | None = None
    ) -> Generator[AURow, None, None]:
        """Score a video file row by row, in constant memory; see `detect_video`."""
        self._check_stream()
        return self.iter_frames(self._read_video(path, stream))

    def iter_camera(
        self, index: int = 0, *, latency: int = CONTEXT
    ) -> Generator[AURow, None, None]:
        """Score a camera row by row; see `detect_camera`, and `stream` for `latency`."""
        self._check_stream()
        return self.iter_frames(read_camera(index), batch_size=1, latency=latency)

    def iter_frames(
        self,
        source: Any,
        *,
        fps: float | None = None,
        batch_size: int | None = None,
        latency: int = CONTEXT,
    ) -> Generator[AURow, None, None]:
        """Score anything that `pyfau.video.read_frames` reads, row by row, in constant memory.

        Args:
            source: The frames.
            fps: Frames per second of arrays and images, for `time_s`.
            batch_size: Number of frames that are read before their rows are returned. 1 returns the
                rows as early as possible; None is the detector's `batch_size`.
            latency: As in `stream`.

        Raises:
            OptionError: As for `stream`.
        """
        self._check_stream()
        options = self._options.with_latency(latency)
        reader = source
        if not isinstance(source, FrameReader):
            reader = read_frames(source, fps=fps, limits=self.limits, planar=self.cuts_planes)

        def rows() -> Generator[AURow, None, None]:
            with reader:
                for _, final in score_frames(reader, options, batch_size=batch_size):
                    yield from final

        return rows()

    def stream(self, fps: float | None = None, *, latency: int = CONTEXT) -> AUStream:
        """Score frames that arrive one by one.

        Args:
            fps: Frames per second, for `time_s`.
            latency: Number of later frames that a row waits for. 7 gives the same scores as for a
                whole video. 0 gives the rows of each frame at once, with scores from the frames so
                far: the newest frame replaces the later ones. So the score of a movement rises over
                the next frames.

        Raises:
            OptionError: `latency` is neither 0 nor 7, or it is 0 with `window="clips"`; or the
                detector has a `baseline`.
        """
        self._check_stream()
        return AUStream(self._options.with_latency(latency), fps)

    def _read_video(self, path: StrPath, stream: int | None) -> FrameReader:
        """Open a video in the form of frames that the aligner and the network need."""
        return read_video(path, stream=stream, limits=self.limits, planar=self.cuts_planes)

    def _columns(self) -> dict[str, bool]:
        """Which columns the rows have, as arguments of `AUResult` and `open_writer`."""
        return {
            "intensity": self.has_intensity,
            "measures": self.has_measures,
            "landmarks": self.has_landmarks,
        }

    def _check_stream(self) -> None:
        """Refuse streams if the scores depend on the whole recording."""
        if self.baseline is not None:
            raise OptionError(
                f"baseline={self.baseline!r} needs a whole recording, and a stream gives its rows "
                f"before the end: leave it out, or use detect_video"
            )

    def _check_overlay(self, overlay: StrPath | None) -> None:
        """Refuse an overlay if the scores depend on the whole recording."""
        if overlay is not None and self.baseline is not None:
            raise OptionError(
                f"baseline={self.baseline!r} needs a whole recording, and an overlay is drawn "
                f"before the end: leave one of them out, or use result.baseline afterwards"
            )

    def _with_baseline(self, result: AUResult, save: StrPath | None) -> AUResult:
        """Adjust the scores of a whole recording, also in its table."""
        if self.baseline is None:
            return result
        adjusted = result.baseline(self.baseline)
        if save is not None:
            rewrite_table(adjusted, save)
        return adjusted

    def _run(
        self,
        reader: FrameReader,
        save: StrPath | None,
        overlay: StrPath | None,
        **options: Any,
    ) -> AUResult:
        """Score a source to its end, and adjust the scores if the detector has a baseline."""
        self._check_overlay(overlay)
        return self._with_baseline(self._score(reader, save, overlay, **options), save)

    def _score(
        self,
        reader: FrameReader,
        save: StrPath | None,
        overlay: StrPath | None,
        *,
        independent: bool = False,
        seconds: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AUResult:
        """Score a source to its end; rows also go to the files during the work."""
        record = self._metadata | _describe_source(reader, independent) | dict(metadata or {})
        files = reader.kind == "images"
        columns = self._columns()
        result = AUResult(self.aus, record, files=files, **columns)
        bar = progress_bar(
            reader,
            total=reader.frame_count,
            unit="frame",
            desc=printable(Path(reader.name).name),
            disable=not self._progress,
        )
        frames: Iterable[Frame] = bar
        batch_size = None
        if reader.kind == "camera":
            frames = _until(bar, seconds)
            batch_size = 1
        # Frames in which the overlay draws a missing face in grey; images have no missing faces.
        hold = 0 if independent else self._options.max_gap
        try:
            with ExitStack() as stack:
                stack.enter_context(reader)
                # The bar is closed before anything else is printed.
                stack.callback(bar.close)
                outputs = stack.enter_context(
                    open_outputs(
                        self.aus,
                        record,
                        reader,
                        save,
                        overlay,
                        hold=hold,
                        anonymise=self.anonymise,
                        find_faces=self._find_faces,
                        **columns,
                    )
                )
                pairs = score_frames(
                    frames,
                    self._options,
                    keep=outputs.video is not None,
                    independent=independent,
                    batch_size=batch_size,
                )
                _collect(pairs, result, outputs, reader)
        except PyfauError as error:
            error.partial_result = result
            raise
        return result

    def _find_faces(self, rgb: UInt8Array) -> list[npt.NDArray[np.float32]]:
        """The boxes of all faces of an image, also of those that the tracker does not follow."""
        return [face.box_xyxy for face in self._options.aligner.detect(rgb)]


def _collect(
    pairs: Iterable[tuple[Frame, list[AURow]]],
    result: AUResult,
    outputs: Outputs,
    reader: FrameReader,
) -> None:
    """Put the rows of a source into its result and its files, with its warnings and failures."""
    # Also after an error: warnings and failures go into the table before it is closed.
    try:
        for frame, rows in pairs:
            result.extend(rows)
            outputs.write(frame, rows)
        outputs.finish(result.metadata)
    finally:
        result.failures.extend(reader.failures)
        result.warnings.extend([*reader.warnings, *outputs.warnings])
        result.warnings.extend(quality_warnings(result))
        outputs.note(result.failures, result.warnings)


def _describe_source(reader: FrameReader, independent: bool) -> dict[str, Any]:
    """The input, for the metadata of its result."""
    described: dict[str, Any] = {
        "source": reader.name,
        "fps": reader.fps,
        "independent": independent,
    }
    if reader.kind in ("video", "images"):
        described["input"] = file_record(reader.name)
    return described


def _until(frames: Iterable[Frame], seconds: float | None) -> Iterator[Frame]:
    """The frames up to a time, or up to Ctrl-C during the wait for the next frame."""
    source = iter(frames)
    while True:
        try:
            frame = next(source, None)
        except KeyboardInterrupt:
            return
        if frame is None or (seconds is not None and frame.time_s > seconds):
            return
        yield frame


def _aligner_options(aligner: str | Aligner, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of the aligner's constructor."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise OptionError(f"aligner_options must be a mapping, got {options!r}")
    if not all(isinstance(name, str) for name in options):
        raise OptionError(f"the keys of aligner_options must be text, got {options!r}")
    if options and not isinstance(aligner, str):
        raise OptionError("aligner_options need the name of an aligner; got an aligner object")
    return dict(options)


def _points_of(aligner: Aligner, device: torch.device) -> MeshPoints:
    """The landmark network: the aligner's own if it has one."""
    return aligner.points if isinstance(aligner, MeshAligner) else MeshPoints(device)


def _check_has_template(config: Any) -> None:
    """Check that the model has a template: aligned crops need one."""
    if config.crop.kind != "template":
        raise OptionError(
            f"aligner 'aligned' is for models with a template; {config.name} has a crop of "
            f"kind {config.crop.kind!r}"
        )


def _outputs_of(
    config: Any, intensity: bool
) -> tuple[OutputLayout | None, tuple[str, ...], tuple[float, ...]]:
    """Layout of the network's outputs, names of the AUs and their thresholds.

    MDHR has one output for each AU and needs no layout: it is None then.
    """
    if not isinstance(config, FrameConfig):
        return None, config.au_names, config.thresholds
    layout = make_layout(config.outputs, intensity)
    return layout, layout.aus, layout.thresholds(config.thresholds)


def _describe_layout(
    layout: OutputLayout, crop: Crop, name: str, aligner: Aligner
) -> dict[str, Any]:
    """What a network of another kind than MDHR adds to the metadata."""
    described = {"crop": _describe_crop(crop, name, aligner)}
    if layout.intensity is not None:
        described["intensity"] = FROM_NETWORK
    return described


def _describe_crop(crop: Crop, name: str, aligner: Aligner) -> str:
    """The crop in words, for the metadata, and its difference from the crop of the authors."""
    if crop.kind == "template":
        return "template"
    if crop.kind == "ffhq":
        return "ffhq, from five landmarks"
    if detector_to_fit(crop.detector, aligner):
        return f"box of {crop.detector}, estimated from five landmarks"
    return f"box of {name}; the authors' boxes are those of {crop.detector}"


def _make_again(kind: type[AUDetector], arguments: dict[str, Any]) -> AUDetector:
    """Make a detector from the arguments of another one."""
    return kind(**arguments)


def _named_offsets(
    aus: tuple[str, ...], offsets: tuple[tuple[float, float], ...]
) -> dict[str, list[float]] | None:
    """The grade offsets by AU, for the metadata; None for rows without intensities."""
    if not offsets:
        return None
    return {au: list(pair) for au, pair in zip(aus, offsets, strict=True)}


def _thresholds(
    option: Threshold | None, aus: tuple[str, ...], own: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    thresholds = dict(zip(aus, own, strict=True))
    if isinstance(option, Mapping):
        for key, value in option.items():
            au = au_name(int(key)) if is_number(key) else key
            if au not in thresholds:
                raise OptionError(f"threshold for {key!r}: the model scores {', '.join(aus)}")
            thresholds[au] = value
    elif option is not None:
        thresholds = dict.fromkeys(aus, option)
    for au, value in thresholds.items():
        if not is_number(value) or not 0.0 <= value <= 1.0:
            raise OptionError(f"threshold of {au} must be a number in [0, 1], got {value!r}")
    return np.array(list(thresholds.values()), np.float32)
