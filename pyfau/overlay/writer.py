"""Overlays as files: a video that is written during the work, or one image."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pyfau.errors import OptionError
from pyfau.files import UnfinishedFile, check_writable, lock_file, locked, replace_file, writing
from pyfau.media.encoding import OPENCV_CODECS, VideoEncoder, open_encoder
from pyfau.overlay.drawing import LastFaces, check_image, draw_overlay
from pyfau.overlay.hiding import DelayedHider, FindFaces
from pyfau.types import AURow, StrPath, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self


DEFAULT_FPS = 25.0
_MIN_SIDE = 32


class OverlayWriter:
    """Writes a video with the overlays drawn in: a context manager.

    The video has the size of the first frame, rounded up to even numbers and to at least 32 pixels.
    Later frames of another size are scaled into it with black bars. Leaving the `with` block, also
    by an exception, finishes the file, so that it plays. Until then, the video has a hidden name
    in the same folder: after a crash, there is the old video under the name, or none.

    PyAV writes .mp4 and .mkv as H.264 and .webm as VP9, which browsers play. Every frame has its
    own time, and the sound of `source` is kept. OpenCV writes .avi as a silent video of a constant
    rate, MPEG-4 (XVID). OpenCV also writes the other formats if a codec is forced, or if PyAV was
    built without the encoders.

    Args:
        path: The video: .mp4, .webm, .avi or .mkv. Folders on the way are created, an existing file
            is replaced.
        fps: Frames per second; None or NaN for 25.
        codec: Four letters that force a codec of OpenCV's, such as "vp09" or "MJPG"; None to choose
            by the suffix.
        source: The video that the frames are from, for its sound.
        hold: Number of frames for which a missing face is drawn in grey at its last place.
        anonymise: Whether `write` covers the faces; see `pyfau.overlay.hiding.DelayedHider`. Frames
            are then written up to 15 frames late. The 68 landmarks are left out, because they show
            the shape of the face.
        find_faces: With `anonymise`, finds the faces of a whole image, (4,) float32 boxes in
            pixels. Without it, faces that have no rows are not covered.
        landmarks: Whether `write` draws the 68 landmarks of rows that have them.

    Attributes:
        warnings: Problems that did not stop the work, in words; filled during the work.
        failure: The error of a write that failed, for example because the disk is full. The video
            is then given up: an older one stays as it is.

    Raises:
        OptionError: The suffix is unknown, the file cannot be written, another process is writing
            it, or `fps` is not above 0.
    """

    def __init__(
        self,
        path: StrPath,
        fps: float | None,
        codec: str | None = None,
        *,
        source: StrPath | None = None,
        hold: int = 15,
        anonymise: bool = False,
        find_faces: FindFaces | None = None,
        landmarks: bool = True,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in OPENCV_CODECS:
            raise OptionError(
                f"overlay video is written as {', '.join(OPENCV_CODECS)}, got {os.fspath(path)!r}"
            )
        self.fps = DEFAULT_FPS if fps is None or math.isnan(fps) else float(fps)
        if not 0 < self.fps < 1000:
            raise OptionError(f"fps must be above 0 and below 1000, got {fps!r}")
        if codec is not None and len(codec) != 4:
            raise OptionError(f"codec must be four letters, got {codec!r}")
        self.codec = codec
        self.warnings: list[str] = []
        self.failure: OptionError | None = None
        self._source = source
        self._faces = LastFaces(hold)
        self._hider = DelayedHider(find_faces) if anonymise else None
        self._landmarks = landmarks and not anonymise
        self._encoder: VideoEncoder | None = None
        self._complete = True
        self._closed = False
        self._size = (0, 0)
        check_writable(self.path)
        with writing(self.path):
            self._lock = lock_file(self.path)
            self._unfinished = UnfinishedFile(self.path)

    def write(self, rgb: UInt8Array, rows: Sequence[AURow], time_s: float = math.nan) -> None:
        """Draw a frame and add it.

        Args:
            rgb: (H, W, 3) uint8, RGB.
            rows: The rows of this frame; see `draw_overlay`.
            time_s: When it is shown, in seconds; NaN for one step of `fps` after the frame before.

        Raises:
            InputError: `rgb` is no such image.
            OptionError: No codec makes such a video, the disk is full, or the writer is closed.
        """
        if self._hider is None:
            self._draw(check_image(rgb), rows, time_s)
            return
        self._check_open()
        for frame in self._hider.push(rgb, rows, time_s):
            self._draw(frame.hidden(), frame.rows, frame.time_s)

    def _draw(self, rgb: UInt8Array, rows: Sequence[AURow], time_s: float) -> None:
        faces = [*rows, *self._faces.missing(rows, rgb.shape)]
        self.add(draw_overlay(rgb, faces, landmarks=self._landmarks), time_s)

    def add(self, image: UInt8Array, time_s: float = math.nan) -> None:
        """Add an image without drawing or covering; otherwise as `write`."""
        self._check_open()
        if self._encoder is None:
            # Codecs halve the resolution of colour, and OpenCV overruns its buffers with MJPG at
            # 4x4.
            height, width = (
                max(_MIN_SIDE, side + side % 2) for side in check_image(image).shape[:2]
            )
            self._size = (width, height)
            self._encoder = open_encoder(
                self._unfinished.part,
                self.fps,
                self._size,
                self.codec,
                self._source,
                name=self.path,
            )
            self.codec = self._encoder.codec
        try:
            self._encoder.write(_fitted(image, self._size), time_s)
        except OptionError as error:
            self.failure = error
            self._give_up(self._encoder)  # at once: the table may need the space
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise OptionError(f"cannot write {self.path}: it is closed")
        if self.failure is not None:
            raise self.failure

    def _give_up(self, encoder: VideoEncoder) -> None:
        with suppress(OptionError):
            encoder.close(False)
        self._unfinished.discard()

    def describe(self) -> dict[str, str]:
        """The codec and the sound of the video, for metadata."""
        return (
            {}
            if self._encoder is None
            else {"codec": self._encoder.codec, "sound": self._encoder.sound or "none"}
        )

    def cut(self) -> None:
        """Note that frames of the source are missing: the sound then ends with the last frame."""
        self._complete = False

    def close(self) -> None:
        """Finish the file. Calling it again does nothing.

        Raises:
            OptionError: The file cannot be written to its end.
        """
        if self._closed:
            return
        try:
            if self._hider is not None and self.failure is None:
                for frame in self._hider.finish():
                    self._draw(frame.hidden(), frame.rows, frame.time_s)
            self._finish()
        except BaseException:
            self._unfinished.discard()
            raise
        finally:
            self._closed = True
            self._lock.release()

    def _finish(self) -> None:
        if self._encoder is None:  # no frame came, or no codec makes such a video
            self._unfinished.discard()
            return
        if self.failure is not None:
            raise self.failure
        self._encoder.close(self._complete)
        self.warnings += self._encoder.warnings
        with writing(self.path):
            self._unfinished.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cut()
        try:
            self.close()
        except OptionError:
            if kind is None:
                raise


def write_overlay_image(path: StrPath, rgb: UInt8Array) -> Path:
    """Write one image.

    Args:
        path: .png, .jpg or .jpeg; folders on the way are created, an existing file is replaced.
        rgb: (H, W, 3) uint8, RGB.

    Returns:
        The path.

    Raises:
        OptionError: The suffix is unknown, the file cannot be written, or another process is
            writing it.
        InputError: `rgb` is no such image.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise OptionError(f"overlay images are written as .png or .jpg, got {os.fspath(path)!r}")
    done, data = cv2.imencode(suffix, cv2.cvtColor(check_image(rgb), cv2.COLOR_RGB2BGR))
    if not done:
        raise OptionError(f"cannot write {path}: this OpenCV makes no {suffix} images")
    check_writable(path)
    # cv2.imwrite fails for some file names on Windows.
    with writing(path), locked(path):
        replace_file(path, data.tobytes())
    return path


def _fitted(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """The image at (width, height).

    One missing pixel is replicated. A larger difference is scaled, with black bars.
    """
    width, height = size
    across, down = width - image.shape[1], height - image.shape[0]
    if across in (0, 1) and down in (0, 1):
        return np.asarray(
            cv2.copyMakeBorder(image, 0, down, 0, across, cv2.BORDER_REPLICATE), np.uint8
        )
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(
        image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + inner[1], left : left + inner[0]] = small
    return fitted
