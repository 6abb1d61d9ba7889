"""Co-occurrence: how often two action units of one face are active together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyfau.analysis.events import scored_rows
from pyfau.analysis.series import chosen_aus
from pyfau.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows


def find_co_occurrence(
    result: AURows, *, aus: Sequence[str] | None = None, face_id: int | None = None
) -> pd.DataFrame:
    """How often pairs of action units are active together.

    Co-occurrence can be an error of the model: action units that it confuses occur together.

    Args:
        result: Rows of a sequence or of images.
        aus: The action units; None for all.
        face_id: The face; None for the rows of all faces together.

    Returns:
        One row for each pair, in the order of the action units:

        - au_a, au_b: str
        - jaccard: float64, of the frames in which either is active, the share in which both are;
          NaN where neither is ever active
        - both: float64, of all frames with scores of both, the share in which both are active
        - correlation: float64, Pearson's r of the scores; NaN where a score is constant
        - frames: int64, frames with a face

    Raises:
        OptionError: There is no such face or action unit.
    """
    import pandas as pd

    names = chosen_aus(result, aus)
    table = scored_rows(result)
    if face_id is not None:
        table = table[table["face_id"] == face_id]
        if not len(table):
            raise OptionError(f"face_id must be one of {result.face_ids}, got {face_id!r}")
    scores = table[list(names)].to_numpy(np.float64)
    active = table[[f"{au}_c" for au in names]].to_numpy(np.float64) > 0
    matrices = co_occurrence(scores, active)
    lines = [
        {"au_a": names[i], "au_b": names[j]}
        | {kind: float(matrix[i, j]) for kind, matrix in matrices.items()}
        for i, j in itertools.combinations(range(len(names)), 2)
    ]
    columns = ["au_a", "au_b", *matrices]
    pairs: pd.DataFrame = pd.DataFrame(lines, columns=columns).assign(frames=len(table))
    return pairs


def co_occurrence(
    scores: npt.NDArray[np.float64], active: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.float64]]:
    """How often two AUs of one face are active together.

    Args:
        scores: (R, N) in [0, 1].
        active: (R, N).

    Returns:
        Three symmetric (N, N) matrices, NaN where there is nothing to divide by: "jaccard", of the
        rows in which either AU is active the share in which both are; "both", the share of all rows
        in which both are; and "correlation", Pearson's r of the scores. Rows in which one of the
        two AUs has no score do not count for the pair.
    """
    known = np.isfinite(scores).astype(np.float64)
    rows = known.T @ known
    count = active * known
    both = count.T @ count
    first = count.T @ known  # active rows of the first AU of a pair
    return {
        "jaccard": _divided(both, first + first.T - both),
        "both": _divided(both, rows),
        "correlation": _correlations(scores, known, rows),
    }


def _correlations(
    scores: npt.NDArray[np.float64], known: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Pearson's r of each pair of columns, over the rows in which both are known."""
    filled = np.where(known > 0, scores, 0.0)
    # Differences from the means of the columns: the sums below then lose no digits.
    centred = (filled - _divided(filled.sum(axis=0), known.sum(axis=0))) * known
    total = centred.T @ known
    square = (centred**2).T @ known - _divided(total**2, rows)
    product = centred.T @ centred - _divided(total * total.T, rows)
    spread = np.sqrt(np.maximum(square, 0)) * np.sqrt(np.maximum(square.T, 0))
    return _divided(product, np.where(spread > 1e-18, spread, np.nan))


def _divided(
    part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The quotient; NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole == 0, np.nan, part / whole)
