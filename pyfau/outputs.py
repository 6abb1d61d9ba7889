"""The output files of a run: a table, an overlay video, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pyfau.errors import OptionError
from pyfau.files import check_is_other
from pyfau.media.frames import FrameReader
from pyfau.media.images import file_record
from pyfau.overlay.hiding import FindFaces
from pyfau.overlay.writer import OverlayWriter
from pyfau.tables.writers import ResultWriter, open_writer
from pyfau.types import AURow, Failure, Frame, StrPath


@dataclass(frozen=True, slots=True)
class Outputs:
    """A table and an overlay that are open. Either may be missing.

    Attributes:
        table: Takes the rows.
        video: Takes the images.
        overlay: The path of the video.
    """

    table: ResultWriter | None
    video: OverlayWriter | None
    overlay: StrPath | None

    @property
    def warnings(self) -> list[str]:
        """Warnings of the overlay."""
        return self.video.warnings if self.video is not None else []

    def write(self, frame: Frame, rows: list[AURow]) -> None:
        """Write the rows of a frame, and draw them on its image.

        If the disk becomes too full for the overlay, scoring goes on, so that the table has all
        rows. `finish` then raises the error.
        """
        if self.table is not None:
            self.table.write(rows)
        if self.video is None or self.video.failure is not None:
            return
        try:
            self.video.write(frame.rgb, rows, frame.time_s)
        except OptionError:
            if self.video.failure is None:  # such as a codec that is missing
                raise

    def finish(self, metadata: dict[str, Any]) -> None:
        """Close the overlay and describe it in the metadata of the result and of the table.

        The overlay is closed first: a table is complete only if its overlay plays.

        Raises:
            OptionError: The overlay could not be written completely.
        """
        if self.video is None or self.overlay is None:
            return
        self.video.close()
        metadata["overlay_video"] = self.video.describe()
        if self.table is not None:
            self.table.metadata["overlay"] = file_record(self.overlay)
            self.table.metadata["overlay_video"] = self.video.describe()

    def note(self, failures: Sequence[Failure], warnings: Sequence[str]) -> None:
        """Put failures and warnings into the metadata of the table."""
        if self.table is not None:
            self.table.metadata["failures"] = [dataclasses.asdict(failure) for failure in failures]
            self.table.metadata["warnings"] = list(warnings)


@contextmanager
def open_outputs(
    aus: Sequence[str],
    record: dict[str, Any],
    reader: FrameReader,
    save: StrPath | None,
    overlay: StrPath | None,
    *,
    hold: int = 0,
    fps: float | None = None,
    anonymise: bool = False,
    find_faces: FindFaces | None = None,
    intensity: bool = False,
    measures: bool = False,
    landmarks: bool = False,
) -> Iterator[Outputs]:
    """Open the files for the rows of a source.

    Args:
        aus: The N names of the scores.
        record: Metadata of the rows; gets the path of the overlay.
        reader: The source of the frames. Its file must not be replaced; its sound goes into the
            overlay.
        save: The table, .csv, .jsonl or .parquet; None for no table.
        overlay: The video; None for no video.
        hold: Frames for which a missing face is drawn in grey.
        anonymise: Whether the overlay covers faces.
        find_faces: Finds the faces of a whole image, for `anonymise`; see `OverlayWriter`.
        fps: Rate of the overlay; None for that of the source.
        intensity: Whether the table has columns of intensities.
        measures: Whether the table has columns of measures of the face.
        landmarks: Whether the table has columns of 68 landmarks.

    Raises:
        OptionError: A file cannot be written, or would replace the input.
    """
    if reader.kind == "video":
        for output in (save, overlay):
            if output is not None:
                check_is_other(output, reader.name)
    video = table = None
    with ExitStack() as stack:
        # The overlay comes first: if its path is wrong, an existing table stays as it is.
        if overlay is not None:
            sound = reader.name if reader.kind == "video" else None
            rate = reader.fps if fps is None else fps
            video = stack.enter_context(
                OverlayWriter(
                    overlay,
                    rate,
                    source=sound,
                    hold=hold,
                    anonymise=anonymise,
                    find_faces=find_faces,
                )
            )
            record["overlay"] = {"path": file_record(overlay)["path"]}
            if anonymise:
                record["anonymised_overlay"] = True
        if save is not None:
            files = reader.kind == "images"
            table = stack.enter_context(
                open_writer(save, aus, record, files, intensity, measures, landmarks)
            )
        yield Outputs(table, video, overlay)
