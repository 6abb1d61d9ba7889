"""Which face is which from frame to frame."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pyfau.aligners import Aligner
from pyfau.boxes import centre, longer_side, overlap
from pyfau.types import Face, FloatArray, UInt8Array

LOST_CONFIDENCE = 0.6
_SAME_FACE = 0.4  # two boxes with a larger intersection over union are one face
# A face is looked for in the window of the frame before until it has moved by this share of its side. A window that
# follows every wobble of the aligner makes it wobble more: a still face never settles then.
_SLACK = 0.03
_REACH = 1.0  # a face comes back at most so many box sides from where it is expected


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A face and the number of its track."""

    face_id: int
    face: Face


@dataclass(slots=True)
class TrackerUpdate:
    """What one frame brought.

    Attributes:
        faces: The faces seen, by ascending id.
        missed: Ids of the tracks that go on without a face in this frame.
        ended: Ids of the tracks that are over; they have no face in this frame.
    """

    faces: list[TrackedFace]
    missed: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Track:
    face_id: int
    face: Face
    window: FloatArray  # (4,) XYXY, where to look for it
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))  # of the centre, pixels a frame
    missed: int = 0

    def expected_box(self) -> FloatArray:
        """Where the face should be in the coming frame."""
        shift = self.velocity * min(self.missed + 1, 5)  # nobody goes on in a straight line for long
        return (self.face.box_xyxy + np.tile(shift, 2)).astype(np.float32)

    def see(self, face: Face) -> None:
        step = (centre(face.box_xyxy) - centre(self.face.box_xyxy)) / (self.missed + 1)
        self.velocity = 0.5 * self.velocity + 0.5 * step
        if np.abs(face.box_xyxy - self.window).max() > _SLACK * longer_side(self.window):
            self.window = face.box_xyxy
        self.face, self.missed = face, 0


class FaceTracker:
    """Follows faces by refining their last boxes, and searches the whole picture only when it must.

    A search is made when there is nothing to follow, when a face was lost (confidence under 0.6), and every
    `detect_every` frames for newcomers.

    Args:
        aligner: Finds and refines faces.
        detect_every: Frames between searches for new faces.
        max_faces: Follow at most so many, the largest first; None for all.
        max_gap: A face missing for at most so many frames keeps its id; after more its track ends.
    """

    def __init__(
        self, aligner: Aligner, detect_every: int = 30, max_faces: int | None = None, max_gap: int = 15
    ) -> None:
        self._aligner = aligner
        self._detect_every = detect_every
        self._max_faces = max_faces
        self._max_gap = max_gap
        self._detect: Callable[..., list[Face]] = aligner.detect
        self._takes_known = _takes_known(aligner)
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._since_search = detect_every

    def update(self, rgb: UInt8Array) -> TrackerUpdate:
        """Take the next frame.

        Args:
            rgb: (H, W, 3) uint8, RGB.

        Returns:
            The faces in it, and what became of the tracks without one.
        """
        lost = self._follow(rgb)
        self._since_search += 1
        full = self._max_faces is not None and len(self._tracks) >= self._max_faces
        due = self._since_search >= self._detect_every and not full
        if not self._tracks or lost or due:
            self._since_search = 0
            self._search(rgb, lost)
        update = TrackerUpdate([])
        for track in lost:
            track.missed += 1
            if track.missed > self._max_gap:
                self._tracks.remove(track)
                update.ended.append(track.face_id)
            else:
                update.missed.append(track.face_id)
        update.faces = [TrackedFace(t.face_id, t.face) for t in self._tracks if not t.missed]
        return update

    def reset(self) -> list[int]:
        """Forget every face, as at a cut. Ids are not used again.

        Returns:
            The tracks that this ended.
        """
        ended = [track.face_id for track in self._tracks]
        self._tracks = []
        self._since_search = self._detect_every
        return ended

    def _follow(self, rgb: UInt8Array) -> list[_Track]:
        """Refine the faces of the last frame; returns the tracks without a face now."""
        seen = [track for track in self._tracks if not track.missed]
        lost = [track for track in self._tracks if track.missed]
        refined = self._aligner.refine(rgb, [track.window for track in seen]) if seen else []
        kept: list[_Track] = []
        for track, face in zip(seen, refined, strict=True):
            # Two tracks that slid onto one face are told apart by age: the older one keeps it.
            taken = any(overlap(face.box_xyxy, other.face.box_xyxy) > _SAME_FACE for other in kept)
            if not _usable(face) or taken:
                lost.append(track)
            else:
                track.see(face)
                kept.append(track)
        return lost

    def _search(self, rgb: UInt8Array, lost: list[_Track]) -> None:
        """Look for lost faces and for new ones; tracks found again are taken out of `lost`."""
        held = [track.face.box_xyxy for track in self._tracks if track not in lost]
        found = [
            face
            for face in (self._detect(rgb, known=held) if self._takes_known else self._detect(rgb))
            if _usable(face) and all(overlap(face.box_xyxy, b) <= _SAME_FACE for b in held)
        ]
        found.sort(key=lambda face: -longer_side(face.box_xyxy))
        if lost and found:
            cost = np.array([[_distance(track.expected_box(), face.box_xyxy) for face in found] for track in lost])
            # Pairs out of reach all cost the same, so that none of them decides about the others.
            rows, columns = linear_sum_assignment(np.where(cost <= _REACH, cost, 2 * _REACH))
            again = [(lost[i], found[j]) for i, j in zip(rows, columns, strict=True) if cost[i, j] <= _REACH]
            for track, face in again:
                track.see(face)
                lost.remove(track)
            known = [id(face) for _, face in again]
            found = [face for face in found if id(face) not in known]
        for face in found:
            if self._max_faces is not None and len(self._tracks) >= self._max_faces:
                break  # lost faces keep their place until their gap is over
            self._tracks.append(_Track(self._next_id, face, face.box_xyxy))
            self._next_id += 1


def _takes_known(aligner: Aligner) -> bool:
    """Whether `detect` can be told what is followed already; see `pyfau.aligners.Aligner.detect`."""
    try:
        return "known" in inspect.signature(aligner.detect).parameters
    except (TypeError, ValueError):  # what is not written in Python may have no signature
        return False


def _usable(face: Face) -> bool:
    """Whether it is surely a face, with landmarks that can be aligned."""
    # NaN fails the comparison; landmarks in one place tell no scale.
    return face.confidence >= LOST_CONFIDENCE and 1e-3 < float(np.ptp(face.landmarks, axis=0).max()) < np.inf


def _distance(expected: FloatArray, box: FloatArray) -> float:
    """Distance of the centres in box sides, infinite if the sizes differ by more than a factor of two."""
    a, b = longer_side(expected), longer_side(box)
    if max(a, b) > 2 * min(a, b):
        return float("inf")
    return float(np.linalg.norm(centre(expected) - centre(box))) / max(a, b)
