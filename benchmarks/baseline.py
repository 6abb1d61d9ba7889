"""Measures whether a person baseline helps, on coded images of people outside the training set.

    python benchmarks/baseline.py --shared ../shared [--threads 1]

Photos: people with at least four photos that a person labelled neutral. `AUDetector.calibrate` sees
half of them. The figures are of the person's other photos: how often an action unit is active in
neutral ones, how often AU12 is in happy ones, and r with the grades where a photo is coded.
Clips: `AUResult.baseline(quantile=0.1)` on the clips with coded frames, and r with the grades.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pyfau import AUDetector, AUResult

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))
from crops import PADDING, pad, read_tar
from data import (
    AUS,
    JUDGED,
    Grades,
    face_person,
    hashed_split,
    read_all_grades,
    read_grades,
    uncoded,
)
from targets import mean_grade

LEAST_NEUTRAL = 4
QUANTILE = 0.1


def mean_r(scores: np.ndarray, grades: np.ndarray) -> float:
    """Mean over the judged action units of r with the coders' mean grade; (R, N) each."""
    found = []
    for i in (AUS.index(au) for au in JUDGED):
        known = ~np.isnan(grades[:, i])
        if known.sum() > 2 and grades[known, i].std() > 0:
            found.append(np.corrcoef(scores[known, i], grades[known, i])[0, 1])
    return float(np.mean(found)) if found else float("nan")


def unseen_people(teacher: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """The numbers of the photos of each person who is not in the training split."""
    people: dict[str, list[int]] = defaultdict(list)
    for i, source in enumerate(teacher["source"]):
        person = face_person(str(source))
        if hashed_split("faces", person) != "train":
            people[person].append(i)
    return people


def photos(detector: AUDetector, shared: Path) -> None:
    teacher = dict(np.load(shared / "data/faces/teacher.npz"))
    images = read_tar(shared / "data/faces/faces.tar")
    grades = read_all_grades(shared, "faces", ["face"])
    before: list[AUResult] = []
    after: list[AUResult] = []
    numbers: list[int] = []
    with tempfile.TemporaryDirectory() as folder:

        def file(i: int) -> str:
            path = Path(folder) / f"{i}.png"
            Image.fromarray(pad(images[f"{i:05d}.jpg"], PADDING)).save(path)
            return str(path)

        for photos_of_one in unseen_people(teacher).values():
            neutral = [i for i in photos_of_one if teacher["emotion"][i] == "neutral"]
            if len(neutral) < LEAST_NEUTRAL:
                continue
            seen = neutral[: len(neutral) // 2]
            others = [i for i in photos_of_one if i not in seen]
            baseline = detector.calibrate([file(i) for i in seen], independent=True)
            result = detector.detect_images([file(i) for i in others], independent=True)
            before.append(result)
            after.append(result.baseline(baseline))
            numbers += [others[frame] for frame in result.frames]
    emotion = teacher["emotion"][numbers]
    truth = mean_grade(np.stack([grades.get(f"{i:05d}", uncoded()) for i in numbers]))
    neutrals = int((emotion == "neutral").sum())
    print(f"photos: {len(before)} people, {len(numbers)} photos, {neutrals} neutral")
    for name, results in (("before", before), ("after", after)):
        report(name, results, emotion, truth)


def report(name: str, results: Sequence[AUResult], emotion: np.ndarray, truth: np.ndarray) -> None:
    """Print the figures of photos."""
    scores = np.concatenate([result.scores for result in results])
    active = np.concatenate([result.active for result in results])
    found = ~np.isnan(scores).any(axis=1)
    alarms = active[found & (emotion == "neutral")].mean(axis=0)
    smiles = active[found & (emotion == "happiness"), AUS.index(12)].mean()
    each = " ".join(f"AU{au} {alarms[AUS.index(au)]:.2f}" for au in JUDGED)
    r = mean_r(scores[found], truth[found])
    print(f"  {name:6}  active in neutral: {each}; AU12 in happy {smiles:.3f}; r {r:.3f}")


def clips(detector: AUDetector, shared: Path) -> None:
    grades: Grades = read_all_grades(shared, "frames", ["clip", "frame"])
    coded = {clip for clip, _ in test_frames(shared)}
    before, after, truth = [], [], []
    for name in sorted(coded):
        result = detector.detect_video(shared / f"data/clips/{name}.mp4")
        rows = [i for i, row in enumerate(result) if row.success]
        mine = [i for i in rows if (name, str(result.frames[i])) in grades]
        before.append(result.scores[mine])
        after.append(result.baseline(quantile=QUANTILE).scores[mine])
        truth += [mean_grade(grades[name, str(result.frames[i])][None])[0] for i in mine]
    grade = np.stack(truth)
    print(f"clips: {len(coded)}, {len(grade)} coded frames")
    for label, parts in (("before", before), ("after", after)):
        print(f"  {label:6}  r {mean_r(np.concatenate(parts), grade):.3f}")


def test_frames(shared: Path) -> list[tuple[str, str]]:
    """The coded frames of the people of the test split."""
    table = shared / "data/coded/frames_test.csv"
    return [(str(clip), str(frame)) for clip, frame in read_grades(table, ["clip", "frame"])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detector = AUDetector(max_faces=1)
    photos(detector, args.shared)
    clips(detector, args.shared)


if __name__ == "__main__":
    main()
