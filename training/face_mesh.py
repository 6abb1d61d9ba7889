"""Trains, measures and exports the landmark network `face-mesh-lite`.

    python training/face_mesh.py train    --data ../runs/mesh --out ../runs/mesh/model.pt
    python training/face_mesh.py evaluate --data ../runs/mesh --model pyfau/assets/face-mesh-lite
    python training/face_mesh.py export   --data ../runs/mesh --checkpoint ../runs/mesh/model.pt \
        --out pyfau/assets/face-mesh-lite

The learning rate depends on the elapsed share of `--minutes`. So the training ends on time, with
fewer steps on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mesh_augment import TENTH, Augment, cut, similarity
from mesh_data import SIDE, eye_distance
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pyfau.faces.mesh_network import FLAT, LAYERS, OUTPUTS, MeshNetwork

BATCH = 64
PEAK_RATE, WEIGHT_DECAY = 4e-3, 1e-3
WARM_UP = 0.06  # share of the time
EMA = 0.999
WEIGHTS = {"points": 1.0, "openness": 0.05, "frame": 0.3, "presence": 0.1, "visible": 0.05}


class TrainingNetwork(nn.Module):
    """`MeshNetwork` with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
            for inner, outer, kernel, stride in LAYERS
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outer) for _, outer, _, _ in LAYERS)
        self.head = nn.Linear(FLAT, sum(OUTPUTS.values()))
        nn.init.normal_(self.head.weight, 0, 0.005)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Take the outputs of crops, as `MeshNetwork.forward`."""
        x = pixels / 255
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = F.relu(norm(convolution(x)), inplace=True)
            x = x + y if x.shape == y.shape else y
        # In bfloat16, the offsets of the points would be rounded by up to a tenth of a pixel.
        with torch.autocast("cpu", enabled=False):
            out: Tensor = self.head(x.flatten(1).float())
        return out


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `MeshNetwork` for those of `TrainingNetwork`."""
    folded = {name: state[name].clone() for name in ("head.weight", "head.bias")}
    for i in range(len(LAYERS)):
        norm = f"norms.{i}."
        scale = state[norm + "weight"] / (state[norm + "running_var"] + 1e-5).sqrt()
        weight = state[f"convolutions.{i}.weight"] * scale[:, None, None, None]
        folded[f"convolutions.{i}.weight"] = weight / 255 if i == 0 else weight
        folded[f"convolutions.{i}.bias"] = (
            state[norm + "bias"] - state[norm + "running_mean"] * scale
        )
    return folded


def split_outputs(out: Tensor) -> dict[str, Tensor]:
    """The outputs by name, (K, ...)."""
    parts = dict(zip(OUTPUTS, out.split(list(OUTPUTS.values()), dim=1), strict=True))
    parts["points"] = parts["points"].unflatten(1, (-1, 2))
    return parts


def wing(error: Tensor, width: float = 0.15, curve: float = 0.05) -> Tensor:
    """Wing loss of absolute errors: logarithmic for small errors, linear for large ones."""
    constant = width - width * math.log(1 + width / curve)
    return torch.where(error < width, width * torch.log(1 + error / curve), error - constant)


