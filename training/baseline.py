"""The network to beat: a plain single-frame one, trained on nothing but the pictures of faces, on the same splits.

    python training/baseline.py --data ../runs/data

1.6 million parameters, the teacher's labels as soft targets; no animated faces, no clips, no renderings, no
auxiliary targets. Prints the same means over `data.JUDGED` as `evaluate.py` does of the bundled model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import AUS, TEACHER
from evaluate import SOURCES, Scored, agreement
from sampling import Batches, Source, shrink
from torch import Tensor, nn

from pyfau.models.backbones.small import SmallNet

WIDTHS, BATCH, RATE = (24, 48, 96, 192), 128, 3e-3
KNOWN = [AUS.index(au) for au in TEACHER]


class Plain(nn.Module):
    """Convolutions, their mean over the face, and a score for each action unit."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallNet(WIDTHS)
        self.head = nn.Linear(WIDTHS[-1], len(AUS))

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--passes", type=int, default=18, help="over the pictures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    faces = Source.load(args.data, "faces", "train")
    net = Plain().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} million parameters")
    steps = args.passes * len(faces.runs) // BATCH
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, steps)
    for step, batch in enumerate(Batches({"faces": faces}, {"faces": BATCH}, 1, range(steps), (0, 0), {})):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = net(batch.crops[:, 0].contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits[:, KNOWN].float(), batch.targets[:, 0, KNOWN])
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}: {loss.item():.4f}", flush=True)
    net.eval()
    for split in ("validation", "test"):
        scored = {name: scores_of(net, Source.load(args.data, name, split)) for name in SOURCES}
        print(f"{split}: {agreement(scored)['judged']}", flush=True)


if __name__ == "__main__":
    main()
