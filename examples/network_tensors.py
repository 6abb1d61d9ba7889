"""Use the network directly: encode each frame once, then score any window of frames.

python examples/network_tensors.py
"""

from __future__ import annotations

import numpy as np
import torch

import pyfau


def main() -> None:
    model = pyfau.load_model("mdhr-lite")
    size = model.config.input_size
    rng = np.random.default_rng(0)
    # Random pixels in place of the aligned face crops of 24 frames.
    crops = rng.integers(0, 256, (24, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        # Each frame is encoded once.
        features = model.encode(model.preprocess(crops))
        # (1, 16, N): one clip of 16 frames, as in the paper.
        clip = model.relate(features[:16].unflatten(1, 16))
        # (1, 10, N): the frames that have 7 frames on both sides.
        inner = model.relate(features.unflatten(1, 24), "inner")
    print("clip", tuple(clip.shape), "inner", tuple(inner.shape))
    for name, score in zip(model.config.au_names, clip[0].mean(dim=0), strict=True):
        print(f"{name} {score:.3f}")


if __name__ == "__main__":
    main()
