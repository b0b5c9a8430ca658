"""The way of a fetch to the engine: decode, put rejected records away, learn, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from learners.base import Batch
from learners.errors import DeliveryError
from streams.order import KafkaRecord, label, time_of
from streams.source import BatchSource, Fetch, Progress
from streams.unreadable import Unreadable, rejection

if TYPE_CHECKING:
    from streams.decode import Rejected

__all__ = ["Decoded", "Flow", "Letter", "dead_letter"]

log = structlog.get_logger("everlearn.flow")

SLICE_RECORDS = 2000  # decoded in one go: a few milliseconds in which the loop answers nobody
LETTER_BYTES = 64 * 1024
DETAIL_BYTES = 512
RETRY_SECONDS = 1.0


class Decoder(Protocol):
    """The gate, as the flow uses it (`streams.decode.Gate`)."""

    def decode(
        self, records: Sequence[KafkaRecord], watermarks: Mapping[str, float] | None = None
    ) -> tuple[Batch, list[Rejected]]: ...


class LetterBox(Protocol):
    """Where dead letters go (`streams.publisher.Publisher`)."""

    async def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> tuple[int, int]: ...


class Decoded(NamedTuple):
    """A batch that is ready to be learnt; `times` are its record times, seconds UTC, (n,)."""

    batch: Batch
    n_records: int
    times: NDArray[np.float64]


class Letter(NamedTuple):
    """A dead letter: the record as it came (at most 64 KiB of it), its place as the key."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Flow:
    """One source's way to the engine, from its first fetch to its last.

    Parameters
    ----------
    source
        Where the fetches come from; their numbers show if one is missing.
    gate
        Decodes and validates.
    letters, letters_topic
        Takes rejected records; each is acknowledged before its offset is moved on.
    learn
        Learns a batch; returns when positions have moved.
    progress
        The engine: its watermarks, where the source starts, carry the running maxima on.
    """

    def __init__(
        self,
        *,
        source: BatchSource,
        gate: Decoder,
        letters: LetterBox,
        letters_topic: str,
        learn: Callable[[Decoded], Awaitable[None]],
        progress: Progress,
    ) -> None:
        self.source = source
        self.problem = ""
        self.learnt_records = 0
        self._gate = gate
        self._letters = letters
        self._letters_topic = letters_topic
        self._learn = learn
        self._progress = progress
        self._watermarks: dict[str, float] = {}
        self._expected = 0
        self._closed = False

    @property
    def lag(self) -> int:
        """Records in Kafka that are not learnt yet."""
        return self.source.unread + self.source.sent_records - self.learnt_records

    async def decode(self, fetch: Fetch) -> AsyncIterator[Decoded]:
        """Decode a fetch, slice by slice; its dead letters are acknowledged before it goes on."""
        if fetch.number != self._expected:
            raise RuntimeError(f"fetch {fetch.number} came, {self._expected} is next: one was lost")
        if not fetch.number:
            self._watermarks = dict(self._progress.watermarks)
        self._expected += 1
        lost = fetch.lost
        for start in range(0, len(fetch.records), SLICE_RECORDS):
            records = fetch.records[start : start + SLICE_RECORDS]
            batch, rejected = self._decode(records)
            self._watermarks.update(batch.watermarks)
            if lost:
                batch, lost = replace(batch, rejected={**batch.rejected, "lost": lost}), 0
            await self._put_away(rejected)
            times = np.fromiter(map(time_of, records), np.float64, len(records)) / 1000
            yield Decoded(batch, len(records), times)
            await asyncio.sleep(0)

    def _decode(self, records: Sequence[KafkaRecord]) -> tuple[Batch, list[Rejected]]:
        unreadable = [record for record in records if isinstance(record, Unreadable)]
        if not unreadable:
            return self._gate.decode(records, self._watermarks)
        readable = [record for record in records if not isinstance(record, Unreadable)]
        batch, rejected = self._gate.decode(readable, self._watermarks)
        positions = dict(batch.positions)
        for record in unreadable:
            name = label(record.topic, record.partition)
            positions[name] = max(positions.get(name, 0), record.offset + 1)
        counts = {**batch.rejected, "undecodable": len(unreadable)}
        batch = replace(batch, positions=positions, rejected=counts)
        return batch, [*rejected, *map(rejection, unreadable)]

    async def learn(self, decoded: Decoded) -> None:
        """Have a batch learnt, unless the flow has been closed meanwhile."""
        if self._closed:
            return
        await self._learn(decoded)
        self.learnt_records += decoded.n_records

    def close(self) -> None:
        """Let nothing more through: another flow begins where the engine stands."""
        self._closed = True

    async def _put_away(self, rejected: Sequence[Rejected]) -> None:
        """Publish dead letters until the broker has every one of them."""
        waiting = [dead_letter(each) for each in rejected]
        while waiting and not self._closed:
            outcomes = await asyncio.gather(
                *(self._publish(letter) for letter in waiting), return_exceptions=True
            )
            failed = [(w, o) for w, o in zip(waiting, outcomes, strict=True) if o is not None]
            unexpected = [o for _, o in failed if not isinstance(o, DeliveryError)]
            if unexpected:
                raise unexpected[0]
            waiting = [letter for letter, _ in failed]
            self.problem = _letters_wait(failed[0][1]) if failed else ""
            if failed:
                log.warning("dead letters wait", letters=len(failed), problem=str(failed[0][1]))
                await asyncio.sleep(RETRY_SECONDS)

    async def _publish(self, letter: Letter) -> None:
        await self._letters.publish(
            self._letters_topic, letter.key, letter.value, int(time.time() * 1000), letter.headers
        )


def _letters_wait(error: BaseException) -> str:
    return (
        f"dead letters cannot be put away, and learning waits for that: {error}; if their topic is "
        "missing, `everlearn topics create` makes it"
    )


def dead_letter(rejected: Rejected) -> Letter:
    """Make the dead letter of a rejected record.

    An absent value becomes an empty one: the topic is compacted, and would drop the letter.
    """
    record = rejected.record
    if record is None:
        raise ValueError("only what came as a record of Kafka has a dead letter")
    value = record.value or b""
    headers = [
        ("reason", rejected.reason.encode()),
        ("detail", rejected.detail.encode(errors="replace")[:DETAIL_BYTES]),
        ("timestamp", str(record.timestamp).encode()),
    ]
    if record.key is not None:
        headers.append(("key", record.key[:DETAIL_BYTES]))
    if len(value) > LETTER_BYTES:
        headers.append(("truncated_from", str(len(value)).encode()))
    place = f"{record.topic}/{record.partition}/{record.offset}"
    return Letter(place.encode(), value[:LETTER_BYTES], headers)
