"""Measures whether `baseline="auto"` helps, on the coded frames of the clips.

    python benchmarks/resting.py --shared ../shared --tables ../resting [--forms]

The whole clips are scored, and r and F1 are computed with the coders' grades, without and with a
baseline. With --forms, other shifts are compared on the clips of validation and training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from scipy.stats import spearmanr

from pyfau import AUDetector, AUResult, read_result

# First, because `network` is also a name in this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from data import AUS, JUDGED, clip_sources, read_grades
from evaluate import DRAWS, INTERVAL, f1
from scoring import correlation, presence
from targets import mean_grade

COLUMNS = [AUS.index(au) for au in JUDGED]
AU4 = AUS.index(4)
LOWEST = 0.1  # quantile of a person's scores that counts as the lowest
PRIOR = 1.5  # standard deviation of the log-odds that a person's scores are off


@dataclass(frozen=True)
class Clip:
    """A scored clip; `rows` are those of its coded frames, and `grade` (C, N) their mean grades."""

    person: str
    result: AUResult
    rows: np.ndarray
    grade: np.ndarray


def load(shared: Path, tables: Path, split: str, aligner: str = "auto") -> list[Clip]:
    """Read or score the clips of a split.

    Args:
        shared: The folder with data/.
        tables: Where the scores of the clips are stored; one folder for each aligner.
        split: "train", "validation" or "test".
        aligner: What finds and follows the faces.
    """
    people = {source["name"]: source["person"] for source in clip_sources(shared)}
    grades = read_grades(shared / f"data/coded/frames_{split}.csv", ["clip", "frame"])
    detector = None
    clips = []
    for name in sorted({str(clip) for clip, _ in grades}):
        table = tables / f"{name}.csv"
        if not table.exists():
            detector = detector or AUDetector(
                max_faces=1, device="cpu", precision="float32", aligner=aligner
            )
            detector.detect_video(shared / f"data/clips/{name}.mp4", save=table)
        result = read_result(table)
        coded = [(name, str(frame)) in grades for frame in result.frames]
        rows = np.flatnonzero(np.array(coded) & ~np.isnan(result.scores).any(axis=1))
        frames = result.frames[rows]
        grade = mean_grade(np.stack([grades[name, str(frame)] for frame in frames]))
        clips.append(Clip(people[name], result, rows, grade))
    return clips


def thresholds(clips: Sequence[Clip]) -> np.ndarray:
    named = clips[0].result.metadata["thresholds"]
    return np.array([named[au] for au in clips[0].result.aus])


def by_au(clips: Sequence[Clip], scores: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) r and (N,) F1 of the scores of the coded frames; NaN where an AU has none."""
    score = np.concatenate(scores)
    grade = np.concatenate([clip.grade for clip in clips])
    active, present = score >= thresholds(clips), presence(grade)
    r = [correlation(score[:, i], grade[:, i]) for i in range(len(AUS))]
    f1s = [f1(active[:, i], present[:, i]) for i in range(len(AUS))]
    return np.array(r, float), np.array(f1s, float)


