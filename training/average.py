"""The mean of the weights of two networks, of which one was trained from the other.

    python training/average.py ../runs/first/frames.pt ../runs/second/frames.pt --out ../runs/lite/mean.pt

Between a network and what further training made of it lie networks that are better on new people than both: Wortsman
et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from pyfau.models.config import MDHRConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, type=Path, help="frames.pt of two runs of train.py")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, second = (torch.load(file, weights_only=True, map_location="cpu") for file in args.files)
    configs = [
        MDHRConfig.from_json(saved["config"], str(file))
        for saved, file in zip((first, second), args.files, strict=True)
    ]
    if configs[0] != dataclasses.replace(configs[1], version=configs[0].version):
        raise SystemExit(f"{args.files[0]} and {args.files[1]} are not of the same network")
    state = {
        name: torch.lerp(value, second["state"][name], 0.5) if value.is_floating_point() else value
        for name, value in first["state"].items()
    }
    torch.save({"config": second["config"], "state": state}, args.out)


if __name__ == "__main__":
    main()
