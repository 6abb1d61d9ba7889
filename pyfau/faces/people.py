"""Keeps the id of a track with one person in the cases in which the tracker can be wrong.

A descriptor is computed when a track starts, jumps or returns after a gap, when its appearance
suddenly changed (`pyfau.faces.appearance`), and a few times later on. On average this takes less
than a millisecond a frame. Descriptors stay in memory for one recording. pyfau writes them to no
file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyfau.faces.boxes import centre, longer_side
from pyfau.faces.halves import Image
from pyfau.faces.identity import cut_identity, describe_crops
from pyfau.faces.tracker import TrackedFace, TrackerUpdate
from pyfau.types import FloatArray

# Distances of descriptors. In clips of 49 people, 96 % of the pairs of one person are under 0.45
# and 98.6 % under 0.5, and of the pairs of two people 0.01 % and 0.15 %.
SAME_PERSON = 0.45  # nearer descriptors are of one person
OTHER_PERSON = 0.5  # descriptors that are farther apart are of two people

_JUMP = 0.5  # a face that moves farther in one frame has jumped, in box sides
_AGES = (0, 10, 40)  # frames of a track in which it is described
_EVERY = 200  # frames between later descriptions
_MOST = 8  # descriptors of one person
_LEAST_EYES = 12.0  # pixels between the eyes: smaller faces are not described

Owners = dict[int, int | None]


class People:
    """Decides which person each track of a frame shows.

    Args:
        reidentify: Whether a person whose track has ended gets the old id back.
    """

    def __init__(self, reidentify: bool) -> None:
        self._reidentify = reidentify
        self._known: dict[int, list[FloatArray]] = {}
        self._ages: dict[int, int] = {}
        self._last: dict[int, FloatArray] = {}  # boxes of the frame before
        self._lost: set[int] = set()  # tracks without a face in the frame before
        self._new: dict[int, FloatArray] = {}  # descriptors of this frame

    def decide(self, rgb: Image, update: TrackerUpdate, changed: Owners) -> Owners:
        """Find the tracks whose id is that of another person.

        Args:
            rgb: (H, W, 3) uint8, RGB, or its `Halves`.
            update: The tracks of this frame.
            changed: Tracks whose appearance changed, as `Appearance.compare` returns them.

        Returns:
            As `changed`: for each track to rename the id of the person that it shows, or None for
            a new person.
        """
        doubtful = [tracked for tracked in update.faces if self._is_doubtful(tracked, changed)]
        descriptors = self._describe(rgb, doubtful)
        owners = dict(changed)
        present = {tracked.face_id for tracked in update.faces}
        for tracked in doubtful:
            face_id = tracked.face_id
            descriptor = descriptors.get(face_id)
            if descriptor is None:
                continue
            # If the appearance changed, the track keeps its id only if the descriptor clearly
            # matches.
            limit = SAME_PERSON if face_id in changed else OTHER_PERSON
            if face_id in self._known and self._is_own(face_id, descriptor, limit):
                owners.pop(face_id, None)
                continue
            if face_id in self._known or face_id not in owners:
                self._find_owner(face_id, descriptor, present, update.missed, owners)
        _settle(owners, present)
        self._new = descriptors
        return owners

    def learn(self, rgb: Image, update: TrackerUpdate, names: dict[int, int]) -> None:
        """Store the descriptors of this frame under the final ids.

        Args:
            rgb: (H, W, 3) uint8, RGB, or its `Halves`.
            update: The tracks of this frame, after they were renamed.
            names: The new ids of renamed tracks.
        """
        for old, descriptor in self._new.items():
            face_id = names.get(old, old)
            self._store(face_id, descriptor)
            self._ages.setdefault(face_id, 0)
        due = []
        for tracked in update.faces:
            age = self._ages.get(tracked.face_id, 0) + 1
            self._ages[tracked.face_id] = age
            if age in _AGES or age % _EVERY == 0:
                due.append(tracked)
        for face_id, descriptor in self._describe(rgb, due).items():
            known = self._known.get(face_id)
            # A descriptor that fits badly, such as that of a blurred face, is not learned.
            if not known or _distance(descriptor, known) < SAME_PERSON:
                self._store(face_id, descriptor)
        if not self._reidentify:
            for face_id in update.ended:
                self._known.pop(face_id, None)
                self._ages.pop(face_id, None)
        self._last = {tracked.face_id: tracked.face.box_xyxy for tracked in update.faces}
        self._lost = set(update.missed)

    def _is_doubtful(self, tracked: TrackedFace, changed: Owners) -> bool:
        face_id = tracked.face_id
        if face_id in changed or face_id in self._lost or face_id not in self._last:
            return True
        box, before = tracked.face.box_xyxy, self._last[face_id]
        step = float(np.linalg.norm(centre(box) - centre(before)))
        return step > _JUMP * longer_side(before)

    def _describe(self, rgb: Image, faces: Sequence[TrackedFace]) -> dict[int, FloatArray]:
        """The descriptor (128,) of each face that is large enough."""
        usable = [
            tracked
            for tracked in faces
            if np.hypot(*(tracked.face.landmarks[1] - tracked.face.landmarks[0])) >= _LEAST_EYES
        ]
        if not usable:
            return {}
        described = describe_crops(np.stack([cut_identity(rgb, t.face) for t in usable]))
        return {
            tracked.face_id: descriptor
            for tracked, descriptor in zip(usable, described, strict=True)
        }

    def _is_own(self, face_id: int, descriptor: FloatArray, limit: float) -> bool:
        return _distance(descriptor, self._known[face_id]) <= limit

    def _find_owner(
        self,
        face_id: int,
        descriptor: FloatArray,
        present: set[int],
        missed: Sequence[int],
        owners: Owners,
    ) -> None:
        """Set the owner of a track that shows another person, or that is new."""
        taken = {owner for track, owner in owners.items() if track != face_id}
        free = [
            other
            for other in self._known
            if other != face_id
            and other not in taken
            and (other not in present or other in owners)
            and (self._reidentify or other in missed or other in owners)
        ]
        distances = {other: _distance(descriptor, self._known[other]) for other in free}
        best = min(distances, key=lambda other: distances[other], default=None)
        if best is not None and distances[best] < SAME_PERSON:
            owners[face_id] = best
        elif face_id in self._known:
            owners[face_id] = None

    def _store(self, face_id: int, descriptor: FloatArray) -> None:
        known = self._known.setdefault(face_id, [])
        if len(known) == _MOST:
            del known[1]  # the first one stays
        known.append(descriptor)


def _settle(owners: Owners, present: set[int]) -> None:
    """Remove owners that two tracks would share, or whose own track keeps its id in this frame."""
    seen: set[int] = set()
    for face_id, owner in owners.items():
        if owner is None:
            continue
        if owner in seen or (owner in present and owner not in owners):
            owners[face_id] = None
        seen.add(owner)


def _distance(descriptor: FloatArray, known: Sequence[FloatArray]) -> float:
    """Distance to the nearest of a person's descriptors."""
    stored: npt.NDArray[np.float32] = np.stack(known)
    return float(np.linalg.norm(stored - descriptor, axis=1).min())
