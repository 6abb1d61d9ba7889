"""The paper's protocol: clips of 16 frames through the network.

A network that scores single frames gets the same frames, each on its own. Scores are stored after
each video, so that an interrupted run can continue.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from pyfau.cores import usable_cores
from pyfau.errors import InputError, OptionError, PyfauError
from pyfau.evaluation.lists import FrameList, cut_clips
from pyfau.faces.aligner import Aligner
from pyfau.faces.crop_rules import cut_face
from pyfau.faces.fitted_boxes import detector_to_fit
from pyfau.faces.tracker import FaceTracker
from pyfau.files import open_plain, read_file, reason_of, replace_file
from pyfau.limits import LIMITS, Limits
from pyfau.media.formats import open_image
from pyfau.media.images import read_image
from pyfau.messages import progress_bar
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import MDHR, FrameFeatures
from pyfau.models.paper import DATA_SETS
from pyfau.models.windows import CLIP_LENGTH
from pyfau.records import (
    NOTHING,
    NUMBER,
    TEXT,
    WHOLE,
    check_record,
    list_of,
    one_of,
    parse_json,
)
from pyfau.types import Failure, FloatArray, UInt8Array

RECORD_FILE = "predictions.json"
_RECORD_FIELDS = {
    "aus": list_of(TEXT),
    "thresholds": list_of(NUMBER),
    "data": TEXT,
    "model": TEXT,
    "sha256": TEXT,
    "backbone": TEXT,
    "clip_length": WHOLE,
    "aligner": one_of(TEXT, NOTHING),
    "crop": TEXT,
    "part": NUMBER,
}
# A file of stored scores has a name, scores and a reason for each image.
_BYTES_AN_IMAGE = 20_000
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error)
# By the version of an .npy file; numpy writes version 3 only for names that are not ASCII.
_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_READERS = 4  # threads that read images ahead
_MISSING = "no such file"
_SAME_TEMPLATE = 1e-4  # largest difference of two templates that count as one


@dataclass(slots=True)
class Predictions:
    """The scores of a list.

    Attributes:
        scores: (F, N) float32 in [0, 1] for the N AUs of the model; NaN for images that could not
            be scored.
        failures: The images that could not be scored, and why.
    """

    scores: FloatArray
    failures: list[Failure] = field(default_factory=list)


def read_aligned(path: Path, size: int, keep: float = 1.0, limits: Limits = LIMITS) -> UInt8Array:
    """Read an aligned face image and resize it as the authors do at test time.

    They use Pillow's bilinear filter.

    Args:
        path: A square image of any size.
        size: The model's input size.
        keep: The middle part of the image that the model gets, as a fraction of its side.
        limits: Larger images are refused.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The image is missing, unreadable or not square.
    """
    rgb = read_image(path, limits=limits)
    height, width = rgb.shape[:2]
    if height != width:
        raise InputError(
            f"{path}: {width} x {height} pixels; expected a square image of an aligned face"
        )
    full = round(size / keep)
    if width != full:
        rgb = np.asarray(Image.fromarray(rgb).resize((full, full), Image.Resampling.BILINEAR))
    edge = (full - size) // 2
    return np.ascontiguousarray(rgb[edge : edge + size, edge : edge + size])


def aligned_part(config: Any, data: str) -> float:
    """The middle part of the aligned images of a data set that a network gets.

    Args:
        config: Configuration of the network.
        data: "bp4d" or "disfa". Its aligned images put the face on the template of the paper.

    Returns:
        A fraction of the side: 1, or less for a network whose authors cut out the middle.

    Raises:
        OptionError: The network's crop is of another kind: it needs raw images.
    """
    if config.crop.kind != "template":
        raise OptionError(
            f"{config.name} needs raw images and --align: its crop is of kind "
            f"{config.crop.kind!r}, and the aligned images of {data} are made by a template"
        )
    images = np.array(DATA_SETS[data].template) - 0.5
    wanted = np.array(config.crop.template) - 0.5
    keep = float(np.linalg.norm(images) / np.linalg.norm(wanted))
    # For another template, the images are taken as they are; the report has a note.
    return keep if keep < 1 and np.abs(wanted * keep - images).max() < _SAME_TEMPLATE else 1.0


class Store:
    """Predictions of one fold in a folder: one .npz file per video, and a record of their origin.

    Args:
        folder: The folder; `open` makes it.
        record: Everything that the scores depend on; compared with the record in the folder.

    Attributes:
        folder, record: As given.

    Raises:
        OptionError: The folder has predictions with another record.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self.record = dict(record)
        if (folder / RECORD_FILE).is_file():
            there = read_record(folder)
            wrong = sorted(
                key for key in there.keys() | record.keys() if there.get(key) != record.get(key)
            )
            if wrong:
                shown = "; ".join(
                    f"{key} {there.get(key)!r}, now {record.get(key)!r}" for key in wrong
                )
                raise OptionError(
                    f"{folder} holds other predictions ({shown}): give another --predictions folder"
                )

    def load(self, video: str, paths: Sequence[str]) -> Predictions | None:
        """The scores of a video; None if they are missing, damaged or of other images."""
        file = self._file(video)
        try:
            _check_inflated(file, len(paths))
            with np.load(file, allow_pickle=False) as arrays:
                stored, scores = arrays["paths"].tolist(), arrays["scores"]
                failures = [Failure(*pair) for pair in arrays["failures"].tolist()]
        except FileNotFoundError:
            return None
        # RuntimeError: encrypted, or compressed in a way that Python does not have.
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, *_NO_ARCHIVE):
            return None  # damaged, so the video is scored again
        shape = (len(paths), len(self.record["aus"]))
        if stored != list(paths) or scores.shape != shape or scores.dtype != np.float32:
            return None
        return Predictions(scores, failures)

    def open(self) -> None:
        """Make the folder and its record: a folder that cannot be written is found before any work.

        Raises:
            OptionError: The folder cannot be written.
        """
        text = json.dumps(self.record, indent=2, ensure_ascii=False) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / RECORD_FILE, text.encode())
        except OSError as error:
            raise OptionError(
                f"cannot write predictions to {self.folder}: {error.strerror or error}"
            ) from error

    def save(self, video: str, paths: Sequence[str], predictions: Predictions) -> None:
        """Store the scores of a video. A reader sees the whole file or no file.

        Raises:
            OptionError: The folder cannot be written.
        """
        file = self._file(video)
        failures = [(failure.source, failure.error) for failure in predictions.failures]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            np.savez_compressed(
                stream,
                paths=np.array(paths),
                scores=predictions.scores,
                failures=np.array(failures, dtype=str).reshape(-1, 2),
            )
            replace_file(file, stream.getvalue())
        except OSError as error:
            raise OptionError(
                f"cannot write predictions to {file}: {error.strerror or error}"
            ) from error

    def _file(self, video: str) -> Path:
        return self.folder / f"{video}.npz"


