"""Boxes, landmarks and action units drawn onto images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import cv2
import numpy as np

from pyfau.aus import full_name
from pyfau.errors import InputError
from pyfau.intensity import grade_letter
from pyfau.messages import printable
from pyfau.types import AURow, FaceMesh, FloatArray, UInt8Array

_Rect = tuple[int, int, int, int]  # left, top, right, bottom
_FONT = cv2.FONT_HERSHEY_SIMPLEX  # OpenCV 5 draws a TrueType face under this name
_MOST_LABEL = 32  # characters
_INK, _FAINT, _DARK, _GREY = (245, 245, 245), (176, 178, 182), (18, 20, 24), (150, 150, 150)
_IRIS = (255, 214, 64)
_COLOURS = [
    (82, 190, 172),
    (236, 178, 86),
    (122, 166, 236),
    (226, 128, 138),
    (172, 148, 226),
    (158, 196, 98),
]
_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)


def draw_overlay(
    rgb: UInt8Array,
    rows: Iterable[AURow],
    *,
    all_aus: bool = False,
    note: str = "",
    landmarks: bool = True,
) -> UInt8Array:
    """Draw the faces of a frame: boxes, ids, landmarks, and action units as bars with names.

    The length of a bar is the score, the probability that the action unit is present. It is not an
    intensity. Where the rows have intensities, the FACS grade of an active action unit follows its
    score: above 0 to 1 is A, to 2 B, to 3 C, to 4 D, and above 4 E. A missing face is grey; see
    `LastFaces`. Characters of names that are not visible text are drawn as escapes.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        rows: The rows of this frame. Rows without a box are skipped. Rows with a box but without
            `success` are missing faces.
        all_aus: Draw all action units in the order of the model, inactive ones faintly. By default
            only the active ones are drawn, the highest score first.
        note: A line of text for the upper left corner.
        landmarks: Draw the 68 landmarks and the irises of rows that have them, instead of the
            aligner's five landmarks.

    Returns:
        (H, W, 3) uint8, RGB, a new image.

    Raises:
        InputError: `rgb` is not such an image.
    """
    image: UInt8Array = check_image(rgb).copy()
    faces = [row for row in rows if row.face_id is not None or row.success]
    faces = [row for row in faces if np.isfinite(row.box_xyxy).all()]
    style = _Style(image)
    boxes = [style.visible(row) for row in faces]
    for row, box in sorted(zip(faces, boxes, strict=True), key=lambda face: face[0].success):
        style.draw_face(row, box, landmarks)
    if note:
        style.draw_note(note)
    # Lost faces come last: they get the room that is left.
    order = sorted(range(len(faces)), key=lambda i: not faces[i].success)
    for i in order:
        style.draw_tag(faces[i], boxes[i])
    for i in order:
        style.draw_panel(faces[i], boxes[i], boxes[:i] + boxes[i + 1 :], all_aus)
    return image


class LastFaces:
    """The faces of the last frames, so that missing faces can still be drawn, in grey.

    Args:
        hold: For how many frames a face is shown after it was last seen.
    """

    def __init__(self, hold: int = 15) -> None:
        self._hold = hold
        self._seen: dict[int, AURow] = {}
        self._shape: tuple[int, ...] = ()

    def missing(self, rows: Iterable[AURow], shape: tuple[int, ...]) -> list[AURow]:
        """Take the next frame.

        Args:
            rows: All rows of the frame.
            shape: Of its image. Another one is another scene, and nothing is missing there.

        Returns:
            The last row of each face that is missing, with `success` False.
        """
        if shape != self._shape:
            self._shape, self._seen = shape, {}
        rows = list(rows)
        found = {row.face_id for row in rows if row.success}
        frame = max((row.frame for row in rows), default=0)
        self._seen = {
            i: r for i, r in self._seen.items() if frame - r.frame <= self._hold and i not in found
        }
        missing = [dataclasses.replace(row, success=False) for row in self._seen.values()]
        self._seen |= {row.face_id: row for row in rows if row.success and row.face_id is not None}
        return missing


class _Style:
    """An image that is being drawn on, and the sizes that suit it."""

    def __init__(self, image: UInt8Array) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]
        self.text = 4 + 0.02 * min(self.height, self.width)  # height of a capital, in pixels
        self.line = max(1, round(self.text / 10))
        self.pad = max(2, round(self.text * 0.5))
        self.row = round(self.text * 1.9)
        self.taken: list[_Rect] = []  # by labels

    def colour(self, row: AURow) -> tuple[int, int, int]:
        return _COLOURS[(row.face_id or 0) % len(_COLOURS)] if row.success else _GREY

    def visible(self, row: AURow) -> _Rect:
        """The part of the face box inside the image."""
        ends = [self.width - 1, self.height - 1] * 2
        x0, y0, x1, y1 = (
            round(float(min(max(v, 0), end))) for v, end in zip(row.box_xyxy, ends, strict=True)
        )
        return x0, y0, x1, y1

    def draw_face(self, row: AURow, box: _Rect, landmarks: bool) -> None:
        """The box and the landmarks."""
        # Coordinates far outside the image are clipped, because OpenCV uses 32 bits, of which some
        # are for fractions.
        limit = 2 * max(self.width, self.height)
        x0, y0, x1, y1 = (round(float(v)) for v in np.clip(row.box_xyxy, -limit, limit))
        for colour, width in ((_DARK, 3 * self.line), (self.colour(row), self.line + 1)):
            cv2.rectangle(self.image, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)
        mesh = row.mesh if landmarks else None
        if mesh is not None and np.isfinite(mesh.points).all():
            self.draw_mesh(mesh, limit)
            return
        radius = max(1.2, min(0.24 * self.text, 0.025 * (box[2] - box[0])))
        for point in np.clip(row.landmarks, -limit, limit):
            if np.isfinite(point).all():
                self.draw_dot(point, radius + 0.6 * self.line, _DARK)
                self.draw_dot(point, radius, _INK)

    def draw_mesh(self, mesh: FaceMesh, limit: float) -> None:
        """The 68 landmarks as dots, and the irises as larger dots in another colour."""
        eyes = float(np.linalg.norm(mesh.points[45] - mesh.points[36]))  # outer corners
        radius = max(0.7, min(0.13 * self.text, 0.015 * eyes))
        dots = [(point, radius, _INK) for point in mesh.points]
        dots += [(point, 1.4 * radius, _IRIS) for point in mesh.irises]
        for point, size, colour in dots:
            point = np.clip(point, -limit, limit)
            self.draw_dot(point, size + 0.3 * self.line, _DARK)
            self.draw_dot(point, size, colour)

    def draw_dot(self, point: FloatArray, radius: float, colour: tuple[int, int, int]) -> None:
        """A filled circle. cv2.circle makes squares of small circles."""
        corners = np.rint((point + radius * _CIRCLE) * 16).astype(np.int32)  # 1/16 pixel
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, shift=4)

    def draw_note(self, note: str) -> None:
        note = printable(note)
        rect = (0, 0, min(self.measure(note) + 2 * self.pad, self.width), self.row)
        self.taken.append(rect)
        self.shade(rect, _DARK, 0.66)
        self.write(note, self.pad, 0, _INK)

    def draw_tag(self, row: AURow, box: _Rect) -> None:
        """The face's number: above its box, or below or inside it if there is no room."""
        label = (
            "face" if row.face_id is None else f"face {row.face_id}{'' if row.success else ' lost'}"
        )
        width, height = self.measure(label) + 2 * self.pad, self.row
        x0, y0, x1, y1 = (
            box[0] - self.line,
            box[1] - self.line,
            box[2] + self.line,
            box[3] + self.line,
        )
        tops = [
            (x0, y0 - height),
            (x1 - width, y0 - height),
            (x0, y1),
            (x1 - width, y1),
            (x0, y0),
            (x0, y1 - height),
        ]
        for x, y in tops:
            x = max(0, min(x, self.width - width))
            rect = (x, y, x + width, y + height)
            if self.is_free(rect):
                self.taken.append(rect)
                self.shade(rect, self.colour(row), 0.92)
                self.write(label, x + self.pad, y, _DARK)
                return

    def draw_panel(self, row: AURow, box: _Rect, others: list[_Rect], all_aus: bool) -> None:
        """Draw the action units next to the box; a tab shows how many did not fit."""
        highest_first = np.argsort(-row.scores, kind="stable").tolist()
        order = [i for i in highest_first if row.active[i] or (all_aus and _has_value(row, i))]
        most = min(len(order), (self.height - self.pad) // self.row)
        short = [_label(au) for au in row.aus]
        long = [_label(full_name(au)) for au in row.aus]
        # The widest of all labels, so that the width does not change from frame to frame.
        wide, narrow = (
            (labels, max(map(self.measure, labels)) + 2 * self.pad) for labels in (long, short)
        )
        widest = "0.00" if row.intensity is None else "0.00 D"  # no letter is wider than D
        numbers = self.measure(widest) + 2 * self.pad
        # A panel is next to its face. If there is no room, it is at another place where it covers
        # no face. If there is no such place, it is on its own face, unless the face is lost. The
        # order of the tries below weighs this: it gives up a quarter of the lines to keep the
        # names, and some lines to stay near the face.
        some = min(most, 3)
        tries = [("beside", [wide], max(some, -(-3 * most // 4))), ("beside", [wide, narrow], some)]
        tries += [
            ("anywhere", [wide, narrow], some),
            ("beside", [wide, narrow], 1),
            ("on", [wide, narrow], 1),
        ]
        for where, kinds, least in tries if row.success else tries[:-1]:
            for count in range(most, max(least, 1) - 1, -1):
                for labels, label_width in kinds:
                    rect = self.place(
                        box, others, label_width + numbers, count * self.row + self.pad, where
                    )
                    if rect:
                        shown = sorted(order[:count]) if all_aus else order[:count]
                        lines = [
                            (labels[i], float(row.scores[i]), bool(row.active[i]), _grade(row, i))
                            for i in shown
                        ]
                        self.fill_panel(rect, label_width, lines, row)
                        if count < len(order):
                            self.draw_count(rect, len(order) - count, [box, *others])
                        return
        if order:
            self.draw_count(box, len(order), [box, *others])

    def draw_count(self, panel: _Rect, hidden: int, faces: list[_Rect]) -> None:
        """How many active action units found no room, as a tab on the panel."""
        label = f"+{hidden}"
        width, (x0, y0, x1, y1) = self.measure(label) + 2 * self.pad, panel
        spots = [
            (x0, y1),
            (x1 - width, y1),
            (x0, y0 - self.row),
            (x1 - width, y0 - self.row),
            (x1, y1 - self.row),
        ]
        spots += [(x0 - width, y1 - self.row), (x1, y0), (x0 - width, y0)]
        rects = [(x, y, x + width, y + self.row) for x, y in spots]
        free = [rect for rect in rects if self.is_free(rect)]
        if free:
            rect = min(free, key=lambda rect: sum(_overlap(rect, face) for face in faces))
            self.shade(rect, _DARK, 0.66)
            self.write(label, rect[0] + self.pad, rect[1], _INK)
            self.taken.append(rect)

    def place(
        self, box: _Rect, others: list[_Rect], width: int, height: int, where: str
    ) -> _Rect | None:
        """The place of a panel that covers no label and no other face; None without one.

        `where` is "beside" (next to its face), "anywhere" (as near as possible), or "on" the face.
        """
        gap = self.pad + self.line
        x0, y0, x1, y1 = box
        if where == "anywhere":
            tops, lefts = (
                range(0, side, self.row)
                for side in (self.height - height + 1, self.width - width + 1)
            )
            spots = [(x, y) for y in tops for x in lefts]
            spots.sort(
                key=lambda spot: math.hypot(
                    2 * spot[0] + width - x0 - x1, 2 * spot[1] + height - y0 - y1
                )
            )
        else:
            # The side of the face with more room comes first.
            sides = (x1 + gap, x0 - gap - width)
            ys, xs = _along(y0, y1, height), _along(x0, x1, width)
            spots = [(x, y) for x in (sides if self.width - x1 >= x0 else sides[::-1]) for y in ys]
            spots += [(x, y) for y in (y1 + gap, y0 - gap - self.row - height) for x in xs]
        best, least = None, math.inf
        for x, y in spots:
            x, y = max(0, min(x, self.width - width)), max(0, min(y, self.height - height))
            rect = (x, y, x + width, y + height)
            own = _overlap(rect, box)
            hides = not self.is_free(rect) or any(_overlap(rect, face) for face in others)
            if not hides and own < (least if where == "on" else min(least, 1)):
                best, least = rect, own
        return best

    def fill_panel(
        self, rect: _Rect, label_width: int, lines: list[tuple[str, float, bool, str]], row: AURow
    ) -> None:
        """Draw the lines of a panel: label, score, whether it is active, and grade."""
        self.taken.append(rect)
        self.shade(rect, _DARK, 0.66)
        left, y = rect[0] + self.pad // 2, rect[1] + self.pad // 2
        for label, score, active, grade in lines:
            has_score = math.isfinite(score)
            share = min(max(score, 0.0), 1.0) if has_score else 0.0
            length = round((label_width - self.pad) * share)
            bar = (left, y + self.line, left + length, y + self.row - self.line)
            self.shade(bar, self.colour(row), 0.5 if active else 0.25)
            ink = _INK if active and row.success else _FAINT
            self.write(label, left + self.pad // 2, y, ink)
            value = f"{score:.2f} {grade}".strip() if has_score else grade
            self.write(value, rect[0] + label_width + self.pad // 2, y, ink)
            y += self.row

    def is_free(self, rect: _Rect) -> bool:
        """Whether a rectangle is inside the image and covers no label."""
        inside = rect[0] >= 0 and rect[1] >= 0 and rect[2] <= self.width and rect[3] <= self.height
        return inside and not any(_overlap(rect, other) for other in self.taken)

    def shade(self, rect: _Rect, colour: tuple[int, int, int], opacity: float) -> None:
        part = self.image[max(0, rect[1]) : max(0, rect[3]), max(0, rect[0]) : max(0, rect[2])]
        if part.size:
            part[...] = cv2.addWeighted(part, 1 - opacity, np.full_like(part, colour), opacity, 0)

    def measure(self, label: str) -> int:
        return int(cv2.getTextSize(label, _FONT, self.text / 22, self.line)[0][0])

    def write(self, label: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
        """Write a label into the row that begins at y."""
        base = y + round((self.row + self.text) / 2)
        cv2.putText(
            self.image, label, (x, base), _FONT, self.text / 22, colour, self.line, cv2.LINE_AA
        )


def _label(name: str) -> str:
    """The text that is drawn for a name.

    A table of another program can have names of any length and with any characters.
    """
    return printable(name[:_MOST_LABEL])[:_MOST_LABEL]


def _has_value(row: AURow, i: int) -> bool:
    """Whether an action unit has a score or an intensity."""
    has_intensity = row.intensity is not None and bool(np.isfinite(row.intensity[i]))
    return has_intensity or bool(np.isfinite(row.scores[i]))


def _grade(row: AURow, i: int) -> str:
    """The FACS letter of an active action unit, or of one without a score; else empty."""
    if row.intensity is None:
        return ""
    if not row.active[i] and np.isfinite(row.scores[i]):
        return ""
    return grade_letter(float(row.intensity[i]))


def check_image(rgb: UInt8Array) -> UInt8Array:
    """The image as a contiguous array; raises InputError if it is not (H, W, 3) uint8."""
    if (
        not isinstance(rgb, np.ndarray)
        or rgb.dtype != np.uint8
        or rgb.ndim != 3
        or rgb.shape[2] != 3
        or not rgb.size
    ):
        got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise InputError(f"expected a uint8 (H, W, 3) image, got {got}")
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def _overlap(a: _Rect, b: _Rect) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _along(start: int, end: int, length: int) -> tuple[int, ...]:
    """Start positions for an item along one side of a box, the best first."""
    return start, (start + end - length) // 2, end - length, start - length // 2, end - length // 2
