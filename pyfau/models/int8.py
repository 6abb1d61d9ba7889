"""The encoder in 8-bit integers: read from a model directory or the cache, or made and cached.

A file in the cache starts with the sha256 of the ONNX file behind it. Its name is the hash of
everything that it depends on: weights, configuration, calibration crops and quantiser. So a damaged
file is made again, and an old file is never used instead of a new one.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfau.errors import InputError, OptionError, WeightsError
from pyfau.files import cache_path, read_file, replace_file
from pyfau.limits import LIMITS
from pyfau.locks import FileLock
from pyfau.models.config import network_text
from pyfau.models.engines import EngineFunction, import_onnxruntime, open_quantised, resolve_engine
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import MDHR
from pyfau.models.quantise import QUANTISER, quantise_encode
from pyfau.records import TEXT, check_record, parse_json
from pyfau.types import UInt8Array

INT8_FILE = "encode-int8.onnx"  # in a model directory, with INT8_RECORD
INT8_RECORD = "encode-int8.json"
_DIGEST = 32  # bytes of a sha256
_FACES = files("pyfau") / "assets" / "calibration"
_WAIT_S = 0.2  # seconds between two checks of a file that another process is making


@dataclass(frozen=True, slots=True)
class Int8Record:
    """The contents of encode-int8.json.

    Attributes:
        weights: Hash of weights and configuration, see `network_hash`.
        onnx: sha256 of encode-int8.onnx.
        frames: sha256 of the calibration crops.
        quantiser: Version of pyfau's quantiser.
    """

    weights: str
    onnx: str
    frames: str
    quantiser: int


def resolve_int8_engine(device: torch.device, engine: str) -> str:
    """The engine for int8: "onnxruntime" or "openvino".

    Raises:
        OptionError: int8 does not exist on this device or in this engine.
    """
    resolve_engine(engine)
    if device.type != "cpu":
        raise OptionError(f"precision 'int8' is for the CPU, and the device is {device}")
    if engine == "torch":
        raise OptionError(
            "precision 'int8' needs the engine 'onnxruntime', 'openvino' or 'auto', got 'torch'"
        )
    return "onnxruntime" if engine == "auto" else engine


def open_int8(
    model: MDHR | FrameNetwork, folder: Path | None = None, engine: str = "onnxruntime"
) -> EngineFunction:
    """The encoder of a network in 8-bit integers.

    Args:
        model: A plain network in eval mode on the CPU; not changed.
        folder: Its model directory, which may have the file of `pyfau quantise`.
        engine: "onnxruntime", or "openvino", which keeps sums in float32.

    Raises:
        DependencyError: The engine is not installed; or the file must be made, and onnx, onnxscript
            or onnxruntime is not installed.
        WeightsError: The file in the model directory is damaged or belongs to other weights.
        OptionError: There is no file, and the network does not take the crops that pyfau includes.
    """
    if engine == "onnxruntime":
        import_onnxruntime()
    data = None if folder is None else read_int8(folder, model)
    if data is None:
        data = _cached(model, float_sums=engine == "openvino")
    return open_quantised(data, engine)


def network_hash(model: MDHR | FrameNetwork) -> str:
    """Hexadecimal sha256 of what the outputs of a plain network depend on: config and weights."""
    digest = hashlib.sha256(network_text(model.config).encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_int8(folder: Path, model: MDHR | FrameNetwork) -> bytes | None:
    """The file of `pyfau quantise` in a model directory; None if there is none.

    Raises:
        WeightsError: It is damaged, or belongs to other weights.
    """
    path, record_path = folder / INT8_FILE, folder / INT8_RECORD
    if not path.is_file():
        return None
    again = "run `pyfau quantise` again"
    try:
        record = parse_json(read_file(record_path, LIMITS.metadata_bytes), INT8_RECORD)
        check_record(record, {"onnx": TEXT, "weights": TEXT}, INT8_RECORD)
        expected, weights = record["onnx"], record["weights"]
        data = path.read_bytes()
    except (OSError, InputError, KeyError) as error:
        raise WeightsError(f"{record_path} could not be read ({error}): {again}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise WeightsError(f"{path} is damaged: its sha256 is not that of {INT8_RECORD}; {again}")
    if weights != network_hash(model):
        raise WeightsError(f"{path} was made from other weights than those in {folder}; {again}")
    return data


# ---- the cache


def _cached(model: MDHR | FrameNetwork, float_sums: bool) -> bytes:
    """The file of the cache; it is made if it is missing or damaged."""
    crops = included_crops(model)
    path = _cache_path(model, crops, float_sums)
    data = None if path is None else _read_cached(path)
    if data is not None:
        return data
    if path is None:
        return quantise_encode(model, model.preprocess(crops), float_sums)
    lock = _take_turn(path)
    try:
        data = _read_cached(path)  # another process may have made it meanwhile
        if data is None:
            data = quantise_encode(model, model.preprocess(crops), float_sums)
            with suppress(OSError):  # such as a full disk: the file then is made at every start
                replace_file(path, hashlib.sha256(data).digest() + data)
    finally:
        if lock is not None:
            lock.release()
    return data


def _cache_path(model: MDHR | FrameNetwork, crops: UInt8Array, float_sums: bool) -> Path | None:
    """The place of the file; None where the folder cannot be found or made."""
    parts = (network_hash(model), crops_hash(crops), QUANTISER, float_sums)
    return cache_path("int8", parts, f"{model.config.name}-", ".bin")


def _read_cached(path: Path) -> bytes | None:
    """The ONNX file; None if there is none or it is damaged."""
    with suppress(OSError):
        content = path.read_bytes()
        digest, data = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(data).digest() == digest:
            return data
    return None


def _take_turn(path: Path) -> FileLock | None:
    """Wait until no other process is making the file; None if locks cannot be created."""
    while True:
        try:
            return FileLock(path)
        except OptionError:
            time.sleep(_WAIT_S)
        except OSError:
            return None


# ---- calibration crops


def crops_hash(crops: UInt8Array) -> str:
    """Hexadecimal sha256 of crops (F, S, S, 3) uint8."""
    return hashlib.sha256(np.ascontiguousarray(crops).tobytes()).hexdigest()


def included_crops(model: MDHR | FrameNetwork) -> UInt8Array:
    """The calibration crops in the package, for networks with the template of mdhr-lite.

    Returns:
        (F, S, S, 3) uint8 RGB.

    Raises:
        OptionError: The network takes crops of another size or template.
    """
    made_for = _description()
    size = int(made_for["input_size"])
    template = np.asarray(made_for["template"])
    config = model.config
    if config.input_size != size or not np.allclose(config.template, template, atol=1e-6):
        raise OptionError(
            f"precision 'int8' for {config.name} needs calibration on faces: run "
            f"`pyfau quantise MODEL --frames FACES -o DIR` and give DIR as the model"
        )
    return included_faces()


def included_faces() -> UInt8Array:
    """The calibration crops in the package: faces of different people.

    Returns:
        (F, S, S, 3) uint8 RGB.

    Raises:
        OptionError: OpenCV cannot decode them.
    """
    return _decode_sheet((_FACES / "faces.webp").read_bytes(), int(_description()["input_size"]))


def _description() -> Any:
    """The record that belongs to the calibration crops."""
    return parse_json((_FACES / "faces.json").read_bytes(), "faces.json")


def _decode_sheet(packed: bytes, size: int) -> UInt8Array:
    """Crops that lie in rows and columns of one image."""
    import cv2

    bgr: Any = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise OptionError("OpenCV cannot decode the calibration crops: this build lacks WebP")
    rows, columns = bgr.shape[0] // size, bgr.shape[1] // size
    tiles = bgr[..., ::-1].reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, size, size, 3), np.uint8)


# ---- how far scores are from float32


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """How far scores in int8 are from those in float32.

    Attributes:
        quantile_99: 99 of 100 scores differ by at most this.
        largest: Largest difference.
        within_01: Share of scores within 0.01.
        within_03: Share of scores within 0.03.
    """

    quantile_99: float
    largest: float
    within_01: float
    within_03: float


def compare_scores(got: Tensor, want: Tensor) -> ScoreDifference:
    """Compare two tensors of scores of the same shape."""
    difference = (got - want).abs().double().flatten().numpy()
    return ScoreDifference(
        float(np.quantile(difference, 0.99)),
        float(difference.max()),
        float((difference <= 0.01).mean()),
        float((difference <= 0.03).mean()),
    )


@torch.inference_mode()
def score_crops(model: MDHR | FrameNetwork, crops: UInt8Array) -> Tensor:
    """Outputs (F, N) of crops, each as an image on its own, for a range of 1."""
    if isinstance(model, FrameNetwork):
        ranges = torch.tensor([output.range[1] for output in model.config.outputs])
        parts = [crops[start : start + 8] for start in range(0, len(crops), 8)]
        return torch.cat([model.encode(model.preprocess(part)) for part in parts]) / ranges
    scores = []
    for start in range(0, len(crops), 8):
        features = model.encode(model.preprocess(crops[start : start + 8]))
        windows = type(features)(
            features.static.unsqueeze(1).expand(-1, 15, -1, -1),
            features.dynamic.unsqueeze(1).expand(-1, 15, -1, -1, -1),
        )
        scores.append(model.relate(windows, "inner")[:, 0])
    return torch.cat(scores)