def _check_inflated(file: Path, images: int) -> None:
    """Refuse a compressed file that decodes to much more than scores.

    Raises:
        ValueError: It does, or the header of an array announces more than the file has.
    """
    with open_plain(file) as stream, zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if size > _BYTES_AN_IMAGE * (images + 1):
            raise ValueError(f"it decodes to {size} bytes")
        for member in members:
            with archive.open(member) as array:
                _check_array(array, member.file_size)


def _check_array(array: IO[bytes], size: int) -> None:
    """Check the header of an array: numpy takes memory for what it announces.

    Args:
        array: An .npy file.
        size: Its bytes.

    Raises:
        ValueError: It announces more values than the file has bytes for, or is no such file.
    """
    version = np.lib.format.read_magic(array)
    if version not in _HEADERS:
        raise ValueError(f"its header has the version {version}")
    shape, _, kind = _HEADERS[version](array)
    if math.prod(shape) * max(1, kind.itemsize) > size:
        raise ValueError(f"its header announces {kind} {shape} in {size} bytes")


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of the predictions in a folder.

    Raises:
        InputError: The folder has no predictions.
    """
    try:
        text = read_file(folder / RECORD_FILE, LIMITS.metadata_bytes)
        record = parse_json(text, RECORD_FILE)
        check_record(record, _RECORD_FIELDS, RECORD_FILE)
        if not {"aus", "thresholds"} <= record.keys():
            raise InputError("it is not a record of predictions")
    except (OSError, InputError) as error:
        reason = reason_of(error)
        raise InputError(f"{folder} holds no predictions: {RECORD_FILE}: {reason}") from None
    found: dict[str, Any] = record
    return found


def load_predictions(frames: FrameList, store: Store) -> Predictions:
    """Stored scores, without the network.

    Raises:
        InputError: Scores of a video are not there.
    """
    result = _empty(frames, len(store.record["aus"]))
    videos = _videos(frames)
    left = [
        video for video, clips in videos.items() if not _fill(result, frames, clips, video, store)
    ]
    if left:
        raise InputError(
            f"{store.folder} holds no predictions for {len(left)} of {len(videos)} videos of "
            f"{frames.source}, such as {left[0]}: run once without --rescore"
        )
    return result


@torch.inference_mode()
def predict(
    model: MDHR | FrameNetwork,
    frames: FrameList,
    folder: Path,
    *,
    store: Store | None = None,
    aligner: Aligner | None = None,
    batch_size: int = 32,
    progress: bool = False,
    limits: Limits = LIMITS,
) -> Predictions:
    """Score a list by the paper's protocol.

    Every image is encoded once. A clip of fewer than 16 frames is filled by repeating its last
    frame; filled frames are not reported. An image that cannot be read, or in which the aligner
    finds no face, has no score. In its clip, the image before it (or else after it) replaces it.

    Args:
        model: In eval mode.
        frames: The list.
        folder: The folder that its paths start from.
        store: Keeps the scores of each video. Videos that it has are not scored again, unless a
            image that was missing then exists now.
        aligner: None if the images are aligned. Otherwise faces are found, tracked and cropped to
            the model, the largest if there are several.
        batch_size: Number of frames that are encoded together, at least a clip of 16.
        progress: Show a progress bar on standard error.
        limits: Larger images are refused.

    Raises:
        InputError: No image at all could be scored.
        OptionError: The store cannot be written.
    """
    result = _empty(frames, len(model.config.aus))
    keep = 1.0
    if aligner is None:
        keep = aligned_part(model.config, frames.data)
        _check_squares(frames, folder)
    if store is not None:
        store.open()
    clips_a_batch = max(1, batch_size // CLIP_LENGTH)
    batches: list[tuple[str, list[range], bool]] = []
    waiting = 0
    for video, clips in _videos(frames).items():
        if store is not None and _fill(result, frames, clips, video, store, folder):
            continue
        starts = range(0, len(clips), clips_a_batch)
        parts = [clips[start : start + clips_a_batch] for start in starts]
        batches += [(video, part, part is parts[-1]) for part in parts]
        waiting += sum(map(len, clips))
    bar = progress_bar(
        total=len(frames),
        initial=len(frames) - waiting,
        unit="frame",
        desc=f"fold {frames.fold}",
        disable=not progress,
    )
    cropper = _Cropper(frames, model, aligner)
    reader = partial(read_image, limits=limits)
    if aligner is None:
        size = model.config.input_size
        reader = partial(read_aligned, size=size, keep=keep, limits=limits)
    done: list[range] = []
    failed: list[Failure] = []
    with bar, ThreadPoolExecutor(min(_READERS, usable_cores())) as pool:
        read = _ahead(pool, frames, folder, [part for _, part, _ in batches], reader)
        for (video, part, last), images in zip(batches, read, strict=True):
            crops, failures = cropper.crop(part, images)
            failed += failures
            _score(model, part, crops, result.scores)
            done += part
            bar.update(sum(map(len, part)))
            if last:
                if store is not None:
                    positions = _positions(done)
                    names = [frames.paths[i] for i in positions]
                    store.save(video, names, Predictions(result.scores[positions], failed))
                result.failures += failed
                done, failed = [], []
    if not np.isfinite(result.scores).any():
        first = result.failures[0]
        raise InputError(
            f"none of the {len(frames)} images of {frames.source} could be scored; the first, "
            f"{first.source}: {first.error}"
        )
    return result


def _check_squares(frames: FrameList, folder: Path) -> None:
    """Check a few images first, so that raw images are reported before all have been read."""
    sizes = {}
    for path in frames.paths[:: max(1, len(frames) // 32)]:
        # An image that cannot be opened is reported later.
        with suppress(Exception), open_image(folder / path) as image:
            sizes[path] = image.size
    if sizes and not any(width == height for width, height in sizes.values()):
        path, (width, height) = next(iter(sizes.items()))
        raise InputError(
            f"{folder / path}: {width} x {height} pixels, and no square image among "
            f"{len(sizes)} that were looked at: expected aligned faces; for raw images, use "
            "--align"
        )


class _Cropper:
    """Turns images, in their order, into crops."""

    def __init__(
        self, frames: FrameList, model: MDHR | FrameNetwork, aligner: Aligner | None
    ) -> None:
        self._frames = frames
        self._config = model.config
        self._tracker = FaceTracker(aligner, max_faces=1) if aligner is not None else None
        self._fit_box = ""
        if aligner is not None:
            self._fit_box = detector_to_fit(model.config.crop.detector, aligner)
        self._last: tuple[str, int, tuple[int, ...]] | None = None

    def crop(
        self, clips: Sequence[range], images: Sequence[UInt8Array | str]
    ) -> tuple[dict[int, UInt8Array], list[Failure]]:
        """Crops by position in the list, and the images without a crop."""
        crops: dict[int, UInt8Array] = {}
        failures = []
        for position, image in zip(_positions(clips), images, strict=True):
            crop = image
            if self._tracker is not None and not isinstance(image, str):
                crop = self._align(position, image)
            if isinstance(crop, str):
                failures.append(Failure(self._frames.paths[position], crop))
            else:
                crops[position] = crop
        return crops, failures

    def _align(self, position: int, rgb: UInt8Array) -> UInt8Array | str:
        assert self._tracker is not None
        video, number = self._frames.videos[position], int(self._frames.numbers[position])
        # A track ends with its video, with a jump in it, or where the size of the images changes.
        if self._last is not None and self._last != (video, number - 1, rgb.shape):
            self._tracker.reset()
        self._last = (video, number, rgb.shape)
        faces = self._tracker.update(rgb).faces
        if not faces:
            return "no face was found"
        try:
            return cut_face(
                rgb, faces[0].face, self._config.crop, self._config.input_size, self._fit_box
            )
        except InputError as error:
            return str(error)


def _ahead(
    pool: ThreadPoolExecutor,
    frames: FrameList,
    folder: Path,
    batches: Sequence[Sequence[range]],
    reader: Callable[[Path], UInt8Array],
) -> Iterator[list[UInt8Array | str]]:
    """The images of each batch, or the reason why one could not be read.

    The next batch is read in threads meanwhile.
    """

    def read(path: str) -> UInt8Array | str:
        file = folder / path
        try:
            return reader(file)
        except PyfauError as error:
            return str(error).removeprefix(f"{file}: ")

    def start(batch: Sequence[range]) -> list[Future[UInt8Array | str]]:
        return [pool.submit(read, frames.paths[i]) for i in _positions(batch)]

    coming = start(batches[0]) if batches else []
    for number in range(len(batches)):
        futures = coming
        coming = start(batches[number + 1]) if number + 1 < len(batches) else []
        yield [future.result() for future in futures]


def _score(
    model: MDHR | FrameNetwork,
    clips: Sequence[range],
    crops: Mapping[int, UInt8Array],
    scores: FloatArray,
) -> None:
    """Write the scores of the crops into their rows."""
    if not crops:
        return
    x = model.preprocess(np.stack(list(crops.values())))
    if isinstance(model, FrameNetwork):
        scores[list(crops)] = model.encode(x).cpu().numpy()
        return
    features = model.encode(x)
    row_of = {position: row for row, position in enumerate(crops)}
    scored, index = [], []
    for clip in clips:
        rows = [row_of.get(position, -1) for position in clip]
        if max(rows) < 0:
            continue
        stand_in = next(row for row in rows if row >= 0)
        for i, row in enumerate(rows):
            stand_in = rows[i] = row if row >= 0 else stand_in
        index += rows + rows[-1:] * (CLIP_LENGTH - len(rows))
        scored.append(clip)
    windows: FrameFeatures = features[torch.tensor(index, device=model.device)].unflatten(
        len(scored), CLIP_LENGTH
    )
    relations = model.relate(windows).float().cpu().numpy()
    for clip, clip_scores in zip(scored, relations, strict=True):
        for position, row in zip(clip, clip_scores, strict=False):  # without the filled frames
            if position in row_of:
                scores[position] = row


def _videos(frames: FrameList) -> dict[str, list[range]]:
    """The clips of each video, in the order of the list."""
    videos: dict[str, list[range]] = {}
    for clip in cut_clips(frames):
        videos.setdefault(frames.videos[clip.start], []).append(clip)
    return videos


def _positions(clips: Sequence[range]) -> list[int]:
    return [position for clip in clips for position in clip]


def _empty(frames: FrameList, aus: int) -> Predictions:
    return Predictions(np.full((len(frames), aus), np.nan, np.float32))


def _fill(
    result: Predictions,
    frames: FrameList,
    clips: Sequence[range],
    video: str,
    store: Store,
    images: Path | None = None,
) -> bool:
    """Take a video from the store; False if it must be scored, for the first time or again."""
    positions = _positions(clips)
    stored = store.load(video, [frames.paths[i] for i in positions])
    if stored is None:
        return False
    if images is not None and any(
        failure.error == _MISSING and (images / failure.source).is_file()
        for failure in stored.failures
    ):
        return False
    result.scores[positions] = stored.scores
    result.failures += stored.failures
    return True
