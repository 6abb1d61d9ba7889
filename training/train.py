r"""Step 2: train mdhr-lite.

    python training/train.py --data ../runs/data --out ../runs/lite

Three stages. "alone": single crops of all sources, so that backbone, regions and heads learn what each action unit
looks like; the dynamic branch is left out. Landmarks and the teacher's blendshapes are auxiliary targets. "together":
the same, with the mean opinion of several networks beside the labels (committee.py): what the first stage gave, plain
networks (baseline.py), which are trained before, and those of `--learn-from`; what is kept is the mean of the weights
before and after it. "windows": 16 frames of clips, of rendered people and of stills under a moving camera; the backbone
rests, everything behind it learns.

Ablations of the last stage, all from the same single-frame network:

    python training/train.py --data ../runs/data --out ../runs/no-dynamics --init ../runs/lite/together.pt \
        --stages windows --without dynamics

Writes checkpoint.pt (resumed from when it is there), log.jsonl, plain-SEED.pt, and at the end of the stages alone.pt,
together.pt (the single-frame ablation) and final.pt, the three with averaged weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from baseline import PASSES, learn
from committee import Committee, consult, load_member
from data import AUS, CROP, TEMPLATE
from evaluate import agreement, load, score_sources
from pytorch_optimizer import Muon
from sampling import POINTS, SHAPES, Batch, Batches, Source
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyfau.models.config import MDHRConfig, Region
from pyfau.models.mdhr import CONTEXT, MDHR, TCN_KERNEL, TOKENS, FrameFeatures, TemporalConvolution

CONFIG = MDHRConfig(
    name="mdhr-lite",
    version="8",
    backbone="small",
    backbone_options={"widths": (24, 64, 128, 192), "blocks": (0, 2, 2, 2), "local": 96},
    aus=AUS,
    regions=(
        Region("up", (0, 3), (1, 2, 4, 7, 43)),
        Region("mid", (2, 5), (6, 9)),
        Region("down1", (4, 7), (12, 14, 15)),
        Region("down2", (4, 7), (10, 17, 23, 24, 25, 26)),
    ),
    project_regions=True,
    template=TEMPLATE,
    thresholds=(0.5,) * len(AUS),
    input_size=CROP,
    width=128,
    dynamic_channels=128,
    head="logistic",
    source="trained by training/train.py",
)
# By some names the teacher and the renderer mean different things: real faces come first there. AU6 and AU9 are known
# exactly from rendered faces alone.
DISPUTED = (7, 14, 15, 17, 23, 24)
DRAWN_ALONE = (6, 9)
PROXY = 0.5  # how far the stand-ins for AU6 and AU9 on real faces count
NEIGHBOUR = 0.2  # share of either neighbour with which the convolution over time begins; chosen on validation
HINT = 0.1  # how strong the dynamic branch begins: at 0 its ReLU lets nothing through to learn from
ACTIVE = 0.35  # a target over it counts as active in the region classes


@dataclass(frozen=True)
class Stage:
    """The settings of a stage.

    Attributes:
        file: What it writes at its end.
        steps: How many, if nothing else is said.
        counts: Sequences of each source in a batch, rendered ones last.
        length: Of each sequence, in frames.
        rate: Highest learning rate.
        decay: Of the average of the weights.
        drawn: How far a label of a rendered face counts that is neither DISPUTED, which count nothing, nor DRAWN_ALONE.
    """

    file: str
    steps: int
    counts: dict[str, int]
    length: int
    rate: float
    decay: float
    drawn: float


GROUP = 4  # single crops of one clip or of one animated face, of which a batch has several: they are told apart
GROUPED = ("clips", "animated")  # the first of a batch, in multiples of GROUP
SINGLE = Stage("alone.pt", 6000, {"clips": 8, "animated": 32, "faces": 16, "rendered": 8}, 1, 3e-3, 0.998, 0.5)
STAGES = {
    "alone": SINGLE,
    "together": dataclasses.replace(SINGLE, file="together.pt", steps=1600),
    "windows": Stage("final.pt", 220, {"faces": 3, "clips": 6, "rendered": 4}, 16, 1e-3, 0.98, 0.3),
}
SQUEEZED = 32  # channels of a token from which the auxiliary targets are told
CHECKPOINT = "checkpoint.pt"
KEPT = ("init", "plain", "learn_from", "without", "hold_back", "seed", "scale")  # options that a run must not change
PARTS = ("dynamics", "cross_region", "temporal")  # that can be left out
REGION_LOSS, AGREEMENT_LOSS, SHAPES_LOSS, POINTS_LOSS = 0.02, 0.4, 0.2, 5.0
POINTS_CLOSE = 0.01  # half a pixel: from here on the loss of points falls with the square of the distance


class Trainee(nn.Module):
    """The network, and heads for the auxiliary targets that are thrown away afterwards.

    Args:
        config: Of the network.
        spread: (52,) standard deviations of the blendshapes, by which they are divided: many are small.
    """

    spread: Tensor

    def __init__(self, config: MDHRConfig, spread: Tensor) -> None:
        super().__init__()
        self.mdhr = MDHR(config)
        self.register_buffer("spread", spread)
        with torch.no_grad():
            # The temporal parts begin as if they were not there.
            self.mdhr.dynamics.output.norm.weight.zero_()
            self.mdhr.temporal.weight.zero_()
            self.mdhr.temporal.weight[TCN_KERNEL // 2] = 1.0
            self.mdhr.temporal.bias.zero_()
        self.squeeze = nn.Linear(config.width, SQUEEZED)
        self.shapes = nn.Linear(SQUEEZED * TOKENS, SHAPES)
        self.points = nn.Linear(SQUEEZED * TOKENS, 2 * POINTS)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """(B, T, 3, CROP, CROP) uint8 -> scores, region logits, blendshapes and points, all (B, T, ...)."""
        batch, length = x.shape[:2]
        net = self.mdhr
        pixels = (x.flatten(0, 1).float() - net.mean) / net.std
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if length == 1:
            _, tokens = net.backbone(pixels)
            static = net.static(tokens)
            scores, logits = net.relate_tokens(static.unflatten(0, (batch, length)))
        else:
            with torch.no_grad():
                scales, tokens = net.backbone(pixels)
            static = net.static(tokens)
            features = FrameFeatures(static, net.dynamics.encode(scales)).unflatten(batch, length)
            scores, logits = net.relate_regions(pad_ends(features), "inner")
            logits = [x[:, 2:-2] for x in logits]  # of the scored frames
        seen = F.relu(self.squeeze(static)).flatten(1)
        shape = (batch, length)
        return scores, logits, self.shapes(seen).unflatten(0, shape), self.points(seen).unflatten(0, shape)


@torch.no_grad()
def smooth(temporal: TemporalConvolution, neighbour: float) -> None:
    """Set the convolution over time to give each frame with this share of either neighbour in it."""
    middle, learnt = TCN_KERNEL // 2, temporal.weight.sum(0)
    temporal.weight.zero_()
    temporal.weight[middle - 1 : middle + 2] = neighbour * learnt
    temporal.weight[middle] = (1 - 2 * neighbour) * learnt


def leave_out(net: MDHR, parts: Sequence[str]) -> None:
    """Set parts of the network to where they change nothing, and keep them there."""
    frozen: list[nn.Parameter] = []
    with torch.no_grad():
        if "dynamics" in parts:
            frozen += net.dynamics.output.norm.parameters()
            net.dynamics.output.norm.weight.zero_()
            net.dynamics.output.norm.bias.zero_()
        if "cross_region" in parts:
            frozen.append(net.cross_region.linear.weight)
            net.cross_region.linear.weight.zero_()
        if "temporal" in parts:
            frozen += [net.temporal.weight, net.temporal.bias]
            smooth(net.temporal, 0.0)
    for parameter in frozen:
        parameter.requires_grad_(False)


def pad_ends(features: FrameFeatures) -> FrameFeatures:
    """Repeat the first and last frame of windows (B, T, ...), as the continuous window does at a track's ends."""

    def repeat(x: Tensor) -> Tensor:
        head = x[:, :1].expand(-1, CONTEXT, *x.shape[2:])
        tail = x[:, -1:].expand(-1, CONTEXT, *x.shape[2:])
        return torch.cat([head, x, tail], dim=1)

    return FrameFeatures(repeat(features.static), repeat(features.dynamic))