def means(clips: Sequence[Clip], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Mean r and mean F1 over `JUDGED`."""
    return np.array([np.nanmean(values[COLUMNS]) for values in by_au(clips, scores)])


def report(name: str, clips: Sequence[Clip], scores: Sequence[np.ndarray]) -> None:
    r, f1s = by_au(clips, scores)
    mean_r, mean_f1 = means(clips, scores)
    each = " ".join(f"AU{au} {r[i]:.3f}" for au, i in zip(JUDGED, COLUMNS, strict=True))
    print(f"  {name:16} r {mean_r:.3f}, F1 {mean_f1:.3f}, AU4 F1 {f1s[AU4]:.3f}; {each}")


def interval(
    clips: Sequence[Clip], before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> np.ndarray:
    """(2, 2) interval over people of what mean r and mean F1 gain."""
    rng = np.random.default_rng(0)
    people = sorted({clip.person for clip in clips})
    gains = []
    for _ in range(DRAWS):
        drawn = rng.choice(people, len(people))
        some = [i for person in drawn for i, clip in enumerate(clips) if clip.person == person]
        own = [clips[i] for i in some]
        gains.append(means(own, [after[i] for i in some]) - means(own, [before[i] for i in some]))
    return np.percentile(gains, INTERVAL, axis=0).T


def coded_scores(clips: Sequence[Clip], adjust: Callable[[AUResult], AUResult]) -> list[np.ndarray]:
    return [adjust(clip.result).scores[clip.rows].astype(float) for clip in clips]


def compare(split: str, clips: Sequence[Clip]) -> None:
    """Print the figures without a baseline and with two kinds of it."""
    before = coded_scores(clips, lambda result: result)
    after = coded_scores(clips, lambda result: result.baseline("auto"))
    quantile = coded_scores(clips, lambda result: result.baseline(quantile=LOWEST))
    levels = resting_levels(clips)
    shown = [clip for clip, level in zip(clips, levels, strict=True) if level is not None]
    people = [len({clip.person for clip in some}) for some in (clips, shown)]
    print(
        f"{split}: {sum(len(clip.rows) for clip in clips)} coded frames, {len(clips)} clips of "
        f"{people[0]} people; {len(shown)} clips of {people[1]} people show a face at rest"
    )
    for name, scores in (("without", before), ("auto", after), (f"quantile {LOWEST}", quantile)):
        report(name, clips, scores)
    for name, (low, high) in zip(("r", "F1"), interval(clips, before, after), strict=True):
        print(f"  auto changes {name} by {low:+.3f} to {high:+.3f} (people drawn again)")


def resting_levels(clips: Sequence[Clip]) -> list[np.ndarray | None]:
    """For each clip the (N,) log-odds at rest; None if it does not show the face at rest."""
    found = []
    for clip in clips:
        levels = list(clip.result.baseline("auto").metadata["baseline"]["levels"].values())
        found.append(log_odds(np.array(list(levels[0].values()))) if levels else None)
    return found


def log_odds(scores: np.ndarray) -> np.ndarray:
    return logit(np.clip(scores, 1e-4, 1 - 1e-4))


def compare_forms(split: str, clips: Sequence[Clip], typical: np.ndarray) -> None:
    """Print the figures of shifts of different strength towards the typical resting face."""
    print(f"{split}: a part of the difference to the typical resting face is removed")
    levels = resting_levels(clips)
    for name, low, high in (
        ("both ways", -np.inf, np.inf),
        ("up", -np.inf, 0),
        ("down", 0, np.inf),
    ):
        for part in (0.25, 0.5, 1.0):
            scores = []
            for clip, level in zip(clips, levels, strict=True):
                own = np.zeros(len(AUS)) if level is None else level - typical
                odds = log_odds(clip.result.scores[clip.rows])
                scores.append(expit(odds - part * np.clip(own, low, high)))
            report(f"{name} {part}", clips, scores)


def needed_shift(scores: np.ndarray, grade: np.ndarray) -> float:
    """The shift in log-odds with which scores fit the grades best."""
    known = ~np.isnan(grade)
    odds, target = log_odds(scores[known]), grade[known].clip(0, 1)
    shifts = np.linspace(-5, 5, 201)
    scored = expit(odds + shifts[:, None])
    fit = target * np.log(scored) + (1 - target) * np.log1p(-scored)
    return float(shifts[np.argmax(fit.sum(axis=1) - shifts**2 / 2 / PRIOR**2)])


def explain(clips: Sequence[Clip]) -> None:
    """Print how the shift that people need depends on their lowest scores."""
    print("Spearman's r over people, of the shift that fits the coders best and the lowest scores")
    people = sorted({clip.person for clip in clips})
    for i in COLUMNS:
        lowest, needed = [], []
        for person in people:
            own = [clip for clip in clips if clip.person == person]
            every = np.concatenate([clip.result.scores[:, i] for clip in own])
            lowest.append(np.nanquantile(every, LOWEST))
            coded = np.concatenate([clip.result.scores[clip.rows, i] for clip in own])
            needed.append(needed_shift(coded, np.concatenate([clip.grade[:, i] for clip in own])))
        print(f"  AU{AUS[i]}: {spearmanr(lowest, needed)[0]:+.2f} over {len(people)} people")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--tables", type=Path, required=True, help="where the scores are kept")
    parser.add_argument("--forms", action="store_true", help="compare other shifts, without test")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.tables.mkdir(parents=True, exist_ok=True)
    splits = ("validation", "train") if args.forms else ("validation", "test")
    clips = {split: load(args.shared, args.tables, split) for split in splits}
    if not args.forms:
        for split, own in clips.items():
            compare(split, own)
        return
    every = [clip for own in clips.values() for clip in own]
    known = [level for level in resting_levels(every) if level is not None]
    typical = np.median(known, axis=0)
    for split, own in clips.items():
        compare(split, own)
        compare_forms(split, own, typical)
    explain(every)


if __name__ == "__main__":
    main()
