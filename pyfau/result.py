"""`AUResult`: the rows of one input, with everything that can be done with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyfau.choices import BaselineSource, SummaryUnit
from pyfau.errors import InputError
from pyfau.limits import LIMITS, Limits
from pyfau.tables.metadata import is_complete, read_metadata, write_whole
from pyfau.tables.readers import read_csv, read_jsonl, read_parquet, read_table
from pyfau.tables.rows import AURows
from pyfau.tables.writers import (
    TABLES,
    CSVWriter,
    JSONLinesWriter,
    ParquetWriter,
    ResultWriter,
    open_writer,
    write_table,
)
from pyfau.types import StrPath, UInt8Array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from typing_extensions import Self

    from pyfau.analysis.baseline import Baseline

__all__ = [
    "TABLES",
    "AUResult",
    "CSVWriter",
    "JSONLinesWriter",
    "ParquetWriter",
    "ResultWriter",
    "is_complete",
    "open_writer",
    "read_metadata",
    "read_result",
    "write_whole",
]


# The methods import what they call, so pandas, matplotlib and OpenCV load only if they are used.
class AUResult(AURows):
    """The rows of one input: one for each face in each frame, and one for a frame without a face.

    A score is occurrence in [0, 1]: the probability that the action unit is present. It is NOT an
    intensity.

    A result behaves as a sequence of `AURow`. Rows are stored by column, in about 200 bytes each,
    and 800 with landmarks.

    Args:
        aus: The N column names of the scores, for example "AU12".
        metadata: The origin of the rows (source, model, versions ...). Only values that JSON can
            express can be written to files.
        files: Whether the input was image files. Tables then have a column `file`.
        raw: Whether the rows have raw scores as well as adjusted ones. Tables then have columns
            such as "AU12_raw".
        intensity: Whether the rows have intensities. Tables then have columns such as "AU12_r".
        measures: Whether the rows have measures of the face. Tables then have the columns of
            `pyfau.types.FaceMeasures`.
        landmarks: Whether the rows have 68 landmarks. Tables then have the columns x_0 ... and
            more; see docs/landmarks.md.

    Attributes:
        warnings: Problems that did not stop the work, in words.
        failures: Inputs that could not be read; each has a `source` and an `error`.
    """

    def draw(
        self,
        rgb: UInt8Array,
        frame: int = 0,
        *,
        all_aus: bool = False,
        landmarks: bool = True,
    ) -> UInt8Array:
        """Draw the faces of a frame.

        Faces that are missing in the frame, but were seen shortly before, are drawn in grey.

        Args:
            rgb: The image of the frame, (H, W, 3) uint8, RGB.
            frame: Index of the frame.
            all_aus: Draw all action units, not only the active ones; see `pyfau.draw_overlay`.
            landmarks: Draw the 68 landmarks, if the result has them.

        Returns:
            (H, W, 3) uint8, RGB, a new image. A result that was read from a file does not have the
            aligner's five landmarks.

        Raises:
            InputError: `rgb` is not such an image, or there is no row of that frame.
        """
        from pyfau.overlay.drawing import LastFaces, check_image, draw_overlay

        rgb = check_image(rgb)
        hold = 0 if self._metadata.get("independent") else int(self._metadata.get("max_gap") or 0)
        frames = self.frames
        rows = [self[i] for i in np.flatnonzero(frames == frame).tolist()]
        if not rows:
            raise InputError(f"there is no row of frame {frame!r}")
        faces = LastFaces(hold)
        faces.missing(
            (self[i] for i in np.flatnonzero((frames >= frame - hold) & (frames < frame)).tolist()),
            rgb.shape,
        )
        shown = [*rows, *faces.missing(rows, rgb.shape)]
        return draw_overlay(rgb, shown, all_aus=all_aus, landmarks=landmarks)

    def summary(self, per: SummaryUnit = "face") -> pd.DataFrame:
        """Features of a clip for further models, such as those of scikit-learn.

        Args:
            per: "face": one row for each face, by face_id. "clip": one row for all faces together.

        Returns:
            float64 columns, the same for every result of a model:

            - frames: scored rows
            - seconds: their duration; NaN without times and fps
            - face_share: share of the frames that show the face, or any face
            - confidence_mean
            - quality_mean, quality_low_share: mean quality, and share of the scored rows with a
              quality below 0.5, unless the measures were left out

            And for each action unit:

            - AU12_mean, AU12_std (population), AU12_p10, AU12_p50, AU12_p90: of the scores
            - AU12_active_share: share of the scored frames
            - AU12_onsets_per_min: onsets that were seen, per minute of scored time
            - AU12_event_mean_s: mean length of all events; see `pyfau.analysis.find_events`
            - AU12_r_mean, AU12_r_p90: of the intensities, where the model has intensities

            And, where the model scores AU43 or AU45:

            - blinks: number of blinks; see `pyfau.events.find_blinks`
            - blinks_per_min: per minute of scored time
            - blink_mean_s: mean length of a blink

            A value is NaN where nothing was scored, where there are no times or no event, and for
            the rates of independent images.

        Raises:
            OptionError: `per` has another value.
        """
        from pyfau.analysis.summary import summarize

        return summarize(self, per)

    def baseline(
        self,
        source: Baseline | Mapping[int, Baseline] | BaselineSource | None = None,
        *,
        per_face: bool = True,
        quantile: float = 0.1,
        mode: str = "subtract",
    ) -> Self:
        """Adjust the scores to the resting face of each person: a new result.

        A face at rest can have scores above 0.05, or above half the threshold of the AU if that is
        less. The part above it counts as the person's own. In log-odds, this part is subtracted
        from the scores, or added to the threshold. No score rises, and none leaves [0, 1]. The
        active flags are the same with both modes. The calculation always starts from the raw
        scores, also for a result that was adjusted before. Intensities are computed again from
        the adjusted scores. See docs/baseline.md.

        Args:
            source: Scores at rest: a `Baseline` of the one person in this result, or a mapping from
                face_id to `Baseline` (faces without an entry stay as they are). "auto": the median
                scores of the frames in which the face is at rest. A face that this recording does
                not show at rest is not adjusted, and a warning says so. None: the `quantile` of
                the scored frames of this result. This is right only if the face is at rest in
                that share of the frames.
            per_face: With "auto" and a quantile: whether each face has its own levels, or all
                faces share them.
            quantile: In [0, 1]. A face with fewer than 30 scored frames is not adjusted, and a
                warning says so.
            mode: "subtract" changes the scores and keeps the raw scores as well (`raw_scores`,
                columns AU12_raw). "threshold" changes only the active flags; the thresholds are in
                the metadata.

        Returns:
            The same rows. The metadata describes the adjustment under "baseline".

        Raises:
            OptionError: An option has a value that it does not take.
            InputError: The metadata has no thresholds; a frame shows several faces and there is one
                `Baseline`; or a baseline is of another model.
        """
        from pyfau.analysis.baseline import adjust

        return adjust(self, source, per_face=per_face, quantile=quantile, mode=mode)

    def to_csv(self, path: StrPath) -> Path:
        """Write a CSV file, and its metadata to a JSON file; see `CSVWriter`."""
        return write_table(self, CSVWriter, path)

    def to_parquet(self, path: StrPath) -> Path:
        """Write a Parquet file, which contains its metadata; see `ParquetWriter`."""
        return write_table(self, ParquetWriter, path)

    def to_jsonl(self, path: StrPath) -> Path:
        """Write JSON Lines, and the metadata to a JSON file; see `JSONLinesWriter`."""
        return write_table(self, JSONLinesWriter, path)

    def to_openface(self, path: StrPath) -> Path:
        """Write a CSV with the columns of OpenFace 2.

        The columns are frame (from 1), face_id, timestamp, confidence, success, AU01_c ... The
        head pose is pose_Rx, pose_Ry and pose_Rz in radians, unless it was left out. Landmarks
        are x_0 ... x_67 and y_0 ... y_67 in pixels, if they were requested.
        Intensities are the columns AU01_r ..., before AU01_c, where the model has intensities.
        Scores are left out: they are not intensities. A frame without a face has zeros, as in
        OpenFace. Read the file with `pyfau.formats.openface.read_openface`.
        """
        from pyfau.formats.openface import write_openface

        return write_openface(self, path)

    def to_pyfeat(self) -> pd.DataFrame:
        """The rows under the column names of py-feat.

        Returns:
            These columns; a frame without a face has NaN:

            - frame, time_s
            - FaceRectX, FaceRectY, FaceRectWidth, FaceRectHeight, FaceScore
            - x_0 ... x_67, y_0 ... y_67: landmarks in pixels, if they were requested
            - Pitch, Roll, Yaw: radians with the signs of py-feat 2.1, unless the head pose was left
              out; then X, Y, Z, which are NaN, because pyfau does not measure the position
            - AU01 ...: scores
            - Identity: "Person_0" for face_id 0. This is a track, not a recognised person.
            - input: the image file, or the source. A name that a spreadsheet would take for a
              formula has an apostrophe in front (see `pyfau.tables.cells`)

            `pyfau.formats.pyfeat.read_pyfeat` reads a CSV of this table.
        """
        from pyfau.formats.pyfeat import to_pyfeat

        return to_pyfeat(self)

    def to_events(
        self, path: StrPath, *, min_frames: int = 1, join_frames: int = 0, blinks: bool = False
    ) -> Path:
        """Write a CSV of the events, one on each line; see `pyfau.analysis.find_events`.

        Read the file with `pyfau.formats.events.read_events`.
        """
        from pyfau.analysis.events import EventRules
        from pyfau.formats.events import write_events

        return write_events(self, path, EventRules(min_frames, join_frames, blinks))

    def to_elan(
        self, path: StrPath, *, min_frames: int = 1, join_frames: int = 0, blinks: bool = False
    ) -> Path:
        """Write the events as an .eaf file for ELAN.

        Each AU of each face has a tier, such as "AU12 face 0". An annotation is an event; its text
        is the highest score. With `blinks`, short closures of the eyes have their own tier,
        AU45; see `pyfau.analysis.find_events`. Read the file with `pyfau.formats.elan.read_elan`.

        Raises:
            InputError: The rows have no times.
        """
        from pyfau.analysis.events import EventRules
        from pyfau.formats.elan import write_elan

        return write_elan(self, path, EventRules(min_frames, join_frames, blinks))

    def to_bids(
        self, path: StrPath, *, min_frames: int = 1, join_frames: int = 0, blinks: bool = False
    ) -> Path:
        """Write the events as `*_events.tsv` in the style of BIDS, with a sidecar of JSON.

        The columns are onset, duration, trial_type (the AU), face_id, peak, peak_frame, onset_seen
        and offset_seen. Times are those of the video. Read the file with
        `pyfau.formats.bids.read_bids_events`.

        Raises:
            InputError: The rows have no times.
            OptionError: The name of the file does not end with _events.tsv.
        """
        from pyfau.analysis.events import EventRules
        from pyfau.formats.bids import write_bids

        return write_bids(self, path, EventRules(min_frames, join_frames, blinks))

    def plot(self, face_id: int | None = None, kind: str = "lines") -> Figure:
        """Plot the scores of one face over time.

        The figure is not shown: use `savefig`, or let the notebook display it.

        Args:
            face_id: The face. Default: the face in most frames; all faces of independent images.
            kind: "lines", a row for each AU with its threshold, active frames shaded; or "heatmap".

        Raises:
            InputError: There is no face to plot.
            OptionError: There is no such face or kind.
            DependencyError: matplotlib is not installed.
        """
        from pyfau.report.plot import plot_result

        return plot_result(self, face_id, kind)

    def show(
        self,
        source: StrPath | None = None,
        *,
        frame: int | None = None,
        start_s: float = 0.0,
        seconds: float = 10.0,
        all_aus: bool = False,
    ) -> Any:
        """Show the overlay inside a notebook: one frame as an image, or a part as a video.

        The image or video becomes part of the notebook, with the faces that it shows.

        Args:
            source: The scored video or folder of images; None for the path in the metadata.
            frame: Index of the frame to show; None for a video.
            start_s: Where the video starts, in seconds.
            seconds: Length of the video.
            all_aus: Draw all action units, not only the active ones.

        Returns:
            An `IPython.display.Image` or `IPython.display.Video`.

        Raises:
            InputError: The source is not there, or lacks this frame or time.
            OptionError: An option has an invalid value.
            DependencyError: IPython is not installed.
        """
        from pyfau.notebook import show

        return show(self, source, frame=frame, start_s=start_s, seconds=seconds, all_aus=all_aus)

    def _repr_html_(self) -> str:
        """For notebooks: first rows, a plot, and warnings."""
        from pyfau.notebook import repr_html

        return repr_html(self)

    def report(self, path: StrPath, video: StrPath | None = None, **options: Any) -> Path:
        """Write an HTML page with timelines, summary, stills and player.

        See `pyfau.report.write_report`.
        """
        from pyfau.report.html import write_report

        return write_report(self, path, video=video, **options)

    @classmethod
    def read_csv(cls, path: StrPath, limits: Limits = LIMITS) -> Self:
        """Read a table that `to_csv` or a `CSVWriter` wrote. `AURow.landmarks` is NaN.

        If the run that wrote the file did not finish, `warnings` says so, and a torn last line is
        left out.

        Raises:
            InputError: There is no such file, or it is not a table of pyfau.
        """
        return read_csv(path, cls, limits)

    @classmethod
    def read_jsonl(cls, path: StrPath, limits: Limits = LIMITS) -> Self:
        """Read a table that `to_jsonl` or a `JSONLinesWriter` wrote; otherwise as `read_csv`.

        The action units of a file without rows are those in its metadata.

        Raises:
            InputError: There is no such file, or it is not a table of pyfau.
        """
        return read_jsonl(path, cls, limits)

    @classmethod
    def read_parquet(cls, path: StrPath, limits: Limits = LIMITS) -> Self:
        """Read a table that `to_parquet` or a `ParquetWriter` wrote. `AURow.landmarks` is NaN.

        Raises:
            InputError: There is no such file, or it is not a table of pyfau.
            DependencyError: pyarrow is not installed.
        """
        return read_parquet(path, cls, limits)


def read_result(path: StrPath, limits: Limits = LIMITS) -> AUResult:
    """Read a table that pyfau wrote: Parquet or JSON Lines by its suffix, otherwise CSV.

    Args:
        path: The table.
        limits: Larger tables are refused; see `pyfau.limits.Limits`.

    Raises:
        InputError: There is no such file, or it is not of this kind.
        DependencyError: pyarrow is not installed, and the suffix is .parquet.
    """
    return read_table(path, AUResult, limits)
