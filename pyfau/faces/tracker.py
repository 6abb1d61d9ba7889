"""The face tracker: it gives each face the same id in all frames."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pyfau.faces.aligner import Aligner
from pyfau.faces.boxes import centre, longer_side, overlap, overlap_of_smaller
from pyfau.faces.halves import Halves, Image, halves_of
from pyfau.faces.pairs import cheapest_pairs
from pyfau.faces.stillness import Stillness
from pyfau.faces.turns import QUARTERS, roll_of, size_of, turn_box, turn_face_back, turn_image
from pyfau.types import Face, FaceMesh, FloatArray, UInt8Array

LOST_CONFIDENCE = 0.6  # a face with a lower confidence counts as lost
_SAME_FACE = 0.4  # two boxes with a larger intersection over union are one face

# The window of a face stays in place until the face has moved by this share of the window's side. A
# window that follows every small change of the aligner's result amplifies the changes: the
# landmarks of a still face would never settle.
_SLACK = 0.03
# A face that has rolled further is followed in the image after one more quarter turn. The value is
# over 45 degrees, so that a face near 45 degrees does not switch in every frame.
_MOST_ROLL = 52.0
# Landmarks that move by less than this share of the box's longer side are averaged with those of
# the frame before. The new frame has at least this weight.
_STILL, _LEAST_WEIGHT = 0.02, 0.3
_MOST_STILL = 8  # number of intervals without a search in a scene that does not change
_REACH = 1.0  # largest distance of a returning face from its expected place, in box sides


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A face and the number of its track."""

    face_id: int
    face: Face


@dataclass(slots=True)
class TrackerUpdate:
    """The faces and tracks of one frame.

    Attributes:
        faces: The faces in the frame, by ascending id.
        missed: Ids of the tracks that continue without a face in this frame.
        ended: Ids of the tracks that ended; they have no face in this frame.
        turned: Ids of the tracks that are followed in another turn of the image than before. Their
            landmarks can move a little.
    """

    faces: list[TrackedFace]
    missed: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    turned: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Track:
    face_id: int
    face: Face
    window: Face  # where to look for it
    # Of the centre, pixels a frame.
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    missed: int = 0
    turns: int = 0  # quarter turns of the image that make the face upright
    seen_turns: int = 0  # the turns in which the last face was found

    def expected_box(self) -> FloatArray:
        """The expected box in the next frame."""
        # A face does not move in a straight line for long.
        shift = self.velocity * min(self.missed + 1, 5)
        return (self.face.box_xyxy + np.tile(shift, 2)).astype(np.float32)

    def steady(self, face: Face) -> Face:
        """The mean of the last place of the face and this one, if it has hardly moved.

        This is only for faces with a mesh: one pass of the landmark network is not as steady as the
        mean of several.
        """
        last = self.face
        if face.mesh is None or last.mesh is None or self.missed:
            return face
        step = float(np.linalg.norm(face.landmarks - last.landmarks, axis=1).mean())
        share = step / (_STILL * longer_side(last.box_xyxy))
        if share >= 1:
            return face
        weight = _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * share
        mesh = FaceMesh(
            _between(last.mesh.points, face.mesh.points, weight),
            _between(last.mesh.irises, face.mesh.irises, weight),
            face.mesh.openness,
            face.mesh.visible,
        )
        box = _between(last.box_xyxy, face.box_xyxy, weight)
        landmarks = _between(last.landmarks, face.landmarks, weight)
        return Face(box, landmarks, face.confidence, face.pose, mesh)

    def see(self, face: Face) -> None:
        step = (centre(face.box_xyxy) - centre(self.face.box_xyxy)) / (self.missed + 1)
        self.velocity = 0.5 * self.velocity + 0.5 * step
        if _has_moved(face, self.window):
            self.window = face
        self.face, self.missed = face, 0

    def follow_roll(self, face: Face, turned: Face) -> None:
        """Change the quarter turns if the face has rolled too far in the turned image."""
        self.see(face)
        self.seen_turns = self.turns
        roll = roll_of(turned.landmarks)
        if roll > _MOST_ROLL:
            self.turns = (self.turns + 1) % QUARTERS
        elif roll < -_MOST_ROLL:
            self.turns = (self.turns - 1) % QUARTERS


