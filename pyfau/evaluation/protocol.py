"""The paper's protocol: clips of 16 frames through the network, kept video by video so that a run can go on."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pyfau.aligners import Aligner
from pyfau.crop import crop_face
from pyfau.errors import InputError, OptionError, PyfauError
from pyfau.evaluation.lists import CLIP_LENGTH, FrameList, cut_clips
from pyfau.models.mdhr import MDHR, FrameFeatures
from pyfau.tracker import FaceTracker
from pyfau.types import Failure, FloatArray, UInt8Array
from pyfau.video import read_picture

RECORD_FILE = "predictions.json"
_READERS = 4  # threads that read pictures ahead
_MISSING = "no such file"


@dataclass(slots=True)
class Predictions:
    """The scores of a list.

    Attributes:
        scores: (F, N) float32 in [0, 1], NaN for pictures that could not be scored; N AUs of the model.
        failures: The pictures that could not be scored, and why.
    """

    scores: FloatArray
    failures: list[Failure] = field(default_factory=list)


def read_aligned(path: Path, size: int) -> UInt8Array:
    """Read an aligned face picture and resize it as the authors do at test time: Pillow's bilinear filter, no crop.

    Args:
        path: A square picture of any size.
        size: The model's input size.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        InputError: The picture is missing, unreadable or not square.
    """
    rgb = read_picture(path)
    height, width = rgb.shape[:2]
    if height != width:
        raise InputError(f"{path}: {width} x {height} pixels; expected a square picture of an aligned face")
    if width == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BILINEAR))


class Store:
    """Predictions of one fold in a folder: one .npz a video, and a record of what made them.

    Args:
        folder: The folder; `open` makes it.
        record: What decides about the scores; compared with what the folder holds already.

    Attributes:
        folder, record: As given.

    Raises:
        OptionError: The folder holds predictions that something else made.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self.record = dict(record)
        if (folder / RECORD_FILE).is_file():
            there = read_record(folder)
            wrong = sorted(key for key in there.keys() | record.keys() if there.get(key) != record.get(key))
            if wrong:
                shown = "; ".join(f"{key} {there.get(key)!r}, now {record.get(key)!r}" for key in wrong)
                raise OptionError(f"{folder} holds other predictions ({shown}): give another --predictions folder")

    def load(self, video: str, paths: Sequence[str]) -> Predictions | None:
        """The scores of a video, if they are there, whole, and of just these pictures."""
        file = self._file(video)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                stored, scores = arrays["paths"].tolist(), arrays["scores"]
                failures = [Failure(*pair) for pair in arrays["failures"].tolist()]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None  # torn: it is made anew
        shape = (len(paths), len(self.record["aus"]))
        if stored != list(paths) or scores.shape != shape or scores.dtype != np.float32:
            return None
        return Predictions(scores, failures)

    def open(self) -> None:
        """Make the folder and its record, so that a folder that cannot be written is found before any work is done.

        Raises:
            OptionError: The folder cannot be written.
        """
        text = json.dumps(self.record, indent=2, ensure_ascii=False) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / RECORD_FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OptionError(f"cannot write predictions to {self.folder}: {error.strerror or error}") from error

    def save(self, video: str, paths: Sequence[str], predictions: Predictions) -> None:
        """Keep the scores of a video. A reader sees the whole file or none.

        Raises:
            OptionError: The folder cannot be written.
        """
        file = self._file(video)
        part = file.with_name(f".{file.name}.part")
        failures = [(failure.source, failure.error) for failure in predictions.failures]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                np.savez_compressed(
                    stream,
                    paths=np.array(paths),
                    scores=predictions.scores,
                    failures=np.array(failures, dtype=str).reshape(-1, 2),
                )
            part.replace(file)
        except OSError as error:
            raise OptionError(f"cannot write predictions to {file}: {error.strerror or error}") from error

    def _file(self, video: str) -> Path:
        return self.folder / f"{video}.npz"


def read_record(folder: Path) -> dict[str, Any]:
    """What made the predictions in a folder.

    Raises:
        InputError: The folder holds no predictions.
    """
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record["aus"], list) and isinstance(record["thresholds"], list):
            return record
        reason = "it is not a record of predictions"
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"{folder} holds no predictions: {RECORD_FILE}: {reason}")


def load_predictions(frames: FrameList, store: Store) -> Predictions:
    """Stored scores, without the network.

    Raises:
        InputError: Scores of a video are not there.
    """
    result = _empty(frames, len(store.record["aus"]))
    videos = _videos(frames)
    left = [video for video, clips in videos.items() if not _fill(result, frames, clips, video, store)]
    if left:
        raise InputError(
            f"{store.folder} holds no predictions for {len(left)} of {len(videos)} videos of {frames.source}, such as "
            f"{left[0]}: run once without --rescore"
        )
    return result


