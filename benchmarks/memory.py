"""What an engine takes: the bound stated beforehand, a process that is full, more ids than rows.

The target is half a gibibyte for a million users and a hundred thousand items. What a user and an
item more cost are difference quotients: the whole less one with half as many, by the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import run_part
from benchmarks.rows import Row, make_row
from learners.base import EngineConfig
from learners.capacity import ID_BYTES, LONGEST_ID_BYTES, copy_bytes, parts_of
from learners.engine import Engine
from streams.warmup import warm_up

__all__ = ["TARGET_BYTES", "run"]

TARGET_BYTES = 2**29
EVENTS_A_USER, EVENTS_AN_ITEM = 6, 40
LIMIT_SECONDS = 1800.0
TIMES = (1, 5, 10)  # ids over capacity at which figures are told
SAMPLES = 30
# Of the engine that is too small, sessions and books are in proportion to its items.
SMALL_SESSIONS, SMALL_BOOKS = 16_384, 16_384
OVERFLOW_EVENTS_AN_ID = 10


def run(
    *,
    users: int,
    items: int,
    history_length: int,
    measured: bool,
    overflow_users: int,
    overflow_items: int,
    plot: Path | None,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield the rows `bound`, `measured` (where wanted) and `overflow` (where it has users).

    Parameters
    ----------
    users, items, history_length
        Capacities of the engine that is filled.
    measured
        Whether to fill it; that takes minutes at a million users.
    overflow_users, overflow_items
        Capacities of the engine that meets ten times as many ids.
    plot
        Where memory and hit rate beyond capacity are drawn.
    """
    warm_up(say)  # or else a process that compiles kernels would keep the compiler's memory
    yield _bound(users, items, history_length)
    if measured:
        yield _measured(users, items, history_length, say)
    if overflow_users:
        row, course = _overflow(overflow_users, overflow_items, say)
        if plot is not None:
            from benchmarks.memory_plot import plot_overflow

            plot_overflow(course, overflow_users, overflow_items, plot)
        yield row


def _config(users: int, items: int, history_length: int) -> dict[str, Any]:
    return {"users": users, "items": items, "history_length": history_length}


def _bound(users: int, items: int, history_length: int) -> Row:
    """What `Engine.capacity_bytes` says before anything is learnt."""
    started = time.perf_counter()

    def bytes_of(users: int, items: int) -> int:
        return Engine(EngineConfig(**_config(users, items, history_length))).capacity_bytes()

    engine = Engine(EngineConfig(**_config(users, items, history_length)))
    total = engine.capacity_bytes()
    fewer_users, fewer_items = bytes_of(users // 2, items), bytes_of(users, items // 2)
    figures = {
        **_totals(total, total - fewer_users, total - fewer_items, users, items),
        **_config(users, items, history_length),
        "checkpoint_copy_bytes": copy_bytes(engine),
        "longest_ids_bytes": (users + items) * (LONGEST_ID_BYTES - ID_BYTES),
        "parts": parts_of(engine),
    }
    return make_row("memory", "bound", figures, time.perf_counter() - started)


def _totals(total: int, of_users: int, of_items: int, users: int, items: int) -> dict[str, object]:
    """The figures that every row begins with; `of_...` are the bytes of half of them."""
    return {
        "bytes_total": total,
        "bytes_per_user": round(of_users / (users - users // 2), 1),
        "bytes_per_item": round(of_items / (items - items // 2), 1),
        "target_bytes": TARGET_BYTES,
        "of_target": round(total / TARGET_BYTES, 3),
    }


def _measured(users: int, items: int, history_length: int, say: Callable[[str], None]) -> Row:
    """What processes take that have learnt until every row is used; the engine's is the growth."""
    started = time.perf_counter()
    events = max(EVENTS_A_USER * users, EVENTS_AN_ITEM * items)

    def fill(users: int, items: int, save: bool = False) -> dict[str, Any]:
        say(f"learning {events:,} events of {users:,} users and {items:,} items")
        words = {
            "engine": _config(users, items, history_length),
            "visits": {"users": users, "items": items, "events": events},
            "listed": items,
            "samples": 1,
            "save": save,
        }
        found: dict[str, Any] = run_part("benchmarks.resident", words, seconds=LIMIT_SECONDS)
        return found

    whole = fill(users, items, save=True)
    of_users = whole["resident_bytes"] - fill(users // 2, items)["resident_bytes"]
    of_items = whole["resident_bytes"] - fill(users, items // 2)["resident_bytes"]
    figures = {
        **_totals(whole["resident_bytes"], of_users, of_items, users, items),
        "engine_bytes": whole["resident_bytes"] - whole["baseline_bytes"],
        **_config(users, items, history_length),
        **{name: whole[name] for name in whole if name not in ("course", "resident_bytes")},
    }
    return make_row("memory", "measured", figures, time.perf_counter() - started)


def _overflow(
    users: int, items: int, say: Callable[[str], None]
) -> tuple[Row, dict[str, list[dict[str, Any]]]]:
    """Ten times as many ids as an engine has rows for, and one that has enough, side by side.

    Half as many ids as there are rows are in fashion at a time; old ones return now and then.
    """
    started = time.perf_counter()
    most = max(TIMES)
    visits = {
        "users": most * users,
        "items": most * items,
        "user_window": users // 2,
        "item_window": items // 2,
        "events": OVERFLOW_EVENTS_AN_ID * most * max(users, items),
        "rounds": 0.2,
    }
    course: dict[str, list[dict[str, Any]]] = {}
    held: dict[str, Any] = {}
    for name, times in (("bounded", 1), ("enough", most)):
        say(f"{most} times {items:,} items, rows for {times} times as many")
        config = {
            "users": times * users,
            "items": times * items,
            "sessions": SMALL_SESSIONS,
            "dedupe_events": SMALL_BOOKS,
        }
        words = {"engine": config, "visits": visits, "listed": 0, "samples": SAMPLES, "save": False}
        found = run_part("benchmarks.resident", words, seconds=LIMIT_SECONDS)
        course[name] = found["course"]
        held[name] = {n: found[n] for n in ("users_held", "items_held", "hr@20", "baseline_bytes")}
    figures: dict[str, object] = {"users": users, "items": items, "events": visits["events"]}
    for times in TIMES:
        figures |= _figures_at(times, items, course)
    for name, found in held.items():
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    row = make_row("memory", "overflow", figures, time.perf_counter() - started)
    return row, course


def _figures_at(
    times: int, items: int, course: Mapping[str, list[dict[str, Any]]]
) -> dict[str, object]:
    """Memory and hit rate when so many times the ids that fit have been met (or nearly)."""
    figures: dict[str, object] = {}
    for name, samples in course.items():
        near = min(samples, key=lambda sample: abs(sample["items_met"] - times * items))
        figures |= {
            f"items_met_{times}x": near["items_met"],
            f"users_met_{times}x": near["users_met"],
            f"{name}_bytes_{times}x": near["resident_bytes"],
            f"{name}_hr@20_{times}x": near["hr@20"],
        }
    kept = float(str(figures[f"bounded_hr@20_{times}x"])) / max(
        float(str(figures[f"enough_hr@20_{times}x"])), 1e-9
    )
    return {**figures, f"hr_kept_{times}x": round(kept, 3)}
