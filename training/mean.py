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
from collections.abc import Sequence
from pathlib import Path

import torch
from network import Trainee, load_trainee, save_trainee, smooth
from train import NEIGHBOUR


@torch.no_grad()
def mean_of(networks: Sequence[Trainee], shares: Sequence[float]) -> Trainee:
    """The first network with the weighted mean of all weights.

    Args:
        networks: Networks with the same action units and regions.
        shares: Weight of each; they are divided by their sum.
    """
    total = sum(shares)
    states = [network.state_dict() for network in networks]
    for name, value in states[0].items():
        if value.is_floating_point():
            parts = [
                share / total * state[name] for share, state in zip(shares, states, strict=True)
            ]
            value.copy_(torch.stack(parts).sum(0))
    smooth(networks[0].mdhr.temporal, NEIGHBOUR)
    return networks[0]


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
