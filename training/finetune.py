r"""Fine-tune a network on BP4D or DISFA with the paper's losses and settings.

    python training/finetune.py --data bp4d --root ../bp4d --lists ../bp4d/list --fold 1 \
        --model best_model_fold2.pth --out ../runs/bp4d-fold1

The lists are those that `pyfau evaluate` reads, and the images are aligned. The script writes
checkpoint.pt (from which a stopped run continues), log.jsonl, figures.json, and the model
directories `last` and `best` (by F1 on the test part, as the official code chooses). If --model has
other action units, the parts that do not depend on them are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

from pyfau.errors import InputError, OptionError, PyfauError
from pyfau.evaluation.lists import CLIP_LENGTH, FOLDS, IGNORED, FrameList, find_images, read_list
from pyfau.evaluation.metrics import measure
from pyfau.evaluation.protocol import predict, read_aligned
from pyfau.models.config import BACKBONES, MDHRConfig
from pyfau.models.devices import resolve_device
from pyfau.models.mdhr import MDHR
from pyfau.models.paper import DATA_SETS, paper_config
from pyfau.weights.store import load_model, save_model

# The official code takes one clip from each 607 frames of DISFA's long videos.
DISFA_PIECE = 607
JITTER = (0.6, 1.4)  # of brightness, contrast and saturation
MARGIN = 256 / 224  # images are resized to this multiple of the input size, and cropped at random
SMALL = {
    "input_size": 112,
    "width": 128,
    "dynamic_channels": 192,
}  # a fresh small network: mdhr-lite's sizes
PER_AU = ("regions.", "temporal.", "classifier")  # tensors that belong to single action units
THRESHOLD = 0.5
SETTINGS = (
    "data",
    "fold",
    "model",
    "backbone",
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "region_weight",
    "seed",
)


def new_config(start: MDHRConfig | None, backbone: str, data: str, fold: int) -> MDHRConfig:
    """The configuration to train: the architecture of `start`, or a fresh one.

    Action units and template are those of the data set.

    A calibration of `start` is not taken over: it belongs to its weights and thresholds.
    """
    record = DATA_SETS[data]
    name = f"mdhr-{backbone.replace('_', '')}-{data}-fold{fold}"
    source = "trained by training/finetune.py"
    if start is None and backbone != "small":
        return paper_config(data, backbone, name, source)
    sizes = SMALL
    if start is not None:
        names = (
            "input_size",
            "width",
            "dynamic_channels",
            "mean",
            "std",
            "backbone_options",
            "head",
        )
        sizes = {name: getattr(start, name) for name in names}
    return MDHRConfig(
        name=name,
        backbone=backbone,
        aus=record.aus,
        regions=record.regions,
        project_regions=record.project_regions,
        template=record.template,
        thresholds=(THRESHOLD,) * len(record.aus),
        source=source,
        **sizes,
    )


def make_model(args: argparse.Namespace) -> MDHR:
    """The network to begin with."""
    start = load_model(args.model) if args.model else None
    backbone = start.config.backbone if start else args.backbone
    model = MDHR(new_config(start.config if start else None, backbone, args.data, args.fold))
    if start is not None:
        same = (start.config.regions, start.config.project_regions) == (
            model.config.regions,
            model.config.project_regions,
        )
        kept = {
            key: value
            for key, value in start.state_dict().items()
            if same or not key.startswith(PER_AU)
        }
        model.load_state_dict(kept, strict=same)
        taken = "everything" if same else "everything but the heads of its action units"
        print(f"from {start.config.name}: {taken}")
    if args.backbone_weights:
        state = read_state(args.backbone_weights)
        state = state.get("model", state)  # as Swin's authors wrap it
        unused = ("fc.", "head.")
        constants = ("relative_position_index", "attn_mask")
        try:
            state = {
                k: v
                for k, v in state.items()
                if not k.startswith(unused) and not k.endswith(constants)
            }
            model.backbone.load_state_dict(state)
        except (AttributeError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:500]
            raise OptionError(
                f"{args.backbone_weights} does not fit the backbone {backbone}: {reason}"
            ) from error
    return model


def read_state(path: Path) -> dict:
    """Read a file of torch.save without running code from it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # with damaged files, the unpickler can raise almost any exception
        raise InputError(
            f"{path} could not be read: {error if isinstance(error, OSError) else 'it is damaged'}"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds no state dict")
    return state


def training_videos(frames: FrameList) -> list[range]:
    """Positions of each video; DISFA's are taken in pieces."""
    starts = [i for i in range(len(frames)) if i == 0 or frames.videos[i] != frames.videos[i - 1]]
    videos = [range(a, b) for a, b in zip(starts, [*starts[1:], len(frames)], strict=True)]
    if frames.data == "disfa":
        videos = [v[i : i + DISFA_PIECE] for v in videos for i in range(0, len(v), DISFA_PIECE)]
    return videos


def load_clip(
    frames: FrameList, images: Path, video: range, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """One random clip, with the same augmentation in all frames.

    Returns:
        (16, S, S, 3) uint8 and (16, N) int8 labels; None if no image can be read.
        Filled frames, and those without an image, show their neighbour and are ignored.
    """
    stored = round(size * MARGIN)
    start = int(rng.integers(0, max(len(video) - CLIP_LENGTH, 0) + 1))
    x, y = (int(v) for v in rng.integers(0, stored - size + 1, 2))
    flip = bool(rng.integers(0, 2))
    factors = rng.uniform(*JITTER, 3)
    crops: list[np.ndarray | None] = []
    labels = np.full((CLIP_LENGTH, len(frames.aus)), IGNORED, np.int8)
    for i, position in enumerate(video[start : start + CLIP_LENGTH]):
        try:
            image = Image.fromarray(read_aligned(images / frames.paths[position], stored))
        except InputError:
            crops.append(None)
            continue
        image = image.crop((x, y, x + size, y + size))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color),
            factors,
            strict=True,
        ):
            image = enhance(image).enhance(float(factor))
        crops.append(np.asarray(image))
        labels[i] = frames.labels[position]
    readable = [crop for crop in crops if crop is not None]
    if not readable:
        return None
    stand_in, filled = readable[0], []
    for crop in crops + [None] * (CLIP_LENGTH - len(crops)):
        stand_in = stand_in if crop is None else crop
        filled.append(stand_in)
    return np.stack(filled), labels