class FaceTracker:
    """Follows faces from frame to frame.

    It refines the last box of each face. It searches the whole image only if necessary.

    A search is made when there is nothing to follow, when a face was lost (confidence under 0.6),
    and every `detect_every` frames for newcomers. With an aligner that has the method `follow`,
    the last of these searches waits while the scene around the faces stays the same, for at most
    eight intervals.

    Args:
        aligner: Finds and refines faces.
        detect_every: Frames between searches for new faces.
        max_faces: Largest number of faces to follow, the largest faces first; None for all.
        max_gap: Number of frames that a face may be missing before its track ends.
    """

    def __init__(
        self,
        aligner: Aligner,
        detect_every: int = 30,
        max_faces: int | None = None,
        max_gap: int = 15,
    ) -> None:
        self._aligner = aligner
        self._detect_every = detect_every
        self._max_faces = max_faces
        self._max_gap = max_gap
        self._detect: Callable[..., list[Face]] = aligner.detect
        self._takes_known = _takes_known(aligner)
        # Whether the confidence tells upright faces from turned ones.
        self._can_turn: bool = getattr(aligner, "tells_upright", False)
        # Only an aligner that follows faces at every roll has this method.
        self._follow_faces: Callable[..., list[Face]] | None = getattr(aligner, "follow", None)
        self._shares_halves: bool = getattr(aligner, "shares_halves", False)
        self._searches = 0
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._since_search = detect_every
        self._stillness = Stillness()
        self._still_intervals = 0

    def update(self, image: Image) -> TrackerUpdate:
        """Take the next frame.

        Args:
            image: (H, W, 3) uint8, RGB, or its `Halves`.

        Returns:
            The faces in the frame, and the tracks without a face: those that continue and those
            that ended.
        """
        image = halves_of(image)
        switched = [t.face_id for t in self._tracks if t.turns != t.seen_turns]
        lost = self._follow(image)
        self._since_search += 1
        full = self._max_faces is not None and len(self._tracks) >= self._max_faces
        due = self._since_search >= self._detect_every and not full
        if not self._tracks or lost or (due and not self._can_wait(image)):
            self._since_search = 0
            self._search(image, lost)
            self._remember(image)
        update = TrackerUpdate([], turned=switched)
        for track in lost:
            track.missed += 1
            if track.missed > self._max_gap:
                self._tracks.remove(track)
                update.ended.append(track.face_id)
            else:
                update.missed.append(track.face_id)
        update.faces = [TrackedFace(t.face_id, t.face) for t in self._tracks if not t.missed]
        return update

    def skip(self, count: int) -> TrackerUpdate:
        """Skip frames that are missing in the source.

        Args:
            count: Number of frames that are missing before the next one.

        Returns:
            No faces; the tracks that continue and those that ended. The tracker follows the
            continuing tracks from their last place.
        """
        update = TrackerUpdate([])
        for track in list(self._tracks):
            if track.missed + count > self._max_gap:
                self._tracks.remove(track)
                update.ended.append(track.face_id)
                continue
            if track.missed:
                track.missed += count
            update.missed.append(track.face_id)
        self._since_search = self._detect_every  # the next frame is searched
        self._stillness.reset()
        return update

    def reset(self) -> list[int]:
        """End all tracks, as at a cut. Ids are not used again.

        Returns:
            The tracks that this ended.
        """
        ended = [track.face_id for track in self._tracks]
        self._tracks = []
        self._since_search = self._detect_every  # the next frame is searched
        self._searches = 0
        self._stillness.reset()
        return ended

    def rename(self, owners: Mapping[int, int | None]) -> dict[int, int]:
        """Give tracks that show another person the id of this person.

        Args:
            owners: For some tracks the id of the person they show, which is the id of another track
                of `owners` or of a lost track; None for a new person.

        Returns:
            The new id of each of these tracks. The next frame is searched for more faces.
        """
        names: dict[int, int] = {}
        for face_id, owner in owners.items():
            if owner is None:
                owner = self._next_id
                self._next_id += 1
            names[face_id] = owner
        taken = set(names.values())
        kept = [t for t in self._tracks if t.face_id in names or t.face_id not in taken]
        for track in kept:
            track.face_id = names.get(track.face_id, track.face_id)
        self._tracks = kept
        self._since_search = self._detect_every  # the next frame is searched
        self._stillness.reset()
        return names

    def _can_wait(self, image: Halves) -> bool:
        """Whether a search that is due can wait, because the scene has not changed.

        This is only for aligners with `follow`. The others keep their fixed interval, because a
        change of it would change their scores.
        """
        if self._follow_faces is None or self._still_intervals >= _MOST_STILL - 1:
            return False
        boxes = [track.face.box_xyxy for track in self._tracks]
        if not self._stillness.is_still(image, boxes):
            return False
        self._still_intervals += 1
        self._since_search = 0
        return True

    def _remember(self, image: Halves) -> None:
        """Keep the frame of a search for `_can_wait`."""
        self._still_intervals = 0
        if self._follow_faces is not None:
            self._stillness.remember(image)

    def _follow(self, image: Halves) -> list[_Track]:
        """Refine the faces of the last frame; returns the tracks without a face now."""
        seen = [track for track in self._tracks if not track.missed]
        lost = [track for track in self._tracks if track.missed]
        refined = self._refine(image, seen)
        kept: list[_Track] = []
        for track, turned in zip(seen, refined, strict=True):
            face = turn_face_back(turned, track.turns, image.size(0))
            # If two tracks reach the same face, the older track keeps it.
            taken = any(overlap(face.box_xyxy, other.face.box_xyxy) > _SAME_FACE for other in kept)
            if not _usable(face) or taken:
                lost.append(track)
                continue
            if self._can_turn and self._follow_faces is None:
                track.follow_roll(face, turned)
            else:
                track.see(track.steady(face))
            kept.append(track)
        return lost

    def _refine(self, image: Halves, tracks: list[_Track]) -> list[Face]:
        """The face of each track in the image after the turns of the track."""
        if self._follow_faces is not None:
            return self._follow_closer(image, [track.window for track in tracks])
        rgb = image.rgb
        faces: dict[int, Face] = {}
        for turns in range(QUARTERS):
            group = [track for track in tracks if track.turns == turns]
            if not group:
                continue
            windows = [turn_box(track.window.box_xyxy, turns, size_of(rgb)) for track in group]
            found = self._aligner.refine(turn_image(rgb, turns), windows)
            faces |= {track.face_id: face for track, face in zip(group, found, strict=True)}
        return [faces[track.face_id] for track in tracks]

    def _follow_closer(self, image: Halves, faces: Sequence[Face]) -> list[Face]:
        """The faces that the aligner's `follow` locates."""
        assert self._follow_faces is not None
        return self._follow_faces(image if self._shares_halves else image.rgb, faces)

    def _search(self, image: Halves, lost: list[_Track]) -> None:
        """Search the image for lost and for new faces; tracks found again leave `lost`."""
        held = [track.face.box_xyxy for track in self._tracks if track not in lost]
        found, turns = self._find(image.rgb, held)
        if self._follow_faces is not None:
            # The turns are not needed any more: `follow` takes the roll from the landmarks.
            closer = [face for face in self._follow_closer(image, found) if _usable(face)]
            found = [face for face in closer if not _is_held(face, held)]
            turns = {}
        found.sort(key=lambda face: -longer_side(face.box_xyxy))
        if lost and found:
            again = _match(lost, found)
            for track, face in again:
                track.see(face)
                track.turns = track.seen_turns = turns.get(id(face), 0)
                lost.remove(track)
            matched = [id(face) for _, face in again]
            found = [face for face in found if id(face) not in matched]
        for face in found:
            # Lost faces keep their place until their gap is over.
            if self._max_faces is not None and len(self._tracks) >= self._max_faces:
                break
            turn = turns.get(id(face), 0)
            track = _Track(self._next_id, face, face, turns=turn, seen_turns=turn)
            self._tracks.append(track)
            self._next_id += 1

    def _find(self, rgb: UInt8Array, held: list[FloatArray]) -> tuple[list[Face], dict[int, int]]:
        """The faces of the image that are not tracked yet, and the turns of each by `id`.

        A face that is upside down can look like an upright face. Each new face is therefore
        compared in all four turns. The turned images are searched only if a face is turned, or if
        the image shows no face: then in every `detect_every`-th search.
        """
        faces = self._look(rgb, held, 0)
        turns = {id(face): 0 for face in faces}
        if not self._can_turn:
            return faces, turns
        images = {0: rgb}
        upright = [self._turn_upright(rgb, images, face, 0) for face in faces]
        is_turned = any(turn for _, turn in upright)
        is_empty = not upright and not self._tracks
        due = self._searches % self._detect_every == 0
        self._searches += 1
        if is_turned or (is_empty and due):
            for turn in range(1, QUARTERS):
                size = size_of(rgb)
                known = [turn_box(box, turn, size) for box in held]
                turned = self._look(_turned(rgb, images, turn), known, turn)
                upright += [self._turn_upright(rgb, images, face, turn) for face in turned]
        best = _without_doubles(upright)
        return [face for face, _ in best], {id(face): turn for face, turn in best}

    def _look(self, rgb: UInt8Array, held: list[FloatArray], turn: int) -> list[Face]:
        """The faces that `detect` finds in an image, without those that are tracked already."""
        found = self._detect(rgb, known=held) if self._takes_known else self._detect(rgb)
        return [face for face in found if _usable(face) and not _is_held(face, held)]

    def _turn_upright(
        self, rgb: UInt8Array, images: dict[int, UInt8Array], face: Face, turn: int
    ) -> tuple[Face, int]:
        """The face in the original image, and the turn with the highest confidence.

        Args:
            rgb: The original image.
            images: The turned images so far, by turn.
            face: A face in the image after `turn` quarter turns.
            turn: 0 to 3.
        """
        size = size_of(rgb)
        original = turn_face_back(face, turn, size)
        best = (original, turn)
        for other in range(QUARTERS):
            if other == turn:
                continue
            image = _turned(rgb, images, other)
            box = turn_box(original.box_xyxy, other, size)
            # Twice, because the box comes from the face in another direction.
            for _ in range(2):
                seen = self._aligner.refine(image, [box])[0]
                box = seen.box_xyxy
            if _usable(seen) and seen.confidence > best[0].confidence:
                best = (turn_face_back(seen, other, size), other)
        return best


