r"""Step 2: train mdhr-lite.

    python training/train.py --data ../runs/data --init ../runs/mdhr-lite-8 --out ../runs/lite

Stages. Each starts from the network of the stage before:

coded    Single crops of coded images.
student  The same, but half of each target is the mean score of several networks: the result of
         "coded", and the networks of --learn-from. Uncoded frames of the training people have only
         this score as target. Rendered faces are added (Xie et al., "Self-training with noisy
         student improves ImageNet classification", CVPR 2020). The result is a mean of the weights
         before and after.
windows  16 consecutive frames, some of them coded. Only the parts that use neighbouring frames
         learn. The stage did not help, and runs only if it is named.

Each stage writes STAGE.pt (the exponential average of the weights) and appends to log.jsonl. A
stage whose file exists is not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import AUS
from network import SEES_TIME, Trainee, begin_time, leave_out, load_trainee, save_trainee, smooth
from sampling import Batch, Batches, Share, Source, pieces, shrink
from scoring import summary
from targets import mean_grade
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

RARE = (5, 7, 9, 10, 14, 15, 17, 18, 20, 23, 24, 28, 43)  # present in few images
RARE_WEIGHT = 2.0  # how much more often an image with one of them is drawn
MORE_CODERS = 1.5  # how much more often an image with two coders is drawn
RENDERED_ONLY = (9, 14, 23)  # only for these AUs are the renderer's labels used
LEVEL_WEIGHTS = (0.5, 1.0, 0.5)  # of a trace, present and strong in the loss
REGION_LOSS, SHAPES_LOSS = 0.02, 0.05
MIXUP = 0.3  # parameter of the beta distribution of mixup
HEAD_RATE = 2.5  # how much faster the parts behind the backbone learn
WARM_UP = 0.15  # share of the steps in which the learning rate rises
# Share of the frame before and of the frame after in the convolution over time; best on validation.
NEIGHBOUR = 0.1
STUDENT_SHARE = 0.4  # of the student in the mean of its weights and of those before it
EVERY = 50  # steps from one record of the log to the next


Sources = dict[str, Source]  # by name; with the crops of one aligner


@dataclass(frozen=True)
class Stage:
    """The settings of a stage.

    Attributes:
        steps: How many, by default.
        rate: Highest learning rate of the backbone.
        counts: How many sequences of each source a batch has.
        length: Frames of a sequence.
        decay: Of the average of the weights.
    """

    steps: int
    rate: float
    counts: dict[str, int]
    length: int = 1
    decay: float = 0.998


STAGES = {
    "coded": Stage(2200, 4e-4, {"faces": 52, "frames": 12}),
    "student": Stage(1600, 3e-4, {"faces": 38, "frames": 10, "unlabelled": 13, "rendered": 3}),
    "windows": Stage(100, 4e-4, {"frames": 12}, length=16, decay=0.98),
}


def image_weights(source: Source) -> np.ndarray:
    """(F,) how often each crop is drawn, relative to the others."""
    grades = source.columns["grades"]
    rare = [AUS.index(au) for au in RARE]
    shows_rare = (np.nan_to_num(mean_grade(grades))[:, rare] >= 0.5).any(axis=1)
    coders = (~np.isnan(grades)).any(axis=2).sum(axis=1)
    weights = np.where(shows_rare, RARE_WEIGHT, 1.0) * np.where(coders > 1, MORE_CODERS, 1.0)
    if "clip" in source.columns:
        _, clip, lengths = np.unique(
            source.columns["clip"], return_inverse=True, return_counts=True
        )
        weights = weights / np.sqrt(lengths[clip])  # a long clip shows one person again and again
    return weights


def rendered_only(source: Source) -> Source:
    """Hide the renderer's labels of action units that real faces show better."""
    others = [i for i, au in enumerate(AUS) if au not in RENDERED_ONLY]
    source.targets[:, others] = np.nan
    return source


def load_sources(folder: Path) -> Sources:
    """The sources that training uses, with the crops of one aligner."""
    sources = {name: Source.load(folder, name) for name in ("faces", "clips", "rendered")}
    rendered_only(sources["rendered"])
    return sources


