"""Warnings about faces outside the range in which models are validated."""

from __future__ import annotations

import numpy as np

from pyfau.faces.ranges import LEAST_QUALITY, LIMITS
from pyfau.tables.rows import AURows
from pyfau.types import MEASURES


def quality_warnings(rows: AURows) -> list[str]:
    """One warning that counts the rows outside the range, by reason; empty if there are none.

    Args:
        rows: Rows with measures of the face. Rows without measures give no warning.
    """
    if rows.measures is None:
        return []
    values = dict(zip(MEASURES, rows.measures.T.astype(np.float64), strict=True))
    outside = values["quality"] < LEAST_QUALITY  # False for NaN
    count = int(outside.sum())
    if count == 0:
        return []
    faces = int(np.isfinite(values["quality"]).sum())
    reasons = []
    for limit in LIMITS:
        bad = int((limit.quality(values[limit.measure]) < LEAST_QUALITY).sum())
        if bad:
            reasons.append(f"{bad} {limit.text}")
    return [
        f"{count} of {faces} faces have a quality below {LEAST_QUALITY}, which is outside the "
        f"validated range: {', '.join(reasons)}"
    ]
