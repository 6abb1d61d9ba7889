"""How far the scores of mdhr-lite in bfloat16 and int8 are from those in float32, on coded clips.

    python training/prepare.py --shared ../shared --out ../runs/mesh-crops --aligner mesh \\
        --parts clips
    python benchmarks/precisions.py --data ../runs/mesh-crops --splits validation test

The clips of people outside the training set are scored from their crops. The differences are those
of the coded frames. r is the mean correlation with the coders over the action units that
`training/data.py` lists as `JUDGED`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from data import AUS, JUDGED
from sampling import Source
from scoring import correlation
from targets import mean_grade

from pyfau import AUDetector

PRECISIONS = (("bfloat16", "auto"), ("int8", "onnxruntime"), ("int8", "openvino"))


def coded_scores(clips: Source, split: str, precision: str, engine: str) -> np.ndarray:
    """(F, N) scores of the coded frames of a split."""
    detector = AUDetector(device="cpu", aligner="aligned", precision=precision, engine=engine)
    mine = clips.of_split(split)
    scores = np.full((len(mine), len(AUS)), np.nan)
    for name in np.unique(clips.columns["clip"][mine]):
        frames = np.flatnonzero(clips.columns["clip"] == name)
        scores[frames] = detector.detect_frames(list(clips.crops[frames])).scores
    return scores[mine & clips.coded]


def mean_r(scores: np.ndarray, grades: np.ndarray) -> float:
    """Mean correlation of scores and mean grades (F, N) over `JUDGED`."""
    columns = [AUS.index(au) for au in JUDGED]
    return float(np.nanmean([correlation(scores[:, i], grades[:, i]) for i in columns]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what training/prepare.py wrote")
    parser.add_argument("--splits", nargs="+", default=["validation"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = Source.load(args.data, "clips")
    for split in args.splits:
        mine = clips.of_split(split) & clips.coded
        grades = mean_grade(clips.columns["grades"][mine].astype(float))
        exact = coded_scores(clips, split, "float32", "torch")
        print(f"{split}, {mine.sum()} frames: r in float32 {mean_r(exact, grades):.4f}")
        for precision, engine in PRECISIONS:
            scores = coded_scores(clips, split, precision, engine)
            off = np.abs(scores - exact)
            print(
                f"  {precision} {engine}: 99 % within {np.quantile(off, 0.99):.4f}, within 0.01 "
                f"{(off <= 0.01).mean():.2%}, within 0.03 {(off <= 0.03).mean():.2%}, largest "
                f"{off.max():.3f}, r {mean_r(scores, grades):.4f}"
            )


if __name__ == "__main__":
    main()
