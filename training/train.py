"""Step 2: train mdhr-lite.

    python training/train.py --data ../runs/data --out ../runs/lite

Two stages. "frames": single crops, so that the backbone and the heads learn what each action unit looks like; the
dynamic branch sees no change. "windows": 16 frames of clips, of rendered people and of stills under a moving camera, so
that the dynamic branch and the temporal convolution learn. Writes checkpoint.pt (resumed from when it is there),
log.jsonl and, at the end, final.pt with the averaged weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import AUS, CROP, TEMPLATE
from evaluate import report
from sampling import Source, augment, gather
from torch import Tensor

from pyfau.models.config import MDHRConfig, Region
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures

CONFIG = MDHRConfig(
    name="mdhr-lite",
    version="1",
    backbone="small",
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
    dynamic_channels=192,
    source="trained by training/train.py",
)
# How far a label counts, by source. The teacher has no AU6 and AU9 (its targets are NaN there), and rendered faces mean
# something else by some names: they are trusted where they are the only source, and hardly where the two disagree.
TRUST = {"faces": {}, "clips": {}, "rendered": {14: 0.2, 15: 0.3, 17: 0.1, 23: 0.0, 24: 0.2, 7: 0.2}}
RENDERED_DEFAULT, RENDERED_ONLY = 0.4, 1.0
ACTIVE = 0.35  # a target over it counts as active in the region classes
STAGES = {
    # sequences of each source in a batch, length, learning rate of backbone and of the rest
    "frames": {"batch": {"faces": 48, "clips": 24, "rendered": 24}, "length": 1, "lr": (3e-3, 3e-3)},
    "windows": {"batch": {"faces": 2, "clips": 4, "rendered": 2}, "length": 16, "lr": (6e-4, 1.5e-3)},
}


def trust(source: str) -> Tensor:
    weights = torch.ones(len(AUS))
    if source == "rendered":
        weights.fill_(RENDERED_DEFAULT)
        for au in (6, 9):
            weights[AUS.index(au)] = RENDERED_ONLY
    for au, weight in TRUST[source].items():
        weights[AUS.index(au)] = weight
    return weights


def pad_ends(features: FrameFeatures) -> FrameFeatures:
    """Repeat the first and last frame of windows (B, T, ...), as the continuous window does at a track's ends."""

    def repeat(x: Tensor) -> Tensor:
        head = x[:, :1].expand(-1, CONTEXT, *x.shape[2:])
        tail = x[:, -1:].expand(-1, CONTEXT, *x.shape[2:])
        return torch.cat([head, x, tail], dim=1)

    return FrameFeatures(repeat(features.static), repeat(features.dynamic))


def loss_of(model: MDHR, x: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    batch, length = x.shape[:2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normalised = (x.flatten(0, 1) * 255 - model.mean) / model.std
        features = model.encode(normalised.contiguous(memory_format=torch.channels_last)).unflatten(batch, length)
        if length == 1:
            scores, logits = model.relate_regions(features)
        else:
            scores, logits = model.relate_regions(pad_ends(features), "inner")
            logits = [x[:, 2:-2] for x in logits]  # of the scored frames
    known = ~targets.isnan()
    y = targets.nan_to_num(0.0)
    s = scores.float().clamp(1e-4, 1 - 1e-4)
    weights = weights * known
    score_loss = (F.binary_cross_entropy(s, y, reduction="none") * weights).sum() / weights.sum().clamp_min(1)
    region_loss = torch.zeros(())
    for region, logit in zip(model.config.regions, logits, strict=True):
        columns = [AUS.index(au) for au in region.aus]
        bits = torch.tensor([1 << (len(columns) - 1 - i) for i in range(len(columns))])
        classes = ((y[..., columns] > ACTIVE).long() * bits).sum(-1)
        usable = known[..., columns].all(-1)
        if usable.any():
            region_loss = region_loss + F.cross_entropy(logit[usable].float(), classes[usable])
    return score_loss + 0.02 * region_loss, score_loss.detach()


def optimiser(model: MDHR, stage: str) -> torch.optim.Optimizer:
    backbone = list(model.backbone.parameters())
    rest = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    slow, fast = STAGES[stage]["lr"]
    return torch.optim.AdamW([{"params": backbone, "lr": slow}, {"params": rest, "lr": fast}], weight_decay=0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="a folder outside the repository")
    parser.add_argument("--frame-steps", type=int, default=2200)
    parser.add_argument("--window-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    sources = {name: Source.load(args.data, name, "train") for name in ("faces", "clips", "rendered")}
    model = MDHR(CONFIG)
    with torch.no_grad():  # the temporal convolution begins as the identity, which single frames leave as it is
        model.temporal.weight.zero_()
        model.temporal.weight[len(model.temporal.weight) // 2] = 1.0
        model.temporal.bias.zero_()
        model.classifier.uniform_(0.0, 0.1)
    model.to(memory_format=torch.channels_last)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    plan = [("frames", args.frame_steps), ("windows", args.window_steps)]
    checkpoint = args.out / "checkpoint.pt"
    done, state = 0, None
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        done = state["step"]
    log = (args.out / "log.jsonl").open("a")
    started, begun_at = time.time(), done
    for stage, steps in plan:
        before = 0 if stage == "frames" else args.frame_steps
        if done >= before + steps:
            continue
        settings = STAGES[stage]
        adam = optimiser(model, stage)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            adam, max_lr=list(settings["lr"]), total_steps=steps + 1, pct_start=0.2
        )
        if state is not None and done > before:
            adam.load_state_dict(state["adam"])
            schedule.load_state_dict(state["schedule"])
        losses = []
        for step in range(max(done, before), before + steps):
            rng = np.random.default_rng((args.seed, step))
            generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
            pictures, targets, weights = [], [], []
            for name, count in settings["batch"].items():
                index, still = sources[name].sample(rng, count, settings["length"])
                x, y = gather(sources[name], index)
                pictures.append(augment(x, torch.from_numpy(still), generator))
                targets.append(y)
                weights.append(trust(name).expand(y.shape))
            model.train()
            loss, score_loss = loss_of(model, torch.cat(pictures), torch.cat(targets), torch.cat(weights))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            schedule.step()
            averaged.update_parameters(model)
            losses.append(float(score_loss))
            done = step + 1
            last = done == before + steps
            if done % 50 == 0 or last:
                record = {
                    "step": done,
                    "stage": stage,
                    "loss": round(float(np.mean(losses[-50:])), 5),
                    "s": round(time.time() - started),
                    "s_a_step": round((time.time() - started) / (done - begun_at), 3),
                }
                if done % 400 == 0 or last:
                    record["validation"] = report(averaged.module, args.data, "validation")["summary"]
                    torch.save(
                        {
                            "model": model.state_dict(),
                            "averaged": averaged.state_dict(),
                            "adam": adam.state_dict(),
                            "schedule": schedule.state_dict(),
                            "step": done,
                        },
                        checkpoint.with_suffix(".part"),
                    )
                    checkpoint.with_suffix(".part").replace(checkpoint)
                log.write(json.dumps(record) + "\n")
                log.flush()
                print(record, flush=True)
    torch.save({"config": CONFIG.to_json(), "state": averaged.module.state_dict()}, args.out / "final.pt")


if __name__ == "__main__":
    main()
