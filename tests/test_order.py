"""The one order: the same whatever each fetch returned, and whoever stopped and went on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from streams.order import MergeBuffer, Record, TopicPart, label, merge_order

PARTS: list[TopicPart] = [("a", 0), ("a", 1), ("a", 10), ("b", 0)]

# Few different times, so that ties and times that run backwards are common.
logs = st.fixed_dictionaries(
    {part: st.lists(st.integers(-1, 12), max_size=25) for part in PARTS}
).map(
    lambda times: {
        part: [Record(*part, offset, time, None, b"") for offset, time in enumerate(its_times)]
        for part, its_times in times.items()
    }
)
Log = dict[TopicPart, list[Record]]


def by_definition(log: Log) -> list[Record]:
    """Sort by (running maximum of times, topic, partition, offset), record by record."""
    keyed = []
    for part, records in log.items():
        highest = None
        for record in records:
            highest = record.timestamp if highest is None else max(highest, record.timestamp)
            keyed.append(((highest, *part, record.offset), record))
    return [record for _, record in sorted(keyed, key=lambda pair: pair[0])]


def fetches(log: Log, choices: Sequence[tuple[int, int]]) -> Iterator[tuple[TopicPart, int, int]]:
    """Slices (partition, from, to) of a log, as the choices say, until all of it is read."""
    position = dict.fromkeys(log, 0)
    for which, size in [*choices, *[(i, 1000) for i in range(len(log))]]:
        part = sorted(log)[which % len(log)]
        start, position[part] = position[part], min(position[part] + size, len(log[part]))
        yield part, start, position[part]


def learn_in_fetches(log: Log, choices: Sequence[tuple[int, int]]) -> list[Record]:
    """Read a recorded log with the given fetches, as the batch source does."""
    buffer = MergeBuffer[Record]({})
    position = dict.fromkeys(log, 0)
    learnt = []
    for part, start, stop in fetches(log, choices):
        buffer.add(part, log[part][start:stop])
        position[part] = stop
        learnt += buffer.release([p for p in log if position[p] < len(log[p])])
    assert len(buffer) == 0
    return learnt


@given(logs)
def test_the_order_is_its_definition(log: Log) -> None:
    records = [record for its_records in log.values() for record in its_records]
    assert merge_order(records) == by_definition(log)


@given(logs, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_any_slicing_into_fetches_gives_the_same_order(
    log: Log, choices: list[tuple[int, int]]
) -> None:
    assert learn_in_fetches(log, choices) == by_definition(log)


@given(logs, st.integers(0, 100))
def test_going_on_from_a_checkpoint_gives_the_same_order(log: Log, learnt: int) -> None:
    whole = by_definition(log)
    positions = dict.fromkeys(log, 0)
    watermarks: dict[str, float] = {}
    for record in whole[:learnt]:
        part = (record.topic, record.partition)
        positions[part] = record.offset + 1
        watermarks[label(*part)] = max(
            watermarks.get(label(*part), float("-inf")), record.timestamp / 1000
        )
    rest = [record for part, records in log.items() for record in records[positions[part] :]]
    assert merge_order(rest, watermarks) == whole[learnt:]


def test_a_partition_with_more_to_give_holds_back_what_it_might_precede() -> None:
    buffer = MergeBuffer[Record]({})
    first, later = Record("a", 0, 0, 5, None, b""), Record("a", 0, 1, 7, None, b"")
    other = Record("b", 0, 0, 6, None, b"")
    buffer.add(("a", 0), [first])
    buffer.add(("b", 0), [other])
    assert buffer.release([("a", 0)]) == [first]  # a/0 may still give a record of time 5 or 6
    buffer.add(("a", 0), [later])
    assert buffer.release([("a", 0)]) == [other, later]


def test_a_partition_never_read_holds_back_everything() -> None:
    buffer = MergeBuffer[Record]({})
    buffer.add(("a", 0), [Record("a", 0, 0, 5, None, b"")])
    assert buffer.release([("b", 0)]) == []
    assert len(buffer.release([])) == 1