def _between(last: FloatArray, new: FloatArray, weight: float) -> FloatArray:
    """The weighted mean of two arrays, float32."""
    return (last + weight * (new - last)).astype(np.float32, copy=False)


def _has_moved(face: Face, window: Face) -> bool:
    """Whether the face has moved by more than the slack of its window."""
    shift = np.abs(face.box_xyxy - window.box_xyxy).max()
    if face.mesh is not None and window.mesh is not None:
        # The box does not contain the roll of the face.
        shift = max(shift, np.abs(face.landmarks - window.landmarks).max())
    return bool(shift > _SLACK * longer_side(window.box_xyxy))


def _turned(rgb: UInt8Array, images: dict[int, UInt8Array], turn: int) -> UInt8Array:
    """The turned image; each one is made once."""
    if turn not in images:
        images[turn] = turn_image(rgb, turn)
    return images[turn]


def _without_doubles(faces: list[tuple[Face, int]]) -> list[tuple[Face, int]]:
    """The faces without those that cover a face of higher confidence."""
    kept: list[tuple[Face, int]] = []
    for face, turn in sorted(faces, key=lambda found: -found[0].confidence):
        if all(overlap_of_smaller(face.box_xyxy, other.box_xyxy) < 0.5 for other, _ in kept):
            kept.append((face, turn))
    return kept


