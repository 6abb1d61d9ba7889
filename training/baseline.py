"""The network to beat: a plain single-frame one, trained on nothing but the pictures of faces, on the same splits.

    python training/baseline.py --data ../runs/data --weights ../runs/plain.pt --against pyfau/assets/mdhr-lite

1.6 million parameters, the teacher's labels as soft targets; no animated faces, no clips, no renderings, no
auxiliary targets. Prints the same means over `data.JUDGED` as `evaluate.py` does of the bundled model, and by how much
that one is better over clips, with the interval in which nine of ten draws of people lie.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import AUS, JUDGED, TEACHER
from evaluate import (
    INTERVAL,
    SOURCES,
    Scored,
    agreement,
    correlations,
    draws_of_people,
    load,
    people_of,
    score,
    uncalibrated,
    within_each,
)
from sampling import Batches, Source, shrink
from torch import Tensor, nn

from pyfau.models.backbones.small import SmallNet

WIDTHS, BATCH, RATE, PASSES = (24, 48, 96, 192), 128, 3e-3, 18
KNOWN = [AUS.index(au) for au in TEACHER]


class Plain(nn.Module):
    """Convolutions, their mean over the face, and a score for each action unit."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallNet(WIDTHS)
        self.head = nn.Linear(WIDTHS[-1], len(AUS))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Plain:
        """The trained one whose weights these are."""
        net = cls()
        net.load_state_dict(state)
        return net.eval()

    def forward(self, crops: Tensor) -> Tensor:
        """(B, 3, CROP, CROP) uint8 -> (B, N) logits."""
        _, tokens = self.backbone((crops.float() - 128) / 64)
        return self.head(tokens.mean(1))


@torch.inference_mode()
def scores_of(net: Plain, source: Source) -> Scored:
    """Every crop by itself."""
    index = np.concatenate([np.arange(*run) for run in source.runs])
    parts = [shrink(source.crops[torch.from_numpy(part)].movedim(-1, -3)) for part in np.array_split(index, 64)]
    runs = np.repeat(np.arange(len(source.runs)), source.runs[:, 1] - source.runs[:, 0])
    scores = torch.cat([net(part).sigmoid() for part in parts]).numpy()
    return Scored(scores, source.targets.numpy()[index], runs, index)


def lead(ours: Scored, plain: Scored, people: np.ndarray) -> dict[str, list[float]]:
    """By how much correlations over and within clips are higher, means over `JUDGED`.

    Args:
        ours: Every frame of the clips, scored by one network,
        plain: by the other,
        people: (F,) and whom each shows.

    Returns:
        "over" and "within": the difference, and both ends of its interval over draws of people.
    """
    columns = [AUS.index(au) for au in JUDGED]
    clips = np.stack([within_each(ours, i) - within_each(plain, i) for i in columns])  # (AUs, R)
    first = np.unique(ours.runs, return_index=True)[1]

    def figures(frames: np.ndarray) -> tuple[float, float]:
        over = correlations(ours, columns, frames) - correlations(plain, columns, frames)
        times = np.bincount(frames, minlength=len(people))[first] * ~np.isnan(clips)  # each clip was drawn
        seen = times.any(axis=1)
        inside = np.nansum(clips * times, axis=1)[seen] / times.sum(axis=1)[seen]
        return float(over.mean()), float(inside.mean())

    drawn = np.nanpercentile([figures(frames) for frames in draws_of_people(people)], INTERVAL, axis=0)
    ends = np.vstack([figures(np.arange(len(people))), drawn]).T
    return {name: [round(float(x), 3) for x in mine] for name, mine in zip(("over", "within"), ends, strict=True)}


def join(parts: Sequence[Scored]) -> Scored:
    """Several splits as one."""
    runs, after = [], 0
    for part in parts:
        runs.append(part.runs + after)
        after += part.runs.max() + 1
    scores, targets, index = (np.concatenate([getattr(p, k) for p in parts]) for k in ("scores", "targets", "index"))
    return Scored(scores, targets, np.concatenate(runs), index)


def learn(data: Path, passes: int, seed: int, device: torch.device) -> Plain:
    """A trained one."""
    torch.manual_seed(seed)
    faces = Source.load(data, "faces", "train").to(device)
    net = Plain().to(device, memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} million parameters")
    steps = passes * len(faces.runs) // BATCH
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, steps)
    for step, batch in enumerate(Batches({"faces": faces}, {"faces": BATCH}, 1, range(steps), (seed, 0), {})):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = net(batch.crops[:, 0].contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits[:, KNOWN].float(), batch.targets[:, 0, KNOWN])
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if step % 50 == 0:
            print(f"plain network {seed}, step {step} of {steps}: {loss.item():.4f}", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--weights", type=Path, help="a file to keep it in; if it is there, nothing is trained")
    parser.add_argument("--against", type=Path, help="a model directory, or final.pt of train.py")
    parser.add_argument("--passes", type=int, default=PASSES, help="over the pictures")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.weights and args.weights.exists():
        net = Plain.of(torch.load(args.weights, weights_only=True, map_location="cpu"))
    else:
        net = learn(args.data, args.passes, args.seed, torch.device("cpu"))
        if args.weights:
            torch.save(net.state_dict(), args.weights)
    other = uncalibrated(load(args.against)) if args.against else None
    pairs: list[tuple[Scored, Scored]] = []
    for split in ("validation", "test"):
        sources = {name: Source.load(args.data, name, split) for name in SOURCES}
        scored = {name: scores_of(net, source) for name, source in sources.items()}
        print(f"{split}: {agreement(scored)['judged']}", flush=True)
        if other is not None:
            pairs.append((score(other, sources["clips"]), scored["clips"]))
            leads = lead(*pairs[-1], people_of(args.data, scored["clips"]))
            print(f"{split}, lead of {args.against}: {leads}", flush=True)
    if other is not None:
        ours, plain = (join(parts) for parts in zip(*pairs, strict=True))
        print(f"both, lead of {args.against}: {lead(ours, plain, people_of(args.data, ours))}")


if __name__ == "__main__":
    main()