def class_weights(labels: np.ndarray) -> Tensor:
    """(N,) one over the frequency of each AU, with mean 1; an AU that never occurs weighs 1."""
    known = labels != IGNORED
    rate = (labels == 1).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    weights = np.ones(labels.shape[1])
    weights[rate > 0] = 1 / rate[rate > 0]
    weights[rate > 0] /= weights[rate > 0].mean() if (rate > 0).any() else 1
    return torch.from_numpy(weights).float()


def weighted_asymmetric_loss(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The paper's loss on (..., N) scores.

    The weight of an absent AU is its own score; no gradient flows through this weight.

    Labels of -1 are left out of the mean.
    """
    known = labels != IGNORED
    y = labels.clamp_min(0).float()
    present = y * scores.clamp_min(1e-8).log()
    absent = (1 - y) * scores.detach() * (1 - scores).clamp_min(1e-8).log()
    return -((present + absent) * weights * known).sum() / known.sum().clamp_min(1)


def region_loss(logits: list[Tensor], labels: Tensor, config: MDHRConfig) -> Tensor:
    """Mean cross-entropy of the region heads.

    The class is the number whose bits are the group's AUs, the first AU highest.
    """
    losses = []
    for region, logit in zip(config.regions, logits, strict=True):
        group = labels[..., [config.aus.index(au) for au in region.aus]]
        known = (group != IGNORED).all(dim=-1)
        bits = 1 << torch.arange(len(region.aus) - 1, -1, -1, device=labels.device)
        classes = (group.clamp_min(0).long() * bits).sum(dim=-1)
        losses.append(
            F.cross_entropy(logit[known], classes[known]) if known.any() else logit.sum() * 0
        )
    return torch.stack(losses).mean()


def train_epoch(
    model: MDHR,
    adam: torch.optim.Optimizer,
    frames: FrameList,
    images: Path,
    epoch: int,
    args: argparse.Namespace,
) -> dict[str, float]:
    """One clip of every video, in random order; returns the mean losses."""
    videos = training_videos(frames)
    order = np.random.default_rng((args.seed, epoch)).permutation(len(videos))
    batches = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]
    weights = class_weights(frames.labels).to(model.device)
    totals = {"loss": 0.0, "score_loss": 0.0, "region_loss": 0.0}
    seen = unreadable = 0

    def load(index: int) -> tuple[np.ndarray, np.ndarray] | None:
        rng = np.random.default_rng((args.seed, epoch, int(index)))
        return load_clip(frames, images, videos[index], model.config.input_size, rng)

    model.train()
    with ThreadPoolExecutor(args.workers) as pool:
        coming = [pool.submit(load, index) for index in batches[0]]
        for number in tqdm(
            range(len(batches)), desc=f"epoch {epoch + 1}", unit="batch", disable=args.quiet
        ):
            loaded = [future.result() for future in coming]
            coming = (
                [pool.submit(load, index) for index in batches[number + 1]]
                if number + 1 < len(batches)
                else []
            )
            clips = [clip for clip in loaded if clip is not None]
            unreadable += len(loaded) - len(clips)
            if not clips:
                continue
            share = (epoch + number / len(batches)) / args.epochs
            for group in adam.param_groups:
                group["lr"] = args.lr * (1 + math.cos(math.pi * share)) / 2
            x = model.preprocess(np.stack([crops for crops, _ in clips]))
            labels = torch.from_numpy(np.stack([y for _, y in clips])).to(model.device)
            scores, logits = model.relate_regions(
                model.encode(x.flatten(0, 1)).unflatten(len(clips), CLIP_LENGTH)
            )
            score_loss = weighted_asymmetric_loss(scores, labels, weights)
            heads_loss = region_loss(logits, labels, model.config)
            loss = score_loss + args.region_weight * heads_loss
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            seen += len(clips)
            for name, value in (
                ("loss", loss),
                ("score_loss", score_loss),
                ("region_loss", heads_loss),
            ):
                totals[name] += value.item() * len(clips)
    if not seen:
        raise InputError(f"no image of {frames.source} could be read from {images}")
    if unreadable:
        print(
            f"epoch {epoch + 1}: {unreadable} clips without a readable image were left out",
            file=sys.stderr,
        )
    return {name: total / seen for name, total in totals.items()}


def validate(model: MDHR, frames: FrameList, images: Path) -> dict:
    model.eval()
    predictions = predict(model, frames, images)
    return measure(
        frames.labels, predictions.scores, predictions.scores >= np.float32(THRESHOLD), frames.aus
    )


def read_split(args: argparse.Namespace) -> tuple[FrameList, FrameList]:
    """The official training and test lists of a fold."""
    train, test = (read_list(args.data, args.lists, args.fold, part) for part in ("train", "test"))
    people = [{path.split("/")[0] for path in frames.paths} for frames in (train, test)]
    shared = people[0] & people[1]
    if shared:
        both = ", ".join(sorted(shared)[:5])
        raise InputError(
            f"{train.source} and {test.source} share people ({both}): expected a split by person"
        )
    return train, test


@dataclass
class Run:
    """A network in training, and what is stored of it.

    Attributes:
        model, adam: The network and its optimiser.
        out: The folder of all results.
        settings: Of the command line, those that a run must keep.
        done: Epochs that are finished.
        figures: Of the test part, for the networks `last` and `best`.
    """

    model: MDHR
    adam: torch.optim.Optimizer
    out: Path
    settings: dict[str, str]
    done: int = 0
    figures: dict = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The file from which a stopped run continues."""
        return self.out / "checkpoint.pt"

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one of the same settings."""
        if not self.checkpoint.exists():
            return
        state = read_state(self.checkpoint)
        if "settings" not in state:
            raise InputError(
                f"{self.checkpoint} is no checkpoint of this script: give another --out"
            )
        before, now = state["settings"], self.settings
        changed = [name for name in SETTINGS if before[name] != now[name]]
        wrong = [f"{name} {before[name]}, now {now[name]}" for name in changed]
        if wrong:
            raise OptionError(
                f"{self.checkpoint} is of another run ({', '.join(wrong)}): "
                "give another --out, or the same settings"
            )
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.done, self.figures = state["epoch"], state["figures"]

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        unfinished = self.checkpoint.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "epoch": self.done,
            "settings": self.settings,
            "figures": self.figures,
        }
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def keep(self, measured: dict, last: bool) -> None:
        """Write the network as `best` if its F1 is the highest so far, and as `last` at the end."""
        named = {"epoch": self.done, **measured}
        best = self.figures.get("best")
        if best is None or (measured["mean"]["f1"] or 0) > (best["mean"]["f1"] or 0):
            self.figures["best"] = named
            save_model(self.model, self.out / "best")
        if last:
            self.figures["last"] = named
            save_model(self.model, self.out / "last")
        text = json.dumps(self.figures, indent=2) + "\n"
        (self.out / "figures.json").write_text(text, encoding="utf-8")


def start_run(args: argparse.Namespace) -> Run:
    """The network and its optimiser, new or from the checkpoint."""
    torch.manual_seed(args.seed)
    model = make_model(args).requires_grad_(True).to(resolve_device(args.device))
    model = model.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot write to {args.out}: {error.strerror or error}") from error
    run = Run(model, adam, args.out, {name: str(getattr(args, name)) for name in SETTINGS})
    run.resume()
    return run


def finetune(args: argparse.Namespace) -> None:
    train, test = read_split(args)
    images, test_images = find_images(train, args.root), find_images(test, args.root)
    run = start_run(args)
    with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for epoch in range(run.done, args.epochs):
            started = time.time()
            losses = train_epoch(run.model, run.adam, train, images, epoch, args)
            run.done = epoch + 1
            record: dict = {"epoch": run.done, **losses}
            last = run.done == args.epochs
            if last or run.done % args.validate_every == 0:
                measured = validate(run.model, test, test_images)
                record["validation"] = measured["mean"]
                run.keep(measured, last)
            if last or run.done % args.checkpoint_every == 0:
                run.save()
            record["s"] = round(time.time() - started, 2)
            log.write(json.dumps(record) + "\n")
            log.flush()
            print(json.dumps(record), flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, choices=tuple(DATA_SETS))
    parser.add_argument("--root", type=Path, required=True, help="folder of the aligned images")
    parser.add_argument("--lists", type=Path, required=True, help="folder of the official lists")
    parser.add_argument("--fold", type=int, required=True, choices=FOLDS)
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--model", help="begin with this one: a name, model directory, .pth file or user/repo"
    )
    start.add_argument("--backbone", choices=BACKBONES, help="begin with a fresh network")
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        help="ImageNet weights: torchvision's ResNet-50 or Swin's own",
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8, help="clips")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--region-weight", type=float, default=0.01)
    parser.add_argument("--validate-every", type=int, default=25, help="epochs")
    parser.add_argument("--checkpoint-every", type=int, default=5, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--workers", type=int, default=4, help="threads that read images")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
    counts = (args.epochs, args.batch_size, args.validate_every, args.checkpoint_every)
    if min(*counts, args.workers) < 1:
        parser.error("counts must be at least 1")
    rates = (args.lr, args.weight_decay, args.region_weight)
    if not all(0 <= rate < math.inf for rate in rates) or args.seed < 0 or (args.threads or 1) < 1:
        parser.error(
            "--lr, --weight-decay, --region-weight, --seed and --threads must not be negative "
            "or infinite"
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        finetune(args)
    except PyfauError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
