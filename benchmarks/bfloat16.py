"""How far the scores of the paper's networks in bfloat16 are from those in float32.

    python benchmarks/bfloat16.py --network bp4d_swin --sets 6

Each set has other random weights and another made-up clip of 16 frames, by the parity rule
(tests/oracle.py), because trained weights cannot be distributed. Prints for each set, and for all
of them together, the value that 99 % of the absolute differences do not exceed, the largest and the
mean. On a CPU that emulates bfloat16, a set takes minutes.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle

from pyfau.models.half import has_bfloat16
from pyfau.models.inference import prepare

NETWORKS = ("bp4d_resnet", "disfa_resnet", "bp4d_swin", "disfa_swin")
FIRST_SALT, FIRST_SEED = 21, 1


def differences(network: str, number: int) -> torch.Tensor:
    """Absolute differences of all scores of a set."""
    plain = oracle.random_model(network, salt=FIRST_SALT + number)
    frames = oracle.frames(FIRST_SEED + number, 1, 16)
    exact, half = prepare(copy.deepcopy(plain)), prepare(plain, torch.bfloat16)
    with torch.inference_mode():
        return (exact(frames) - half(frames)).abs().flatten()


def show(name: str, values: torch.Tensor) -> None:
    print(
        f"{name}: 99 % within {values.quantile(0.99):.4f}, largest {values.max():.4f}, "
        f"mean {values.mean():.5f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="bp4d_swin")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"bfloat16 instructions: {has_bfloat16()}")
    found = []
    for number in range(args.sets):
        found.append(differences(args.network, number))
        show(f"{args.network}, set {number}", found[-1])
    show(f"{args.network}, all sets", torch.cat(found))


if __name__ == "__main__":
    main()
