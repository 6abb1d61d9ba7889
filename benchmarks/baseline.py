"""Does a person's baseline help? Held-out people of the training data, before and after.

    python benchmarks/baseline.py --shared ../shared [--threads 1]

Photos: people with at least four photos that a person labelled neutral. `AUDetector.calibrate` sees half of them, the
figures are of the person's other photos: how often an action unit is active in neutral ones (a false alarm, if the
label is right), how often AU12 is in happy ones, and agreement with the teacher (MediaPipe's blendshapes; see
training/README.md). Clips: `AUResult.baseline(quantile=0.1)` on the clips of the test split, agreement with the
teacher, and with what the teacher says beyond its own quantile of the clip. Means over the AUs that the teacher knows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pyfau import AUDetector, AUResult

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))
from data import AUS, JUDGED, PRESENT, clip_sources, face_person, hashed_split, load_splits, teacher_targets
from prepare import pad, read_tar

LEAST_NEUTRAL = 4
QUANTILE = 0.1
KNOWN = [AUS.index(au) for au in JUDGED]
LIMITS = np.array([PRESENT[au] for au in AUS])


def agreement(scores: np.ndarray, active: np.ndarray, targets: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Correlation with the targets and F1 of the active flags, each a mean over action units; all (R, N)."""
    r, f1 = [], []
    for au in KNOWN:
        known = ~np.isnan(targets[:, au])
        r.append(np.corrcoef(scores[known, au], targets[known, au])[0, 1])
        a, p = active[known, au], present[known, au]
        f1.append(2 * (a & p).sum() / max(1, a.sum() + p.sum()))
    return float(np.mean(r)), float(np.mean(f1))


def photos(detector: AUDetector, shared: Path) -> None:
    teacher = dict(np.load(shared / "data/faces/teacher.npz"))
    targets = teacher_targets(teacher["blendshapes"], list(teacher["blendshape_names"]))
    people: dict[str, list[int]] = defaultdict(list)
    for i, source in enumerate(teacher["source"]):
        if hashed_split("faces", face_person(str(source))) != "train":
            people[face_person(str(source))].append(i)
    pictures = read_tar(shared / "data/faces/faces.tar")
    before, after, found = [], [], []
    used = 0
    with tempfile.TemporaryDirectory() as folder:

        def file(i: int) -> str:
            path = Path(folder) / f"{i}.png"
            Image.fromarray(pad(pictures[f"{i:05d}.jpg"], 0.35)).save(path)
            return str(path)

        for person in people.values():
            neutral = [i for i in person if teacher["emotion"][i] == "neutral"]
            if len(neutral) < LEAST_NEUTRAL:
                continue
            used += 1
            seen = neutral[: len(neutral) // 2]
            rest = [i for i in person if i not in seen]
            baseline = detector.calibrate([file(i) for i in seen], independent=True)
            result = detector.detect_images([file(i) for i in rest], independent=True)
            faces = [row.success for row in result]
            before.append((result.scores[faces], result.active[faces]))
            adjusted = result.baseline(baseline)
            after.append((adjusted.scores[faces], adjusted.active[faces]))
            found += [rest[frame] for frame in result.frames[faces]]
    emotion = teacher["emotion"][found]
    neutral, happy = emotion == "neutral", emotion == "happiness"
    print(f"photos: {used} people, {len(found)} photos, {neutral.sum()} of them neutral and {happy.sum()} happy")
    for name, parts in (("before", before), ("after", after)):
        scores, active = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        alarms = active[neutral].mean(axis=0)
        each = " ".join(f"AU{AUS[au]} {alarms[au]:.2f}" for au in KNOWN)
        r, f1 = agreement(scores, active, targets[found], targets[found] >= LIMITS)
        print(
            f"  {name:6}  active in neutral {alarms[KNOWN].mean():.3f} ({each}), AU12 active in happy "
            f"{active[happy, AUS.index(12)].mean():.3f}, teacher: r {r:.3f}, F1 {f1:.3f}"
        )


def clips(detector: AUDetector, shared: Path) -> None:
    splits = load_splits()["clips"]
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {"before": [], "after": []}
    for source in clip_sources(shared):
        if splits[source["person"]] != "test":
            continue
        labels = np.load(shared / "data/clips" / f"{source['name']}.npz")
        targets = teacher_targets(labels["bs"], list(labels["names"]))
        targets[~labels["present"]] = np.nan
        result: AUResult = detector.detect_video(shared / "data/clips" / f"{source['name']}.mp4")
        rows = np.array([row.success and row.frame < len(targets) for row in result])
        own = targets[result.frames[rows]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of AUs that the teacher does not know
            beyond = own - np.nanquantile(own, QUANTILE, axis=0)
        for name, one in (("before", result), ("after", result.baseline(quantile=QUANTILE))):
            parts[name].append((one.scores[rows], one.active[rows], own, beyond))
    print(f"clips: {len(parts['before'])}, {sum(len(part[0]) for part in parts['before'])} frames")
    for name, arrays in parts.items():
        scores, active, own, beyond = (np.concatenate(each) for each in zip(*arrays, strict=True))
        r, f1 = agreement(scores, active, own, own >= LIMITS)
        centred, _ = agreement(scores, active, beyond, own >= LIMITS)
        print(f"  {name:6}  teacher: r {r:.3f}, F1 {f1:.3f}; beyond its quantile of the clip: r {centred:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detector = AUDetector(max_faces=1)
    photos(detector, args.shared)
    clips(detector, args.shared)


if __name__ == "__main__":
    main()
