"""Training faces moved to other expressions and other poses, and what the teacher says of them.

The clips show few people. This makes more motion: each training face, and some frames of the training clips, are warped
to the expressions of others by a linear model of how the teacher's mesh moves with its blendshapes, half of them (drawn
at random) also towards the build of another face, are turned a little, and are then labelled by the teacher itself, so
that a warp which failed is labelled as what it looks like.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from data import AUS, TEACHER, clip_frames, clip_sources, face_person, hashed_split, load_splits, teacher_targets
from prepare import PADDING, crop, largest, pad, read_tar, to_crop
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform
from teacher import TEACHER_MODEL, Teacher
from tqdm import tqdm

from pyfau.aligners.mtcnn import MTCNNAligner

VERTICES = 468  # of the mesh, without the irises
# Points that hardly move with an expression: eye corners, bridge and root of the nose, forehead, temples.
RIGID = [33, 133, 362, 263, 168, 6, 197, 195, 10, 109, 338, 127, 356, 234, 454, 21, 251]
UPPER = ("brow", "eye")  # how the names of the blendshapes of the upper face begin
# By whose strength the other of each half is chosen; the mouth's small movements and closed eyes are rare.
UPPER_AUS = (1, 2, 4, 7, 43, 43)
LOWER_AUS = (10, 12, 14, 15, 17, 17, 23, 23, 24, 24, 25, 26)
EXAMPLES = 2000  # faces from which the linear model is learnt
RIDGE = 20.0
TURN = np.radians((6.0, 9.0, 2.0))  # standard deviation of pitch, yaw and roll added
MOST_TURN = 2.0  # in standard deviations
GAIN = (0.8, 2.5)  # the linear model, learnt across people, moves less than faces do
VARIANTS = 8  # of each picture
CLIP_STEP = 4  # of so many frames of a clip one is taken
REBUILT, MOST_LIKENESS = 0.5, 1.0  # share of the variants with another build, and how far it goes towards that
UNMOVED = 0.15  # share of the halves of faces that keep their expression


def fit_rigid(points: np.ndarray, goal: np.ndarray) -> SimilarityTransform:
    """The similarity that brings the rigid points of a mesh (P, 3) closest to those of another."""
    return SimilarityTransform.from_estimate(points[RIGID], goal[RIGID])


@dataclass
class Motion:
    """How the mesh moves with the blendshapes, and from one person to the next.

    Attributes:
        mean: (468, 3) mean mesh, in distances of the outer eye corners.
        usual: (52,) mean blendshapes.
        moves: (52, 468, 3) displacements for one of each blendshape.
        builds: (F, 468, 3) how each of the people deviates from the mean at the same blendshapes.
        triangles: (T, 3) of the mesh and its `ring`.
    """

    mean: np.ndarray
    usual: np.ndarray
    moves: np.ndarray
    builds: np.ndarray
    triangles: np.ndarray

    @classmethod
    def learn(cls, meshes: np.ndarray, blendshapes: np.ndarray, names: Sequence[str]) -> Motion:
        """From (F, 478, 3) meshes of many people and their (F, 52) blendshapes."""
        meshes = meshes[:, :VERTICES]
        mean = meshes[0] - meshes[0].mean(0)
        mean /= np.linalg.norm(mean[RIGID[0]] - mean[RIGID[3]])
        for _ in range(3):
            aligned = np.stack([fit_rigid(m, mean)(m) for m in meshes])
            mean = aligned.mean(0)
        usual = blendshapes.mean(0)
        centred = blendshapes - usual
        gram = centred.T @ centred + RIDGE * np.eye(centred.shape[1])
        moves = np.linalg.solve(gram, centred.T @ (aligned - mean).reshape(len(aligned), -1))
        moves = moves.reshape(-1, VERTICES, 3)
        builds = (aligned - mean - np.tensordot(centred, moves, 1)).astype(np.float32)
        shape = mean + 0.6 * moves[names.index("jawOpen")]  # mouth and eyes open: no triangle leaps from lip to lip
        return cls(mean, usual, moves, builds, Delaunay(np.concatenate([shape[:, :2], ring(shape)])).simplices)

    def rebuild(self, shape: np.ndarray, blendshapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(468, 3) by which a face in the place of `mean` becomes more like somebody else's."""
        own = shape - self.mean - np.tensordot(blendshapes - self.usual, self.moves, 1)
        return rng.uniform(0, MOST_LIKENESS) * (self.builds[rng.integers(len(self.builds))] - own)


