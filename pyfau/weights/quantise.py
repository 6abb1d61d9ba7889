"""From a model and frames with faces to a model directory with an encoder in 8-bit integers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from pyfau.errors import MediaError, OptionError, WeightsError
from pyfau.faces.aligner import Aligner, load_aligner, resolve_aligner
from pyfau.faces.crop import crop_face
from pyfau.faces.crop_rules import cut_face
from pyfau.faces.fitted_boxes import detector_to_fit
from pyfau.faces.tracker import LOST_CONFIDENCE
from pyfau.files import read_text, reason_of
from pyfau.limits import LIMITS
from pyfau.media.readers import read_frames
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.inference import accelerate
from pyfau.models.int8 import (
    INT8_FILE,
    INT8_RECORD,
    Int8Record,
    ScoreDifference,
    compare_scores,
    crops_hash,
    network_hash,
    score_crops,
)
from pyfau.models.mdhr import MDHR
from pyfau.models.quantise import QUANTISER, check_quantisable, quantise_encode
from pyfau.types import Face, UInt8Array
from pyfau.weights.convert_official import check_new_folder
from pyfau.weights.manifest import read_manifest
from pyfau.weights.networks import NETWORKS
from pyfau.weights.store import load_model, save_model

MOST_CROPS = 512  # more change no range
FEWEST_CROPS = 4
CARD_FILE = "README.md"
_CARD = """
## int8

`{file}` computes the encoder in 8-bit integers (`precision="int8"`, ONNX Runtime). Its ranges come
from {calibrated} face crops (sha256 {frames:.16}...). On {measured} other crops, each scored as an
image, 99 of 100 scores are within {difference.quantile_99:.4f} of float32, and the largest
difference is {difference.largest:.4f}.
"""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What `quantise_model` made.

    Attributes:
        folder: The model directory.
        sha256: Of encode-int8.onnx.
        calibrated: Number of crops that the ranges come from.
        measured: Number of other crops, on which `difference` was measured.
        difference: How far scores are from float32.
    """

    folder: Path
    sha256: str
    calibrated: int
    measured: int
    difference: ScoreDifference


def quantise_model(
    name_or_path: str | Path,
    frames: str | Path,
    folder: Path,
    *,
    aligner: str = "auto",
    every: int = 1,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Quantised:
    """Write a model directory that `AUDetector` loads with `precision="int8"`.

    Args:
        name_or_path: As for `load_model`.
        frames: Images with faces of different people: a folder, a video, an image, or a text file
            with one path a line. Every second crop calibrates, the others measure.
        folder: New or empty directory. It appears complete, or not at all.
        aligner: What finds the faces: "auto" for the aligner of the model's config; "aligned" for
            images that are aligned crops already.
        every: Take one of this number of frames: neighbouring frames of a video are alike.
        revision: Commit, tag or branch of a Hub repository.
        local_files_only: Do not contact the Hub.

    Raises:
        DependencyError: onnx, onnxscript or onnxruntime is not installed.
        OptionError: The network computes in float32 only or cannot be exported, or the directory
            is not empty.
        MediaError: There are too few faces.
        WeightsError: The model could not be loaded, or the directory not be written.
    """
    check_new_folder(folder)
    if every < 1:
        raise OptionError(f"every must be at least 1, got {every}")
    plain = load_model(name_or_path, revision=revision, local_files_only=local_files_only)
    check_quantisable(plain)
    crops = _crops(plain, frames, aligner, every)
    calibration, other = crops[::2], crops[1::2]
    data = quantise_encode(plain, plain.preprocess(calibration))
    record = Int8Record(
        network_hash(plain), hashlib.sha256(data).hexdigest(), crops_hash(calibration), QUANTISER
    )
    want = score_crops(plain, other)
    try:
        with _new_folder(folder) as scratch:
            made = Path(scratch) / "model"
            save_model(plain, made)
            (made / INT8_FILE).write_bytes(data)
            text = json.dumps(dataclasses.asdict(record), indent=2) + "\n"
            (made / INT8_RECORD).write_text(text, encoding="utf-8")
            accelerate(plain, "int8", folder=made)
            difference = compare_scores(score_crops(plain, other), want)
            result = Quantised(folder, record.onnx, len(calibration), len(other), difference)
            card = _card(name_or_path, plain, result, record.frames)
            (made / CARD_FILE).write_text(card, encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} could not be written: {error}") from error
    return result


def _new_folder(folder: Path) -> Any:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)


def _crops(model: MDHR | FrameNetwork, source: str | Path, aligner: str, every: int) -> UInt8Array:
    """Crops (F, S, S, 3) of all faces in some frames, at most `MOST_CROPS`."""
    config: Any = model.config
    aligner = str(resolve_aligner(aligner, config))
    if aligner == "aligned" and not config.template:
        raise OptionError(f"aligner 'aligned' is for models with a template, got {config.name}")
    options: dict[str, Any] = {"template": config.template} if aligner == "aligned" else {}
    finder = load_aligner(aligner, torch.device("cpu"), **options)
    cut = _cutter(config, finder)
    crops: list[UInt8Array] = []
    with read_frames(_read_list(source)) as reader:
        for frame in reader:
            if frame.index % every:
                continue
            crops += [cut(frame.rgb, face) for face in _find_faces(finder, frame.rgb)]
            if len(crops) >= MOST_CROPS:
                break
    if len(crops) < FEWEST_CROPS:
        raise MediaError(f"{source} shows {len(crops)} faces, expected at least {FEWEST_CROPS}")
    return np.stack(crops[:MOST_CROPS])


def _find_faces(finder: Aligner, rgb: UInt8Array) -> list[Face]:
    """The faces of an image, as the tracker gets them from the aligner."""
    found = finder.detect(rgb)
    follow: Callable[..., list[Face]] | None = getattr(finder, "follow", None)
    if follow is None:
        return found
    return [face for face in follow(rgb, found) if face.confidence >= LOST_CONFIDENCE]


def _cutter(config: Any, finder: Aligner) -> Callable[[UInt8Array, Face], UInt8Array]:
    """How the network's faces are cut out of an image."""
    size = config.input_size
    if not isinstance(config, FrameConfig):
        template = np.array(config.template)
        return lambda rgb, face: crop_face(rgb, face.landmarks, template, size)
    fit_box = detector_to_fit(config.crop.detector, finder)
    return lambda rgb, face: cut_face(rgb, face, config.crop, size, fit_box)


def _read_list(source: str | Path) -> Any:
    """The paths in a text file, relative to it; other sources as they are."""
    path = Path(source)
    if path.suffix.lower() != ".txt":
        return source
    try:
        lines = read_text(path, LIMITS.metadata_bytes).splitlines()
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} could not be read: {reason_of(error)}") from error
    names = [str(path.parent / line.strip()) for line in lines if line.strip()]
    if not names:
        raise MediaError(f"{path} lists no images")
    return names


def _card(name: str | Path, model: MDHR | FrameNetwork, result: Quantised, frames: str) -> str:
    """The card of the source model, with what was made."""
    entry = read_manifest().get(str(name))
    own = Path(name) / CARD_FILE
    if own.is_file():
        text = read_text(own, LIMITS.metadata_bytes)
    else:
        facts = None if entry is None else entry.record
        config: Any = model.config
        network = config.network if isinstance(config, FrameConfig) else "mdhr"
        text = NETWORKS[network].card(config, facts)
    return (
        text.rstrip("\n")
        + "\n"
        + _CARD.format(
            file=INT8_FILE,
            frames=frames,
            calibrated=result.calibrated,
            measured=result.measured,
            difference=result.difference,
        )
    )
