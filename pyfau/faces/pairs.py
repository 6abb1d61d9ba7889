"""Pairs of two sets, such as lost tracks and found faces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def cheapest_pairs(cost: npt.NDArray[np.floating]) -> list[tuple[int, int]]:
    """The pairs with the smallest sum of costs.

    Args:
        cost: (M, N) finite.

    Returns:
        min(M, N) pairs of a row and a column, each of which occurs at most once.
    """
    if not cost.size:
        return []
    if 1 in cost.shape:
        row, column = divmod(int(np.argmin(cost)), cost.shape[1])
        return [(row, column)]
    # Imported here because it takes 0.2 s, and most recordings never need it.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