def _is_held(face: Face, held: list[FloatArray]) -> bool:
    """Whether the tracker follows this face already."""
    return any(overlap(face.box_xyxy, box) > _SAME_FACE for box in held)


def _match(lost: list[_Track], found: list[Face]) -> list[tuple[_Track, Face]]:
    """The pairs of lost tracks and found faces with the smallest total distance."""
    cost = np.empty((len(lost), len(found)))
    for i, track in enumerate(lost):
        expected = track.expected_box()
        cost[i] = [_distance(expected, face.box_xyxy) for face in found]
    # Pairs that are too far apart all have the same cost, so that they do not affect the other
    # pairs.
    pairs = cheapest_pairs(np.where(cost <= _REACH, cost, 2 * _REACH))
    return [(lost[i], found[j]) for i, j in pairs if cost[i, j] <= _REACH]


def _takes_known(aligner: Aligner) -> bool:
    """Whether `detect` has the argument `known`; see `pyfau.aligners.Aligner.detect`."""
    try:
        return "known" in inspect.signature(aligner.detect).parameters
    except (TypeError, ValueError):  # functions that are not written in Python
        return False


def _usable(face: Face) -> bool:
    """Whether the confidence is high enough and the landmarks can be aligned."""
    if not face.confidence >= LOST_CONFIDENCE:
        return False
    # NaN fails the comparison. Landmarks in one place have no scale.
    extent = float(np.ptp(face.landmarks, axis=0).max())
    return 1e-3 < extent < np.inf


def _distance(expected: FloatArray, box: FloatArray) -> float:
    """Distance of the centres in box sides; infinite if one box is over twice as large."""
    a, b = longer_side(expected), longer_side(box)
    if max(a, b) > 2 * min(a, b):
        return float("inf")
    return float(np.linalg.norm(centre(expected) - centre(box))) / max(a, b)
