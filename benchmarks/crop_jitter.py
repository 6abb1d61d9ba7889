"""Jitter of the aligned crop on real clips: the apparent movement of a still face in a 256 px crop.

    python benchmarks/crop_jitter.py ../shared/media/single_face.mp4 [more clips] [--aligner mtcnn]
    [--threads 1]

Five points of the crop are mapped back into every frame. Their second difference over time cancels
steady motion. Its spread, divided by the square root of 6, is the jitter of one frame. The median
is robust against real movement; the root mean square contains it. For MTCNN, the mean of four views
and a single view are measured.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import torch

from pyfau.faces import mtcnn
from pyfau.faces.aligner import load_aligner
from pyfau.faces.crop import fit_similarity
from pyfau.faces.tracker import FaceTracker
from pyfau.media.readers import read_video
from pyfau.models.paper import BP4D_TEMPLATE

SIDE = 256
POINTS = np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8], [0.5, 0.5]]) * SIDE


def track(aligner, frames: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Landmarks (F, 5, 2) of a face that is in all frames, and ms a frame."""
    tracker = FaceTracker(aligner, detect_every=len(frames) + 1, max_faces=1)
    tracker.update(frames[0])  # the search
    landmarks = []
    started = time.perf_counter()
    for rgb in frames:
        landmarks.append(tracker.update(rgb).faces[0].face.landmarks)
    return np.array(landmarks, np.float64), (time.perf_counter() - started) / len(frames) * 1e3


def jitter(landmarks: np.ndarray) -> tuple[float, float]:
    """Median-based and root-mean-square jitter in pixels of a 256 px crop."""
    template = np.array(BP4D_TEMPLATE) * SIDE
    places, scales = [], []
    for points in landmarks:
        matrix = fit_similarity(points, template)
        inverse = cv2.invertAffineTransform(matrix)
        places.append(POINTS @ inverse[:, :2].T + inverse[:, 2])
        scales.append(np.hypot(matrix[0, 0], matrix[1, 0]))
    second = np.diff(np.array(places), n=2, axis=0) * np.mean(scales) / np.sqrt(6)
    return float(np.median(np.abs(second)) / 0.6745), float(np.sqrt((second**2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--aligner", default="mtcnn")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    aligner = load_aligner(args.aligner, torch.device("cpu"))
    variants = {"as shipped": None}
    if args.aligner == "mtcnn":
        variants["one view"] = mtcnn._ONE_VIEW
    print(f"{'clip':32} {'views':12} {'median px':>9} {'rms px':>7} {'ms/frame':>9}")
    for clip in args.clips:
        with read_video(clip) as reader:
            frames = [frame.rgb for frame in reader]
        for name, views in variants.items():
            shipped = mtcnn._VIEWS
            mtcnn._VIEWS = shipped if views is None else views
            landmarks, cost = track(aligner, frames)
            mtcnn._VIEWS = shipped
            robust, rms = jitter(landmarks)
            print(f"{clip.rsplit('/', 1)[-1]:32} {name:12} {robust:9.2f} {rms:7.2f} {cost:9.2f}")


if __name__ == "__main__":
    main()