def make_shares(aligners: Sequence[Sources], stage: Stage) -> dict[str, Share]:
    """The parts of a batch of a stage; each aligner has an equal part of the crops."""
    shares = {}
    for k, sources in enumerate(aligners):
        counts = {name: (count + k) // len(aligners) for name, count in stage.counts.items()}
        for name, share in _shares_of(sources, stage, counts).items():
            shares[f"{name} {k}"] = share
    return shares


def _shares_of(sources: Sources, stage: Stage, counts: dict[str, int]) -> dict[str, Share]:
    """The parts of a batch with the crops of one aligner."""
    clips, faces, rendered = sources["clips"], sources["faces"], sources["rendered"]
    coded_clips = clips.of_split("train") & clips.coded
    chosen = {
        "faces": (faces, faces.of_split("train") & faces.coded),
        "frames": (clips, coded_clips if stage.length == 1 else clips.of_split("train")),
        "unlabelled": (clips, clips.of_split("train") & ~clips.coded),
        "rendered": (rendered, rendered.of_split("train")),
    }
    shares = {}
    for name, count in counts.items():
        source, mine = chosen[name]
        sequences = source.sequences(mine, stage.length)
        if stage.length > 1:
            sequences = sequences[source.coded[sequences].any(axis=1)]
        if not len(sequences):
            raise SystemExit(f"no sequence of {stage.length} crops for {name!r} in the data")
        weights = image_weights(source)[sequences].max(axis=1)
        shares[name] = Share(source, sequences, weights, count)
    return shares


def computing_in(precision: str) -> torch.autocast:
    """A context in which layers compute in "bfloat16" or in "float32"."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.inference_mode()
def opinion(
    networks: Sequence[Trainee], crops: np.ndarray, precision: str = "bfloat16"
) -> np.ndarray:
    """Mean level probabilities of networks over images and their mirror images, (F, N, 3)."""
    parts = []
    for piece in pieces(len(crops), 128):
        x = shrink(crops[piece])
        with computing_in(precision):
            both = [net.frames(view)[0].float() for net in networks for view in (x, x.flip(-1))]
        parts.append(torch.stack(both).mean(0).sigmoid())
    return torch.cat(parts).numpy()


def teach(
    aligners: Sequence[Sources],
    networks: Sequence[Trainee],
    weight: float,
    precision: str = "bfloat16",
) -> None:
    """Mix the opinion of networks into the targets of the training images.

    Without a grade, the opinion is the target. Otherwise the target is a weighted mean of opinion
    and grade, with `weight` for the opinion.
    """
    for network in networks:
        network.eval()
    for source in [sources[name] for sources in aligners for name in ("faces", "clips")]:
        mine = np.flatnonzero(source.of_split("train"))
        told = opinion(networks, source.crops[mine], precision)
        graded = source.targets[mine]
        mixed = (1 - weight) * graded + weight * told
        source.targets[mine] = np.where(np.isnan(graded), told, mixed)


def mix(batch: Batch, rng: np.random.Generator) -> Batch:
    """Mixup: each crop is blended with another of the batch, and so are the targets.

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    """
    share = float(rng.beta(MIXUP, MIXUP))
    share = max(share, 1 - share)
    order = torch.from_numpy(rng.permutation(len(batch.crops)))
    crops = batch.crops.float()
    return Batch(
        share * crops + (1 - share) * crops[order],
        share * batch.targets + (1 - share) * batch.targets[order],
        share * batch.shapes + (1 - share) * batch.shapes[order],
    )


def level_loss(levels: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the three levels; unknown targets (NaN) do not count."""
    known = ~targets.isnan()
    error = F.binary_cross_entropy_with_logits(levels, targets.nan_to_num(), reduction="none")
    weights = known * torch.tensor(LEVEL_WEIGHTS)
    return (error * weights).sum() / weights.sum().clamp_min(1)


def region_loss(net: Trainee, logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of the class that names the present action units of each region."""
    present = targets[..., 1]
    total = targets.new_zeros(())
    for region, logit in zip(net.mdhr.config.regions, logits, strict=True):
        columns = [AUS.index(au) for au in region.aus]
        mine = present[:, columns]
        usable = ~mine.isnan().any(dim=1)
        bits = torch.arange(len(columns) - 1, -1, -1)
        classes = ((mine.nan_to_num() > 0.5).long() << bits).sum(-1)
        error = F.cross_entropy(logit.float(), classes, reduction="none")
        total = total + (error * usable).sum() / usable.sum().clamp_min(1)
    return total


def shapes_loss(shapes: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the teacher's blendshapes, an auxiliary target."""
    usable = ~known.isnan()
    error = F.binary_cross_entropy_with_logits(shapes, known.nan_to_num(), reduction="none")
    return (error * usable).sum() / usable.sum().clamp_min(1)


def loss_of(net: Trainee, batch: Batch, stage: Stage, precision: str = "bfloat16") -> Tensor:
    """The loss of one batch."""
    with computing_in(precision):
        if stage.length > 1:
            return level_loss(net.windows(batch.crops), batch.targets)
        levels, logits, shapes = net.frames(batch.crops[:, 0])
    targets = batch.targets[:, 0]
    loss = level_loss(levels.float(), targets)
    loss = loss + REGION_LOSS * region_loss(net, logits, targets)
    return loss + SHAPES_LOSS * shapes_loss(shapes.float(), batch.shapes[:, 0])


def make_optimiser(net: Trainee, stage: Stage) -> torch.optim.AdamW:
    """AdamW; the parts after the backbone learn faster, and vectors do not decay."""
    groups = []
    for in_backbone, rate in ((True, stage.rate), (False, HEAD_RATE * stage.rate)):
        for is_vector, decay in ((True, 0.0), (False, 0.05)):
            parameters = [
                p
                for name, p in net.named_parameters()
                if p.requires_grad
                and name.startswith("mdhr.backbone.") == in_backbone
                and (p.ndim <= 1) == is_vector
            ]
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups)


def prepare_time(net: Trainee) -> None:
    """Train only the parts that use neighbouring frames."""
    smooth(net.mdhr.temporal, NEIGHBOUR)
    begin_time(net.mdhr)
    learning = tuple(f"mdhr.{part}." for part in SEES_TIME)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(learning))