def losses(out: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weighted losses of a batch by name."""
    parts = split_outputs(out)
    weight = target["weight"][..., None]
    points = (wing((parts["points"] - target["points"]).abs()) * weight).sum() / (
        2 * weight.sum() + 1e-6
    )
    face = torch.isfinite(target["frame"][:, 0])
    frame = F.smooth_l1_loss(parts["frame"][face], target["frame"][face], beta=0.05)
    opened = face & (target["weight"][:, 36:48].mean(1) > 0.8)
    openness = F.binary_cross_entropy_with_logits(
        parts["openness"][opened], target["openness"][opened]
    )
    presence = F.binary_cross_entropy_with_logits(parts["presence"][:, 0], target["presence"])
    visible = F.binary_cross_entropy_with_logits(parts["visible"][face, 0], target["visible"][face])
    found = dict(points=points, openness=openness, frame=frame, presence=presence, visible=visible)
    return {name: loss * WEIGHTS[name] for name, loss in found.items()}


def load_split(folder: Path, split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Crops and columns of a split."""
    return np.load(folder / f"{split}_crops.npy", mmap_mode="r"), dict(
        np.load(folder / f"{split}.npz")
    )


def tensors(batch: dict[str, np.ndarray]) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels and targets of a batch."""
    pixels = torch.from_numpy(batch.pop("views")).permute(0, 3, 1, 2).float()
    return pixels, {name: torch.from_numpy(value) for name, value in batch.items()}


def rate_at(progress: float) -> float:
    """Learning rate for the share of the time that has passed."""
    if progress < WARM_UP:
        return PEAK_RATE * (0.1 + 0.9 * progress / WARM_UP)
    share = (progress - WARM_UP) / (1 - WARM_UP)
    return PEAK_RATE * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    crops, columns = load_split(args.data, "train")
    augment = Augment(crops, columns, columns["mean"], args.seed)
    network = TrainingNetwork().to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    end = args.until if args.until else time.time() + args.minutes * 60
    started, step, seen = time.time(), 0, {}
    while True:
        progress = (time.time() - started) / (end - started)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate_at(progress)
        pixels, target = tensors(augment.batch(BATCH))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bfloat16"):
            out = network(pixels)
        found = losses(out, target)
        loss = sum(found.values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        step += 1
        keep = min(EMA, (1 + step) / (20 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
        for name, value in found.items():
            seen[name] = 0.98 * seen.get(name, value.item()) + 0.02 * value.item()
        if step % 250 == 0:
            values = " ".join(f"{name} {value:.4f}" for name, value in seen.items())
            print(f"{step} {progress:.3f} cpu {time.process_time():.0f} s {values}", flush=True)
        if step % 1000 == 0:
            torch.save(average, args.out)
            print("  validation", judge(folded_network(average), args.data, "validation", 600))
    torch.save(average, args.out)
    print("validation", judge(folded_network(average), args.data, "validation"))


def folded_network(state: dict[str, Tensor]) -> MeshNetwork:
    network = MeshNetwork()
    network.load_state_dict(fold(state))
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def judge(
    network: MeshNetwork, folder: Path, split: str, most: int | None = None
) -> dict[str, float]:
    """Errors from displaced crops, in percent of the distance between the eyes.

    The crops are shifted by 2.5 px (of 96), rolled by 6 degrees and scaled by 5 % (standard
    deviations).
    """
    crops, columns = load_split(folder, split)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(crops))[:most]
    errors, kinds = [], []
    for start in range(0, len(order), BATCH):
        views, truths = [], []
        for i in order[start : start + BATCH]:
            scale = float(np.exp(rng.normal(0, 0.05)))
            matrix = similarity(rng.normal(0, 6), scale, rng.normal(0, 2.5, 2))
            views.append(cut(crops[i], matrix))
            truths.append(columns["points"][i] @ matrix[:, :2].T + matrix[:, 2])
        truth = np.stack(truths)
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
        parts = split_outputs(network(pixels))
        points = parts["points"].numpy() * TENTH + columns["mean"]
        off = np.linalg.norm(points - truth, axis=2)[:, :68].mean(1)
        errors.append(100 * off / eye_distance(truth))
        kinds.append(columns["kinds"][order[start : start + BATCH]])
    error, kind = np.concatenate(errors), np.concatenate(kinds)
    figures = {"all": error.mean(), "median": np.median(error)}
    figures |= {name: error[kind == name].mean() for name in ("face", "clip", "rendered")}
    return {name: round(float(value), 3) for name, value in figures.items()}


def export(args: argparse.Namespace) -> None:
    state = fold(torch.load(args.checkpoint))
    half = {name: value.half().contiguous() for name, value in state.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, value in np.load(args.data / "maps.npz").items():
        half[name] = torch.from_numpy(value).float().contiguous()
    save_file(half, str(args.out / "model.safetensors"))
    mean = np.load(args.data / "train.npz")["mean"]
    config = {"side": SIDE, "mean_face": [[round(float(v), 3) for v in p] for p in mean]}
    (args.out / "config.json").write_text(json.dumps(config) + "\n")


def evaluate(args: argparse.Namespace) -> None:
    network = MeshNetwork()
    state = load_file(args.model / "model.safetensors")
    own = network.state_dict()
    network.load_state_dict({name: state[name].float() for name in own})
    network.eval().to(memory_format=torch.channels_last)
    print(args.split, json.dumps(judge(network, args.data, args.split)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, command in (("train", train), ("evaluate", evaluate), ("export", export)):
        sub = commands.add_parser(name)
        sub.set_defaults(run=command)
        sub.add_argument("--data", type=Path, required=True)
    train_options, evaluate_options, export_options = commands.choices.values()
    train_options.add_argument("--out", type=Path, required=True)
    train_options.add_argument("--minutes", type=float, default=60)
    train_options.add_argument("--until", type=float, help="end at this time, seconds since 1970")
    train_options.add_argument("--seed", type=int, default=0)
    train_options.add_argument(
        "--precision",
        default="bfloat16",
        choices=("bfloat16", "float32"),
        help="float32 is faster on a CPU without AVX-512 BF16 or AMX",
    )
    evaluate_options.add_argument("--model", type=Path, required=True)
    evaluate_options.add_argument("--split", default="validation")
    export_options.add_argument("--checkpoint", type=Path, required=True)
    export_options.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.run(args)


if __name__ == "__main__":
    main()