def label_weights(stage: Stage) -> Tensor:
    """(B, 1, N) how far each label of a batch counts."""
    rows = []
    for name, count in stage.counts.items():
        row = torch.ones(len(AUS))
        for i, au in enumerate(AUS):
            if name == "rendered" and au not in DRAWN_ALONE:
                row[i] = 0.0 if au in DISPUTED else stage.drawn
            elif name != "rendered" and au in DRAWN_ALONE:
                row[i] = PROXY
        rows.append(row.expand(count, 1, -1))
    return torch.cat(rows)


def disagreement(s: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Mean over AUs of one minus the concordance correlation of scores and targets (M, N); `weight` 0 hides."""
    total = weight.sum(0).clamp_min(1e-6)
    s_mean, y_mean = (s * weight).sum(0) / total, (y * weight).sum(0) / total
    s, y = (s - s_mean) * weight.sqrt(), (y - y_mean) * weight.sqrt()
    s_var, y_var = (s * s).sum(0) / total, (y * y).sum(0) / total
    shared = (s * y).sum(0) / total
    concordance = 2 * shared / (s_var + y_var + (s_mean - y_mean) ** 2 + 1e-4)
    usable = (y_var > 1e-3).float()
    return ((1 - concordance) * usable).sum() / usable.sum().clamp_min(1)


def motion_disagreement(s: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """`disagreement` of how scores and targets (G, T, N) of each person deviate from their own mean."""
    total = weights.sum(1, keepdim=True).clamp_min(1e-6)
    s, y = (v - (v * weights).sum(1, keepdim=True) / total for v in (s, y))
    # deviations are small: enlarged, so that their variances count
    return disagreement(5 * s.flatten(0, 1), 5 * y.flatten(0, 1), weights.flatten(0, 1))


def masked_mean(error: Tensor, known: Tensor) -> Tensor:
    return (error * known).sum() / known.sum().clamp_min(1)


def loss_of(trainee: Trainee, batch: Batch, stage: Stage, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast(batch.crops.device.type, dtype=torch.bfloat16):
        scores, logits, shapes, points = trainee(batch.crops)
    known = ~batch.targets.isnan()
    y = batch.targets.nan_to_num(0.0)
    s = scores.float().clamp(1e-4, 1 - 1e-4)
    weights = weights * known
    losses = {"score": (F.binary_cross_entropy(s, y, reduction="none") * weights).sum() / weights.sum()}
    region_loss = s.new_zeros(())
    for region, logit in zip(trainee.mdhr.config.regions, logits, strict=True):
        columns = [AUS.index(au) for au in region.aus]
        bits = torch.arange(len(columns) - 1, -1, -1, device=y.device)
        classes = ((y[..., columns] > ACTIVE).long() << bits).sum(-1)
        usable = known[..., columns].all(-1)
        error = F.cross_entropy(logit.float().flatten(0, -2), classes.flatten(), reduction="none")
        region_loss = region_loss + masked_mean(error, usable.flatten())
    losses["region"] = REGION_LOSS * region_loss
    drawn = stage.counts["rendered"]  # the last ones of a batch
    agreement = s.new_zeros(())
    for mine in (slice(-drawn), slice(-drawn, None)):  # within real and within drawn; over windows also within each
        agreement = agreement + disagreement(s[mine].flatten(0, 1), y[mine].flatten(0, 1), weights[mine].flatten(0, 1))
    losses["agreement"] = AGREEMENT_LOSS * agreement
    if stage.length > 1:
        losses["motion"] = AGREEMENT_LOSS * motion_disagreement(s, y, weights)
    else:
        grouped = sum(count for name, count in stage.counts.items() if name in GROUPED)
        own = [v[:grouped, 0].unflatten(0, (-1, GROUP)) for v in (s, y, weights)]
        losses["motion"] = AGREEMENT_LOSS * motion_disagreement(*own)
        named, placed = ~batch.shapes.isnan(), ~batch.points.flatten(2).isnan()
        told = batch.shapes.nan_to_num() / trainee.spread
        losses["shapes"] = SHAPES_LOSS * masked_mean((shapes.float() - told) ** 2, named)
        places = batch.points.flatten(2).nan_to_num()
        off = F.smooth_l1_loss(points.float(), places, reduction="none", beta=POINTS_CLOSE)
        losses["points"] = POINTS_LOSS * masked_mean(off, placed)
    return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}


def optimiser(trainee: Trainee, stage: Stage) -> Muon:
    """Muon for the matrices and filters inside the network, AdamW for what is at its ends and for vectors."""
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in trainee.named_parameters():
        if not p.requires_grad or (stage.length > 1 and name.startswith("mdhr.backbone.")):
            continue
        at_end = name.startswith(("shapes.", "points.", "mdhr.backbone.stem")) or name == "mdhr.classifier"
        matrix = p.ndim in (2, 4) and min(p.shape[0], p[0].numel()) > 4
        (plain if p.ndim <= 1 else inner if matrix and not at_end else outer).append(p)
    adam = {"use_muon": False, "betas": (0.9, 0.99)}
    return Muon(
        [
            {"params": inner, "use_muon": True, "lr": stage.rate, "use_adjusted_lr": True, "weight_decay": 0.05},
            {"params": outer, "lr": stage.rate, "weight_decay": 0.05, **adam},
            {"params": plain, "lr": stage.rate, "weight_decay": 0.0, **adam},
        ]
    )


def share_gradients(trainee: Trainee) -> None:
    """Replace the gradients by their mean over the processes."""
    mine = [p.grad for p in trainee.parameters() if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in mine])
    dist.all_reduce(together)
    for gradient, mean in zip(mine, (together / dist.get_world_size()).split([g.numel() for g in mine]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def rate_at(step: int, length: int) -> float:
    """Share of the highest learning rate: rising over 200 steps, and falling to 0."""
    return min(1.0, (step + 1) / min(200, length)) * max(0.0, 1 - step / length)


def write(what: object, file: Path) -> None:
    """Whole or not at all."""
    torch.save(what, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def save(net: MDHR, file: Path) -> None:
    write({"config": net.config.to_json(), "state": net.state_dict()}, file)


@torch.no_grad()
def halve(net: MDHR, before: MDHR) -> None:
    """Set a network to the mean of its weights and of those that it was trained from.

    Between a network and what further training made of it lie networks that are better on new people than both:
    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    others = before.state_dict()
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.lerp_(others[name], 0.5)


def as_first(averaged: nn.Module) -> None:
    """Set what this process has averaged, batch norms above all, to what the first process has."""
    for value in averaged.state_dict().values():
        whole = value.contiguous()
        dist.broadcast(whole, 0)
        value.copy_(whole)


def plain_files(args: argparse.Namespace) -> list[Path]:
    """Where plain networks are kept, whose seeds are 0, 1, ... whatever `--seed` says."""
    return [args.out / f"plain-{seed}.pt" for seed in range(args.plain)]


def plain_networks(args: argparse.Namespace, rank: int) -> list[nn.Module]:
    """Those to ask, trained if they are not there yet, shared among the processes."""
    files = plain_files(args)
    for seed in range(rank, len(files), int(os.environ.get("WORLD_SIZE", "1"))):
        if not files[seed].exists():
            write(learn(args.data, PASSES, seed, torch.device(args.device)).state_dict(), files[seed])
    if dist.is_initialized():
        dist.barrier()
    return [load_member(file) for file in files]


@dataclass
class Run:
    """What the stages share.

    Attributes:
        args: Of the command line.
        rank: Of this process; the first one writes.
        sources: What is trained on.
        trainee: What is trained.
        averaged: Its exponential average.
        others: Networks of `--learn-from`.
        ends: The step at which each stage ends.
        settings: Of the command line, for the checkpoint: those that a run must keep.
        saved: The checkpoint to go on from.
    """

    args: argparse.Namespace
    rank: int
    sources: dict[str, Source]
    trainee: Trainee
    averaged: torch.optim.swa_utils.AveragedModel
    others: list[nn.Module]
    ends: list[int]
    settings: dict[str, str]
    saved: dict | None

    def train(self, name: str, first: int, end: int) -> None:
        """One stage, from its first step or from where it was stopped."""
        args, trainee, averaged = self.args, self.trainee, self.averaged
        device, done = torch.device(args.device), self.saved["step"] if self.saved else 0
        file = args.out / STAGES[name].file
        if done >= end:
            if self.rank == 0 and done == end and not file.exists():  # it was stopped before it could write
                save(averaged.module.mdhr, file)
            return
        stage, single = STAGES[name], STAGES[name].length == 1
        stage = dataclasses.replace(stage, counts={k: n * args.scale for k, n in stage.counts.items()})
        weights = label_weights(stage).to(device)
        todo = range(max(done, first), end)
        averaged.multi_avg_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(stage.decay)
        if todo.start == first:
            if dist.is_initialized():
                as_first(averaged)
            trainee.load_state_dict(averaged.module.state_dict())  # whose batch norms suit it
            averaged.n_averaged.zero_()  # the average begins anew
            if not single:
                smooth(trainee.mdhr.temporal, NEIGHBOUR)
                nn.init.constant_(trainee.mdhr.dynamics.output.norm.weight, HINT)
        if not single:
            leave_out(trainee.mdhr, args.without)
        adam = optimiser(trainee, stage)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, partial(rate_at, length=end - first))
        if todo.start > first:
            adam.load_state_dict(self.saved["adam"])
            schedule.load_state_dict(self.saved["schedule"])
        committee = before = None
        if name == "together":
            plain = plain_networks(args, self.rank)  # by then the first process has written what the first stage gave
            before = args.init if self.ends[0] == 0 else args.out / STAGES["alone"].file
            committee = Committee([load_member(before), *plain, *self.others], device)
        workers = args.workers if device.type == "cpu" else 0
        batches = DataLoader(
            Batches(
                self.sources,
                stage.counts,
                stage.length,
                todo,
                (args.seed, self.rank),
                dict.fromkeys(GROUPED, GROUP) if single else {},
            ),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        recent: list[dict[str, Tensor]] = []
        started = time.time()
        for step, batch in zip(todo, batches, strict=True):
            trainee.train()
            if not single:
                trainee.mdhr.backbone.eval()  # it rests
            if committee is not None:
                chances = np.random.default_rng((args.seed, self.rank, step, 1))
                real = len(batch.crops) - stage.counts["rendered"]
                batch = consult(committee, batch, real, GROUP, chances)
            loss, parts = loss_of(trainee, batch, stage, weights)
            trainee.zero_grad(set_to_none=True)  # also those of the resting backbone
            loss.backward()
            if dist.is_initialized():
                share_gradients(trainee)
            nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
            adam.step()
            schedule.step()
            averaged.update_parameters(trainee)
            recent = [*recent[-49:], parts]
            done, last = step + 1, step + 1 == end
            if last and before is not None:
                halve(averaged.module.mdhr, load(before).to(device))
            if self.rank > 0 or not (done % 50 == 0 or last):
                continue
            seconds = time.time() - started
            record = {
                "step": done,
                "stage": name,
                **{k: round(float(torch.stack([r[k] for r in recent]).mean()), 5) for k in parts},
                "s": round(seconds),
                "s_a_step": round(seconds / (done - todo.start), 3),
            }
            if done % args.save_every == 0 or last:
                states = {"model": trainee, "averaged": averaged, "adam": adam, "schedule": schedule}
                checkpoint = {k: v.state_dict() for k, v in states.items()}
                checkpoint |= {"step": done, "ends": self.ends, "settings": self.settings}
                write(checkpoint, args.out / CHECKPOINT)
                model, mode = averaged.module.mdhr, "frames" if single else "windows"
                record["validation"] = agreement(score_sources(model, args.data, "validation", mode))["judged"]
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
        if self.rank == 0:
            save(averaged.module.mdhr, file)


def counted(least: int) -> Callable[[str], int]:
    """For a parser: whole numbers from `least` on."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
        return int(text)

    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    for name, stage in STAGES.items():
        parser.add_argument(f"--{name}-steps", type=counted(0), default=stage.steps)
    parser.add_argument("--init", type=Path, help="alone.pt or together.pt of another run, to go on from")
    parser.add_argument(
        "--plain", type=counted(0), default=1, help="plain networks to train and ask in the second stage"
    )
    parser.add_argument("--learn-from", nargs="+", type=Path, default=[], help="networks to ask there besides")
    parser.add_argument("--without", nargs="+", default=[], choices=PARTS, help="leave out of the last stage")
    parser.add_argument("--hold-back", action="store_true", help="leave half of the people of the clips out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=counted(1), default=1)
    parser.add_argument("--workers", type=counted(0), default=1, help="processes that prepare batches; on a GPU none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scale", type=counted(1), default=1, help="so many times the sequences of a batch")
    parser.add_argument("--save-every", type=counted(1), default=500, help="steps from checkpoint to checkpoint")
    args = parser.parse_args()
    steps = {name: vars(args)[f"{name}_steps"] if name in args.stages else 0 for name in STAGES}
    for option, needed in (("without", "windows"), ("learn_from", "together")):
        if vars(args)[option] and not steps[needed]:
            parser.error(f"--{option.replace('_', '-')} is of the stage {needed!r}, which is not run")
    if not steps["alone"] and args.init is None:
        parser.error("without the stage 'alone' the others go on from another run: --init")
    if not any(steps.values()):
        parser.error("no stage has a step to run")
    ends = list(accumulate(steps.values()))
    settings = {name: str(vars(args)[name]) for name in KEPT}
    checkpoint = args.out / CHECKPOINT
    saved = torch.load(checkpoint, weights_only=True, map_location=args.device) if checkpoint.exists() else None
    if saved and (saved["ends"][:-1] != ends[:-1] or saved["step"] > ends[-1]):
        raise SystemExit(f"{checkpoint} is of stages that end at the steps {saved['ends']}, not {ends}")
    if saved and saved["settings"] != settings:
        raise SystemExit(f"{checkpoint} is of a run with {saved['settings']}, not {settings}")
    if saved and saved["step"] == ends[-1]:
        print(f"{args.out}: all {ends[-1]} steps are done")
    device = torch.device(args.device)
    init, *others = (load_member(file) if file else None for file in (args.init, *args.learn_from))
    if init and not isinstance(init, MDHR):
        raise SystemExit(f"{args.init} is a plain network: expected alone.pt or together.pt of train.py")
    for file in plain_files(args):
        if file.exists():
            load_member(file)  # it is asked hours later
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if "RANK" in os.environ:  # torchrun sets it
        dist.init_process_group("gloo", timeout=timedelta(hours=3))  # one may have a plain network more to train
    sources = {
        # the wrinkles of animated faces do not move: no stand-ins
        name: Source.load(args.data, name, "train", proxies=name != "animated", hold_back=args.hold_back).to(device)
        for name in ("clips", "animated", "faces", "rendered")
    }
    shapes = sources["faces"].shapes
    spread = shapes[~shapes.isnan().any(1)].std(0).clamp_min(0.02)
    trainee = Trainee(CONFIG, spread).to(device, memory_format=torch.channels_last)
    if init:
        trainee.mdhr.load_state_dict(init.state_dict())
    averaged = torch.optim.swa_utils.AveragedModel(trainee, use_buffers=True)
    if saved:
        trainee.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args, int(os.environ.get("RANK", "0")), sources, trainee, averaged, others, ends, settings, saved)
    for name, first, end in zip(STAGES, [0, *ends], ends, strict=False):
        if end > first:
            run.train(name, first, end)


if __name__ == "__main__":
    main()