def run_stage(
    net: Trainee, aligners: Sequence[Sources], stage: Stage, args: argparse.Namespace, name: str
) -> Trainee:
    """Train one stage; the exponential average of the weights."""
    shares = make_shares(aligners, stage)
    if stage.length > 1:
        prepare_time(net)
    else:
        leave_out(net.mdhr, SEES_TIME)
    optimiser = make_optimiser(net, stage)
    steps = vars(args)[f"{name}_steps"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=steps,
        pct_start=WARM_UP,
    )
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(stage.decay), use_buffers=True)
    batches = DataLoader(
        Batches(shares, range(steps), args.seed), batch_size=None, num_workers=args.workers
    )
    started = time.time()
    recent: list[float] = []
    for step, batch in enumerate(batches):
        net.train(stage.length == 1)
        net.mdhr.dynamics.train()
        if name == "student":
            batch = mix(batch, np.random.default_rng((args.seed, step, 1)))
        loss = loss_of(net, batch, stage, args.precision)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(net)
        recent.append(loss.item())
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            record = {"stage": name, "step": step + 1, "loss": round(float(np.mean(recent)), 4)}
            record["seconds"] = round(time.time() - started)
            recent = []
            if (step + 1) % args.validate_every == 0 or step + 1 == steps:
                for folder, sources in zip(args.data, aligners, strict=True):
                    figures = summary(average.module, sources, "validation", stage.length > 1)
                    record[str(folder)] = figures
            log(args.out, record)
    return average.module


@torch.no_grad()
def mean_of(networks: Sequence[Trainee], shares: Sequence[float]) -> Trainee:
    """Set the first network to the weighted mean of all weights, and return it.

    Then the convolution over time gets a small share of the neighbouring frames.

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


def finish_student(net: Trainee, before: Trainee) -> None:
    """Set the student to a mean of its weights and of the weights from which it started.

    A mean of the weights before and after further training can be better on new people than both:
    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    mean_of([net, before], [STUDENT_SHARE, 1 - STUDENT_SHARE])


def log(out: Path, record: dict) -> None:
    """One line of log.jsonl, and on the screen."""
    print(record, flush=True)
    with (out / "log.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="what prepare.py wrote, one folder for each aligner",
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    parser.add_argument("--init", type=Path, required=True, help="a network to begin from")
    parser.add_argument("--learn-from", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--opinion-weight", type=float, default=0.5, metavar="SHARE")
    parser.add_argument("--stages", nargs="+", default=["coded", "student"], choices=STAGES)
    for name, stage in STAGES.items():
        parser.add_argument(f"--{name}-steps", type=int, default=stage.steps)
    parser.add_argument(
        "--precision",
        default="bfloat16",
        choices=("bfloat16", "float32"),
        help="float32 is faster on a CPU without AVX-512 BF16 or AMX",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    parser.add_argument("--validate-every", type=int, default=400, metavar="STEPS")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    aligners = [load_sources(folder) for folder in args.data]
    net = load_trainee(args.init)
    for name in args.stages:
        file = args.out / f"{name}.pt"
        if file.exists():
            net = load_trainee(file)
            continue
        before = copy.deepcopy(net)
        if name == "student":
            others = [load_trainee(path) for path in args.learn_from]
            teach(aligners, [before, *others], args.opinion_weight, args.precision)
        net = run_stage(net, aligners, STAGES[name], args, name)
        if name == "student":
            finish_student(net, before)
        save_trainee(net, file)


if __name__ == "__main__":
    main()
