"""The mean of the weights of two networks, of which one was trained from the other.

    python training/average.py ../runs/first/frames.pt ../runs/second/frames.pt --out ../runs/mean.pt

Between a network and what further training made of it lie networks that are better on new people than both: Wortsman
et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from evaluate import load
from train import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, type=Path, help="frames.pt of two runs of train.py")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, second = (load(file) for file in args.files)
    if first.config != dataclasses.replace(second.config, version=first.config.version):
        raise SystemExit(f"{args.files[0]} and {args.files[1]} are not of the same network")
    others = first.state_dict()
    state = {
        name: torch.lerp(others[name], value, 0.5) if value.is_floating_point() else others[name]
        for name, value in second.state_dict().items()
    }
    second.load_state_dict(state)
    save(second, second.config, args.out)


if __name__ == "__main__":
    main()
