"""Compares the scores of mdhr-lite with different aligners, on the coded frames of the clips.

    python benchmarks/aligner_scores.py --shared ../shared --tables ../aligner-scores

Whole clips are scored. r and F1 are computed with the mean grade of the coders, over the action
units that `training/data.py` lists as `JUDGED`. A frame without a row of scores is left out for
this aligner.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch
from resting import Clip, coded_scores, load, report


def compare(split: str, clips: dict[str, list[Clip]]) -> None:
    """Print the figures of each aligner."""
    print(split)
    for aligner, scored in clips.items():
        frames = sum(len(clip.rows) for clip in scored)
        scores = coded_scores(scored, lambda result: result)
        report(f"{aligner}, {frames} frames", scored, scores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/")
    parser.add_argument("--tables", type=Path, required=True, help="where the scores are stored")
    parser.add_argument("--splits", nargs="+", default=["validation"])
    parser.add_argument("--aligners", nargs="+", default=["mtcnn", "mesh"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for split in args.splits:
        clips = {}
        for aligner in args.aligners:
            folder = args.tables / aligner
            folder.mkdir(parents=True, exist_ok=True)
            clips[aligner] = load(args.shared, folder, split, aligner)
        compare(split, clips)


if __name__ == "__main__":
    main()
