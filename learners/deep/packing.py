"""What of a model a snapshot keeps: rows of items in four bits a number, sorted into clusters.

What counts of an item's row is its direction, and twice as many numbers of half the bits tell it
better; a search reads an eighth of the memory. The clusters are those of
`learners.deep.served.index`. A model that is asked is made of the packed rows again, so the gate
judges what nodes will serve.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import SequenceConfig
from learners.deep.served.codes import MOST, codes_of, numbers_of
from learners.deep.served.weights import parts_of

__all__ = ["Arrays", "blank", "pack", "unpack"]

Arrays = Mapping[str, NDArray[np.generic]]
ROUNDS = 5  # of k-means
ROWS_A_CLUSTER = 128
AT_ONCE = 4096  # rows that are compared with the centres


def pack(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.generic]]:
    """Return a model's arrays as a snapshot keeps them.

    `table` (n, D) becomes `code` (n, W / 2), of numbers that times `step` (n,) are the row (W is D
    filled up, see `served.codes`); `cluster` (n,) and `centre` (C, W / 2), in codes, are what
    `served.index.make_index` takes. `own` (n, D), rows as they were trained where answers have
    others, becomes `own_code` and `own_step`. A row that is no number has a step that is none.

    Examples
    --------
    >>> packed = pack({"table": np.array([[3.5, -1.2], [0.0, 0.0]], np.float32)})
    >>> packed["step"].tolist(), unpack(packed, 2)["table"].tolist()
    ([0.5, 0.0], [[3.5, -1.0], [0.0, 0.0]])
    """
    number, step = _in_steps(arrays["table"])
    cluster, centre = _clusters(number.astype(np.float32))
    packed: dict[str, NDArray[np.generic]]
    packed = {name: array for name, array in arrays.items() if name not in ("table", "own")}
    packed |= {"code": codes_of(number), "step": step}
    packed |= {"cluster": cluster, "centre": codes_of(_in_steps(centre)[0])}
    if len(own := arrays.get("own", ())):
        number, step = _in_steps(np.asarray(own))
        packed |= {"own_code": codes_of(number), "own_step": step}
    return packed


def unpack(arrays: Arrays, width: int) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of the model, of some width, that a snapshot keeps.

    Raises
    ------
    KeyError
        One is missing.
    """
    rest = {
        name: np.asarray(array, np.float32)
        for name, array in arrays.items()
        if name not in ("code", "step", "cluster", "centre", "own_code", "own_step")
    }
    own = np.zeros((0, width), np.float32)
    if "own_code" in arrays:
        own = _rows_of(arrays["own_code"], arrays["own_step"], width)
    return {**rest, "table": _rows_of(arrays["code"], arrays["step"], width), "own": own}


def blank(config: SequenceConfig, items: int) -> dict[str, NDArray[np.generic]]:
    """Return packed arrays of as many items, of a model that has learnt nothing at all."""
    cluster = np.arange(items, dtype=np.int32) // ROWS_A_CLUSTER
    return {
        **{name: np.zeros(shape, np.float32) for name, shape in parts_of(config).items()},
        "code": codes_of(np.ones((items, config.width), np.int8)),
        "step": np.ones(items, np.float32),
        "cluster": cluster,
        "centre": codes_of(np.ones((int(cluster[-1]) + 1, config.width), np.int8)),
    }


def _rows_of(
    code: NDArray[np.generic], step: NDArray[np.generic], width: int
) -> NDArray[np.float32]:
    number = numbers_of(np.asarray(code, np.uint8), width)
    return number * np.asarray(step, np.float32)[:, None]


def _in_steps(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return whole numbers (n, D), and what they are to be multiplied with (n,)."""
    step = np.abs(rows).max(axis=1, initial=0.0) / np.float32(MOST)
    sound = np.isfinite(step) & (step > 0)
    scaled = np.divide(rows, step[:, None], out=np.zeros_like(rows), where=sound[:, None])
    return np.rint(scaled).clip(-MOST, MOST).astype(np.int8), step


def _clusters(
    rows: NDArray[np.float32], seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Cluster rows by direction: spherical k-means (Dhillon and Modha 2001).

    Returns
    -------
    NDArray
        (n,) cluster of each row.
    NDArray
        (C, D) centres.
    """
    n = len(rows)
    rows = _unit(rows)
    clusters = max(n // ROWS_A_CLUSTER, 1)
    generator = np.random.default_rng(seed)
    drawn = generator.choice(n, clusters, replace=False) if n else np.zeros(0, np.int64)
    centre = np.zeros((clusters, rows.shape[1]), np.float32)
    centre[: len(drawn)] = rows[drawn]
    cluster = np.zeros(n, np.int32)
    for _ in range(ROUNDS if clusters > 1 else 0):
        for begin in range(0, n, AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            cluster[some] = np.argmax(rows[some] @ centre.T, axis=1)
        order = np.argsort(cluster, kind="stable")
        first = np.flatnonzero(np.diff(cluster[order], prepend=-1))
        # Sums of directions; a cluster that has lost all its rows keeps its centre.
        centre[cluster[order[first]]] = np.add.reduceat(rows[order], first)
        centre = _unit(centre)
    return cluster, centre


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1, but for rows of zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