@torch.inference_mode()
def predict(
    model: MDHR,
    frames: FrameList,
    pictures: Path,
    *,
    store: Store | None = None,
    aligner: Aligner | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Predictions:
    """Score a list by the paper's protocol.

    Every picture is encoded once. A clip of fewer than 16 frames is filled by repeating its last; filled frames are not
    reported. For a picture that cannot be read, or in which the aligner finds no face, the one before it in its clip
    (or else the one after) stands in, and it has no score.

    Args:
        model: In eval mode.
        frames: The list.
        pictures: The folder that its paths are meant from.
        store: Keeps the scores of each video; videos that it has already are not scored again, unless a picture that
            was missing then is there now.
        aligner: None if the pictures are aligned; otherwise faces are found, tracked and cropped to the model's
            template, the largest where there are several.
        batch_size: Frames that are encoded together, at least a clip of 16.
        progress: Show a progress bar on standard error.

    Raises:
        InputError: No picture at all could be scored.
        OptionError: The store cannot be written.
    """
    result = _empty(frames, len(model.config.aus))
    if aligner is None:
        _check_squares(frames, pictures)
    if store is not None:
        store.open()
    clips_a_batch = max(1, batch_size // CLIP_LENGTH)
    batches: list[tuple[str, list[range], bool]] = []
    waiting = 0
    for video, clips in _videos(frames).items():
        if store is not None and _fill(result, frames, clips, video, store, pictures):
            continue
        starts = range(0, len(clips), clips_a_batch)
        parts = [clips[start : start + clips_a_batch] for start in starts]
        batches += [(video, part, part is parts[-1]) for part in parts]
        waiting += sum(map(len, clips))
    bar = tqdm(
        total=len(frames), initial=len(frames) - waiting, unit="frame", desc=f"fold {frames.fold}", disable=not progress
    )
    cropper = _Cropper(frames, model, aligner)
    done: list[range] = []
    failed: list[Failure] = []
    with bar, ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        read = _ahead(pool, frames, pictures, [part for _, part, _ in batches], model, aligner)
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
            f"none of the {len(frames)} pictures of {frames.source} could be scored; the first, {first.source}: "
            f"{first.error}"
        )
    return result


def _check_squares(frames: FrameList, pictures: Path) -> None:
    """Raw pictures should not be found out only after all of them have been read."""
    sizes = {}
    for path in frames.paths[:: max(1, len(frames) // 32)]:
        with suppress(Exception), Image.open(pictures / path) as picture:  # what is no picture is reported later
            sizes[path] = picture.size
    if sizes and not any(width == height for width, height in sizes.values()):
        path, (width, height) = next(iter(sizes.items()))
        raise InputError(
            f"{pictures / path}: {width} x {height} pixels, and no square picture among {len(sizes)} that were looked "
            f"at: expected aligned faces; for raw pictures, use --align"
        )


class _Cropper:
    """Pictures in their order to crops."""

    def __init__(self, frames: FrameList, model: MDHR, aligner: Aligner | None) -> None:
        self._frames = frames
        self._config = model.config
        self._tracker = FaceTracker(aligner, max_faces=1) if aligner is not None else None
        self._last: tuple[str, int, tuple[int, ...]] | None = None

    def crop(
        self, clips: Sequence[range], images: Sequence[UInt8Array | str]
    ) -> tuple[dict[int, UInt8Array], list[Failure]]:
        """Crops by position in the list, and the pictures without one."""
        crops: dict[int, UInt8Array] = {}
        failures = []
        for position, image in zip(_positions(clips), images, strict=True):
            crop = image if isinstance(image, str) or self._tracker is None else self._align(position, image)
            if isinstance(crop, str):
                failures.append(Failure(self._frames.paths[position], crop))
            else:
                crops[position] = crop
        return crops, failures

    def _align(self, position: int, rgb: UInt8Array) -> UInt8Array | str:
        assert self._tracker is not None
        video, number = self._frames.videos[position], int(self._frames.numbers[position])
        # A track does not outlast its video, a jump in it, or a change of the pictures' size.
        if self._last is not None and self._last != (video, number - 1, rgb.shape):
            self._tracker.reset()
        self._last = (video, number, rgb.shape)
        faces = self._tracker.update(rgb).faces
        if not faces:
            return "no face was found"
        try:
            return crop_face(rgb, faces[0].face.landmarks, self._config.template, self._config.input_size)
        except InputError as error:
            return str(error)


def _ahead(
    pool: ThreadPoolExecutor,
    frames: FrameList,
    pictures: Path,
    batches: Sequence[Sequence[range]],
    model: MDHR,
    aligner: Aligner | None,
) -> Iterator[list[UInt8Array | str]]:
    """The pictures of each batch, or the reason why one could not be read; the next batch is read meanwhile."""

    def read(path: str) -> UInt8Array | str:
        file = pictures / path
        try:
            return read_aligned(file, model.config.input_size) if aligner is None else read_picture(file)
        except PyfauError as error:
            return str(error).removeprefix(f"{file}: ")

    def start(batch: Sequence[range]) -> list[Future[UInt8Array | str]]:
        return [pool.submit(read, frames.paths[i]) for i in _positions(batch)]

    coming = start(batches[0]) if batches else []
    for number in range(len(batches)):
        futures = coming
        coming = start(batches[number + 1]) if number + 1 < len(batches) else []
        yield [future.result() for future in futures]


def _score(model: MDHR, clips: Sequence[range], crops: Mapping[int, UInt8Array], scores: FloatArray) -> None:
    """Scores of the crops into their rows."""
    if not crops:
        return
    features = model.encode(model.preprocess(np.stack(list(crops.values()))))
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
    windows: FrameFeatures = features[torch.tensor(index, device=model.device)].unflatten(len(scored), CLIP_LENGTH)
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
    pictures: Path | None = None,
) -> bool:
    """Take a video from the store; False if it must be scored (again)."""
    positions = _positions(clips)
    stored = store.load(video, [frames.paths[i] for i in positions])
    if stored is None:
        return False
    if pictures is not None and any(
        failure.error == _MISSING and (pictures / failure.source).is_file() for failure in stored.failures
    ):
        return False
    result.scores[positions] = stored.scores
    result.failures += stored.failures
    return True
