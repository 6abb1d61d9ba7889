r"""Step 3: a mean of the weights of several trainings.

    python training/mean.py --models ../runs/a/coded.pt ../runs/b/coded.pt --shares 0.6 0.4 \
        --out ../runs/mean.pt

A mean of weights can be better on new people than each network, if all trainings started from the
same network: Wortsman et al., "Model soups", ICML 2022. Then the convolution over time gets a small
share of the neighbouring frames.

A model directory has no trained grade offsets. The mean then takes the values with which training
begins. export.py fits the offsets to the grades, with the mean as a weak prior.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from network import load_trainee, save_trainee
from train import mean_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--shares", type=float, nargs="+", required=True, metavar="SHARE")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if len(args.models) != len(args.shares):
        raise SystemExit(f"{len(args.models)} models, but {len(args.shares)} shares")
    networks = [load_trainee(path) for path in args.models]
    save_trainee(mean_of(networks, args.shares), args.out)


if __name__ == "__main__":
    main()