def ring(points: np.ndarray) -> np.ndarray:
    """(16, 2) places around a face."""
    angles = np.arange(16) * (2 * np.pi / 16)
    middle = points[:, :2].mean(0)
    reach = 1.6 * np.linalg.norm(points[:, :2] - middle, axis=1).max()
    return middle + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def warp(rgb: np.ndarray, source: np.ndarray, goal: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Move a picture so that the points (468, 3) of its mesh come to lie at those of another; its surroundings stay."""
    around = ring(source)
    start, end = (np.concatenate([mesh[:, :2], around]) for mesh in (source, goal))
    depth = np.concatenate([goal[:, 2], np.full(len(around), goal[:, 2].max() + 1)])[triangles].mean(1)
    order = triangles[np.argsort(-depth)]  # the farthest first
    height, width = rgb.shape[:2]
    owner = np.full((height, width), -1, np.int32)
    corners = np.round(end[order] * 16).astype(np.int32)
    for number, triangle in enumerate(corners):
        cv2.fillConvexPoly(owner, triangle, number, shift=4)
    homogeneous = np.concatenate([end[order], np.ones((*order.shape, 1))], axis=2)
    flat = np.abs(np.linalg.det(homogeneous)) < 1e-3
    homogeneous[flat] = np.eye(3)
    maps = np.linalg.solve(homogeneous, start[order])  # (triangles, 3, 2)
    ys, xs = np.mgrid[:height, :width]
    here = np.stack([xs, ys, np.ones_like(xs)], axis=-1).astype(np.float64)
    moved = np.einsum("hwk,hwkc->hwc", here, maps[owner])
    stay = (owner < 0) | flat[owner]
    moved[stay] = here[stay][:, :2]
    moved = moved.astype(np.float32)
    return cv2.remap(rgb, moved[..., 0], moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass
class Donors:
    """Expressions to take over: (F, 52) blendshapes of training people, and by AU who shows how much of it."""

    blendshapes: np.ndarray
    ranked: dict[int, np.ndarray]  # weakest first
    upper: np.ndarray

    @classmethod
    def among(cls, blendshapes: np.ndarray, names: Sequence[str]) -> Donors:
        """These (F, 52) blendshapes."""
        targets = teacher_targets(blendshapes, list(names))
        ranked = {au: np.argsort(targets[:, AUS.index(au)]) for au in TEACHER}
        return cls(blendshapes, ranked, np.array([name.startswith(UPPER) for name in names]))

    def draw(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(52,) blendshapes for a face that shows `own`; upper and lower half from two others, more or less of each."""
        goal = own.copy()
        for half, aus in ((self.upper, UPPER_AUS), (~self.upper, LOWER_AUS)):
            if rng.random() < UNMOVED:
                continue
            order = self.ranked[rng.choice(aus)]
            other = self.blendshapes[order[int(len(order) * rng.random() ** 0.5)]]  # rather a strong one
            goal[half] = own[half] + rng.uniform(*GAIN) * (other - own)[half]
        return goal


@dataclass
class Still:
    """A picture to animate: a seed of its own, its name, its pixels, and the border that it needs."""

    seed: tuple[int, int]
    name: str
    rgb: np.ndarray
    padding: float

    def padded(self) -> np.ndarray:
        """The picture with room around the face."""
        return pad(self.rgb, self.padding)


def animate(stills: Sequence[Still], motion: Motion, donors: Donors, model: Path) -> list:
    """Variants of some pictures: (name, variant, crop, blendshapes, landmarks in the crop) of each that worked."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    teacher, aligner = Teacher(model), MTCNNAligner()
    made = []
    for still in stills:
        rng = np.random.default_rng(still.seed)
        rgb = still.padded()
        seen, face = teacher.label(rgb), largest(aligner, rgb)
        if seen is None or face is None:
            continue
        mesh, own = seen[0][:VERTICES], seen[1]
        there = fit_rigid(motion.mean, mesh)
        here = there.inverse(mesh)  # in the place of the mean
        variant = 0
        for _ in range(VARIANTS):
            change = np.tensordot(donors.draw(own, rng) - own, motion.moves, 1)
            if rng.random() < REBUILT:
                change += motion.rebuild(here, own, rng)
            turn = Rotation.from_euler("xyz", TURN * rng.normal(size=3).clip(-MOST_TURN, MOST_TURN))
            shape = here + change
            middle = shape.mean(0)
            moved = warp(rgb, mesh, there((shape - middle) @ turn.as_matrix() + middle), motion.triangles)
            label, found = teacher.label(moved, again=True), aligner.refine(moved, [face.box_xyxy])[0]
            if label is not None and found is not None:
                made.append((still.name, variant, crop(moved, found), label[1], to_crop(label[0][:, :2], found)))
                variant += 1
    return made


def clip_stills(shared: Path) -> list[Still]:
    """Every CLIP_STEP-th frame of the clips of training people."""
    splits = load_splits()["clips"]
    stills = []
    for source in clip_sources(shared):
        if splits[source["person"]] == "train":
            frames = clip_frames(shared, source["name"])[::CLIP_STEP]
            stills += [
                Still((1, len(stills) + i), f"{source['name']}/{i * CLIP_STEP}", rgb, 0.0)
                for i, rgb in enumerate(frames)
            ]
    return stills


def prepare_animated(shared: Path, jobs: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Crops and their columns, as prepare.py writes them; `clip` names the picture and `frame` counts its variants."""
    known = dict(np.load(shared / "data/faces/teacher.npz"))
    names = [str(name) for name in known["blendshape_names"]]
    pictures = read_tar(shared / "data/faces/faces.tar")
    splits = [hashed_split("faces", face_person(source)) for source in known["source"]]
    mine = np.flatnonzero(np.array(splits) == "train")
    stills = [Still((0, i), f"{i:05d}", pictures[f"{i:05d}.jpg"], PADDING) for i in mine]
    model = shared / TEACHER_MODEL
    teacher = Teacher(model)
    examples = np.random.default_rng(0).permutation(len(stills))[:EXAMPLES]
    seen = [teacher.label(stills[i].padded()) for i in tqdm(examples, desc="motion")]
    meshes, shapes = (np.stack(column) for column in zip(*(s[:2] for s in seen if s is not None), strict=True))
    motion = Motion.learn(meshes, shapes, names)
    donors = Donors.among(known["blendshapes"][mine].astype(np.float64), names)
    stills += clip_stills(shared)
    chunks = [stills[i : i + 100] for i in range(0, len(stills), 100)]
    work = partial(animate, motion=motion, donors=donors, model=model)
    # not forked: the teacher has threads
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = tqdm(pool.map(work, chunks), total=len(chunks), desc="animated")
        still, variant, crops, blendshapes, landmarks = zip(*(row for part in parts for row in part), strict=True)
    shapes = np.stack(blendshapes)
    return np.stack(crops), {
        "clip": np.array(still),
        "frame": np.array(variant),
        "split": np.array(["train"] * len(still)),
        "targets": teacher_targets(shapes, names),
        "blendshapes": shapes.astype(np.float16),
        "blendshape_names": np.array(names),
        "landmarks": np.stack(landmarks).astype(np.float16),
    }
