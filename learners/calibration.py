"""Do probabilities come true? Expected calibration error and the bins of a reliability figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "reliability"]

BINS = 400  # fine ones, in which outcomes are counted as they come
PARTS = 10


def reliability(bins: NDArray[np.float64]) -> dict[str, Any]:
    r"""Join fine bins to ten of about equal mass, and say by how much each is off.

    The expected calibration error is :math:`\sum_b n_b / n |\bar p_b - \bar y_b|` (Naeini, Cooper,
    Hauskrecht 2015), here over bins of equal mass.

    Parameters
    ----------
    bins : (BINS, 3)
        Outcomes, sum of the probabilities told, how many came true; by rising probability.

    Returns
    -------
    dict
        `outcomes`, `bought`, `calibration_error` (`None` without outcomes) and `reliability`, rows
        of `n`, `told` and `came_true` (means).

    Examples
    --------
    >>> bins = np.zeros((BINS, 3))
    >>> bins[100], bins[300] = [90, 9, 9], [10, 9, 5]
    >>> found = reliability(bins)
    >>> round(found["calibration_error"], 3), [row["n"] for row in found["reliability"]]
    (0.04, [90, 10])
    """
    total = bins[:, 0].sum()
    # A fine bin belongs where its middle stands, so that a heavy one is not spread over several.
    middle = np.cumsum(bins[:, 0]) - bins[:, 0] / 2.0
    part = np.minimum((middle / max(total, 1.0) * PARTS).astype(np.int64), PARTS - 1)
    rows = []
    for p in range(PARTS):
        n, told, true = bins[part == p].sum(axis=0)
        if n:
            rows.append({"n": int(n), "told": float(told / n), "came_true": float(true / n)})
    off = sum(row["n"] * abs(row["told"] - row["came_true"]) for row in rows)
    return {
        "outcomes": int(total),
        "bought": int(bins[:, 2].sum()),
        "calibration_error": float(off / total) if total else None,
        "reliability": rows,
    }
