"""Learning from several trained networks: what they say in the mean, of faces that are nobody's too.

On people whom none of them has seen, the mean opinion of networks is better than each of them. One network learns it
(distillation) from their opinion of the training pictures, and of mixtures of two faces, for which nobody has a label:
Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from baseline import KNOWN, Plain
from data import AUS, TEMPLATE
from evaluate import load, uncalibrated
from sampling import Batch
from torch import Tensor, nn

from pyfau.errors import PyfauError
from pyfau.models.mdhr import MDHR
from pyfau.models.packed import fold

MIXED, MOST = 0.5, 0.5  # share of the groups that are mixed with another face, and how much of that there is at most


def load_member(file: Path) -> nn.Module:
    """A network of train.py (a file or a model directory), or a plain one of baseline.py.

    Raises:
        SystemExit: It is none, or it was trained on other crops or for other action units.
    """
    try:
        saved = {} if file.is_dir() else torch.load(file, weights_only=True, map_location="cpu")
        if saved and "config" not in saved:
            return Plain.of(saved)
        net = uncalibrated(load(file))
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, PyfauError) as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"{file} is not a network of train.py or baseline.py: {reason}") from error
    if (net.config.template, net.config.aus) != (TEMPLATE, AUS):
        raise SystemExit(f"{file} was trained on crops of another template, or for other AUs: {net.config}")
    return net


class Committee:
    """Trained networks that are asked together.

    Args:
        members: MDHR, or plain ones, which do not know all action units. They are changed: norms are folded.
        device: Where they compute.
    """

    def __init__(self, members: Sequence[nn.Module], device: torch.device) -> None:
        for member in members:
            fold(member)
        self.members = [member.to(device, memory_format=torch.channels_last) for member in members]

    @torch.no_grad()
    def ask(self, crops: Tensor) -> Tensor:
        """(F, 3, CROP, CROP) in [0, 255] -> (F, N) scores: the mean of their log-odds."""
        odds = []
        for member in self.members:
            with torch.autocast(crops.device.type, dtype=torch.bfloat16):
                if isinstance(member, MDHR):
                    pixels = ((crops - member.mean) / member.std).contiguous(memory_format=torch.channels_last)
                    tokens = member.static(member.backbone(pixels)[1])
                    mine = member.relate_tokens(tokens[:, None])[0][:, 0].float().logit(1e-4)
                else:
                    every = member(crops.contiguous(memory_format=torch.channels_last)).float()
                    mine = torch.full_like(every, torch.nan)
                    mine[:, KNOWN] = every[:, KNOWN]
            odds.append(mine)
        return torch.stack(odds).nanmean(0).sigmoid()


def consult(committee: Committee, batch: Batch, real: int, group: int, rng: np.random.Generator) -> Batch:
    """A batch with the committee's opinion.

    Groups of real faces are mixed with another group, all crops of a group with the same share of it. Mixed faces have
    the committee's opinion for targets, and no other; the others the mean of it and of their label, and where they have
    none its opinion.

    Args:
        committee: Who is asked.
        batch: Sequences, those of real faces first.
        real: How many show real faces; the others are left as they are.
        group: Sequences of a group.
        rng: Where the chances come from.
    """
    groups, device = real // group, batch.crops.device
    share = rng.uniform(0, MOST, groups) * (rng.random(groups) < MIXED)
    mixed = torch.from_numpy(np.repeat(share > 0, group)).to(device)
    weight = torch.from_numpy(np.repeat(share, group)).to(device, torch.float32).view(-1, 1, 1, 1, 1)
    faces = batch.crops[:real].float()
    faces = torch.lerp(faces, faces.roll(group * int(rng.integers(1, groups)), 0), weight)
    opinion = committee.ask(faces.flatten(0, 1)).unflatten(0, faces.shape[:2])
    labels = batch.targets[:real]
    usable = ~labels.isnan() & ~mixed[:, None, None]
    crops, targets, shapes, points = (x.clone() for x in (batch.crops, batch.targets, batch.shapes, batch.points))
    crops[:real] = faces.round().to(torch.uint8)
    targets[:real] = torch.where(usable, (labels + opinion) / 2, opinion)
    shapes[:real][mixed], points[:real][mixed] = torch.nan, torch.nan
    return Batch(crops, targets, shapes, points)
