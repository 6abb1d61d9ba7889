"""What a face at rest would add: how well exact landmarks tell rendered action units, with and without it.

    python training/landmark_bound.py --shared ../shared

A small network on the renderer's own 68 landmarks and head pose, once of the frame alone, once with how they differ
from the same person's face at rest. Prints ROC-AUC on the test people, who are in neither, over frames that are not at
rest of people who are in another one: `rendered_auc_moving` of evaluate.py is over nearly the same (it lacks those in
which MTCNN lost the face, and those that this parts from the frames at rest).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import AUS, PRESENT_RENDERED, hashed_split
from evaluate import RESTING, area
from torch import Tensor, nn

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  # of the 68 landmarks, as they lie in the picture
HIDDEN, DROPOUT, NOISE, BATCH, PASSES, RATE, DECAY = 256, 0.5, 0.05, 256, 40, 3e-3, 0.05


def upright(points: np.ndarray) -> np.ndarray:
    """(..., 68, 2) pixels -> (..., 136) between the eyes, level, in distances of the eyes."""
    z = points[..., 0] + 1j * points[..., 1]
    left, right = (z[..., eye].mean(-1, keepdims=True) for eye in (LEFT_EYE, RIGHT_EYE))
    z = (z - (left + right) / 2) / (right - left)
    return np.concatenate([z.real, z.imag], axis=-1)


def learn(inputs: Tensor, targets: Tensor) -> nn.Module:
    """Inputs (F, K) and intensities (F, N) -> a network of logits."""
    torch.manual_seed(0)
    layers = [nn.Linear(inputs.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]
    net = nn.Sequential(*layers, nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(AUS)))
    adam = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
    steps = PASSES * len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, steps)
    for _ in range(steps):
        mine = torch.randint(len(inputs), (BATCH,))
        x = inputs[mine] + NOISE * torch.randn(BATCH, inputs.shape[1])
        loss = F.binary_cross_entropy_with_logits(net(x), targets[mine])
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    frames, changes, intensities, split, moving = [], [], [], [], []
    for part in ("part1", "part2"):
        with np.load(args.shared / f"data/sequences/{part}.npz") as labels:
            aus, landmarks, pose = (labels[name].astype(np.float32) for name in ("au", "landmarks", "pose"))
        features = np.concatenate([upright(landmarks), pose], axis=-1)
        for person, (own, units) in enumerate(zip(features, aus, strict=True)):
            resting = units.max(axis=-1) <= RESTING
            frames.append(own)
            changes.append(own - own[resting].mean(axis=0) if resting.any() else np.full_like(own, np.nan))
            intensities.append(units)
            moving.append(~resting & resting.any())
            split += [hashed_split("rendered", f"{part}/{person:05d}")] * len(own)
    everything, more, targets, judged = map(np.concatenate, (frames, changes, intensities, moving))
    train, test = np.array(split) == "train", judged & (np.array(split) == "test")
    present = targets[test] > PRESENT_RENDERED
    for name, x, mine in (
        ("the frame alone", everything, train),
        ("and the face at rest", np.hstack([everything, more]), train & judged),
    ):
        inputs = torch.from_numpy((x - x[mine].mean(0)) / (x[mine].std(0) + 1e-6)).float()
        net = learn(inputs[mine], torch.from_numpy(targets[mine]))
        with torch.inference_mode():
            logits = net(inputs[test]).numpy()
        areas = {f"AU{au:02d}": area(present[:, i], logits[:, i]) for i, au in enumerate(AUS)}
        figures = {au: round(value, 2) for au, value in areas.items()}
        print(f"{name}: {mine.sum()} frames learnt, {test.sum()} judged: {np.mean(list(areas.values())):.3f}", figures)


if __name__ == "__main__":
    main()
