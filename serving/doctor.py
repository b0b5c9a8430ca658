"""What a node needs, looked at piece by piece: each finding in words, with a cure."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from learners.errors import EverlearnError

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["Check", "examine"]

OLDEST_PYTHON = (3, 11)
CODECS = ("gzip", "snappy", "lz4", "zstd")
# No clock that is right shows a time before this program was written.
EARLIEST_SECONDS = 1_735_689_600.0
AHEAD_SECONDS = 300.0
MOST_PARTS = 4  # of the memory that are named
PROGRAM_BYTES = 304 << 20  # a node's libraries and compiled kernels, before anything is learnt
ANSWER_SECONDS = 10.0  # a node may take five until a fingerprint is worth its while
CLOCK_CURE = "set the clock of this machine (NTP), or those of the producers"


class Check(NamedTuple):
    """A finding: `fail` keeps a node from working, `warn` may surprise."""

    status: Literal["ok", "warn", "fail"]
    what: str
    value: str
    cure: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Yield a finding for each thing that a node needs, and for a node that runs here."""
    yield _python()
    broker = _broker(settings)
    yield broker
    if broker.status != "fail":
        yield from _guarded("topics", _topics, settings)
        yield from _guarded("events", _beginnings, settings)
    yield from _guarded("clock", _clock, settings, broker.status != "fail")
    yield _codecs()
    yield _java()
    yield _state_folder(settings.state_dir)
    yield from _guarded("checkpoint", _checkpoint, settings.state_dir)
    yield from _guarded("snapshots", _snapshots, settings.snapshot_dir)
    yield from _guarded("memory", _memory, settings)
    yield _node(settings)


def _guarded(what: str, check: Callable[..., Iterator[Check]], *given: object) -> Iterator[Check]:
    """Yield the findings of a check; that it could not be made is a finding as well."""
    try:
        yield from check(*given)
    except EverlearnError as error:
        yield Check("fail", what, str(error))
    except Exception as error:
        yield Check("fail", what, f"cannot be checked: {type(error).__name__}: {error}")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("fail", "Python", version, "install Python 3.11 or newer")
    return Check("ok", "Python", version)


def _broker(settings: Settings) -> Check:
    from streams.broker import EMBEDDED_LIMITS, is_embedded
    from streams.topics import connect_admin

    try:
        if settings.security.protocol == "PLAINTEXT" and is_embedded(settings.broker):
            return Check("ok", "broker", f"{settings.broker}, embedded", EMBEDDED_LIMITS)
        with connect_admin(settings) as admin:
            brokers = len(admin.describe_cluster()["brokers"])
    except EverlearnError as error:
        wrong, _, cure = str(error).partition("; ")
        return Check(
            "fail", "broker", wrong, cure or "is EVERLEARN_BROKER right, and its security?"
        )
    return Check("ok", "broker", f"{settings.broker}, Kafka, brokers: {brokers}")


def _topics(settings: Settings) -> Iterator[Check]:
    from streams.topics import list_topics

    reports = list_topics(settings)
    for report in reports:
        if report.state == "missing":
            yield Check(
                "fail", "topic", f"{report.name} is missing", "run `everlearn topics create`"
            )
        for what, wanted, found in report.differences:
            yield Check(
                "warn",
                "topic",
                f"{report.name}: {what} is {found}, the settings say {wanted}",
                f"change the topic with your Kafka tools, or topics.{report.role} in the settings",
            )
    good = [report for report in reports if report.state in ("as set", "theirs")]
    waiting = [report for report in reports if report.state == "on first use"]
    if good:
        yield Check("ok", "topics", f"{len(good)} of {len(reports)} are there and as set")
    if waiting:
        yield Check("ok", "topics", f"{len(waiting)} of {len(reports)} will appear on first use")


def _beginnings(settings: Settings) -> Iterator[Check]:
    """Tell of events that Kafka no longer has, unless the topic is meant to drop old ones."""
    from streams.broker import EMBEDDED_LIMITS
    from streams.topics import first_offsets, list_topics

    events = settings.event_topics()
    reports = {each.name: each for each in list_topics(settings) if each.name in events}
    counts = {name: report.partitions for name, report in reports.items() if report.partitions}
    for name, firsts in first_offsets(settings, counts).items():
        begun, days = sum(first > 0 for first in firsts), reports[name].retention_days
        if not begun:
            continue
        value = f"{name}: {begun} of {len(firsts)} partitions begin above offset 0"
        gone = f"{value}, {sum(firsts):,} events are gone"
        if days is None:
            yield Check("warn", "events", gone, f"a new node cannot learn them. {EMBEDDED_LIMITS}")
        elif days < 0:
            yield Check("warn", "events", gone, "a new node cannot learn them: who deleted them?")
        else:
            yield Check("ok", "events", f"{gone}: it keeps {days:g} days")


def _clock(settings: Settings, reachable: bool) -> Iterator[Check]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < EARLIEST_SECONDS:
        yield Check("fail", "clock", f"{shown} cannot be", CLOCK_CURE)
        return
    newest = _newest_record_seconds(settings) if reachable else None
    if newest is None:
        yield Check("ok", "clock", shown)
    elif newest > now + AHEAD_SECONDS:
        ahead = f"the newest event in Kafka is {newest - now:.0f} s ahead of this clock ({shown})"
        yield Check("warn", "clock", ahead, CLOCK_CURE)
    else:
        yield Check("ok", "clock", f"{shown}; the newest event is {now - newest:.0f} s old")


def _newest_record_seconds(settings: Settings) -> float | None:
    """Return the latest record time in the event topics; None where the broker cannot tell."""
    from streams.broker import is_embedded
    from streams.topics import connect_admin, list_topics

    if settings.security.protocol == "PLAINTEXT" and is_embedded(settings.broker):
        return None
    from kafka import TopicPartition
    from kafka.admin import OffsetSpec

    asked = {
        TopicPartition(report.name, partition): OffsetSpec.MAX_TIMESTAMP
        for report in list_topics(settings)
        if report.name in settings.event_topics()
        for partition in range(report.partitions or 0)
    }
    if not asked:
        return None
    with connect_admin(settings) as admin:
        found = admin.list_partition_offsets(asked).values()
    newest = max(offset.timestamp for offset in found)
    return newest / 1000 if newest >= 0 else None


def _codecs() -> Check:
    from aiokafka import codec

    unread = [name for name in CODECS if not getattr(codec, f"has_{name}")()]
    if unread:
        cure = "pip install cramjam: a node stops at the first batch it cannot decompress"
        return Check("fail", "codecs", f"cannot read {', '.join(unread)}", cure)
    return Check("ok", "codecs", f"{', '.join(CODECS)} are read")


def _java() -> Check:
    from streams.apache import is_available, java_version

    if reason := is_available():
        return Check("warn", "Java and Maven", reason, "needed for `make kafka` and its tests only")
    return Check("ok", "Java and Maven", f"Java {java_version()}; `make kafka` can run")


def _state_folder(folder: Path) -> Check:
    from streams.targets import nearest_there, why_unwritable

    home = nearest_there(folder)
    if why := why_unwritable(folder):
        cure = "make it writable, or name another with EVERLEARN_STATE_DIR"
        return Check("fail", "state folder", f"{folder} is not writable ({why})", cure)
    free = os.statvfs(home)
    gigabytes = free.f_bavail * free.f_frsize / 1e9
    made = "" if home == folder else ", will be made"
    return Check("ok", "state folder", f"{folder}{made}, {gigabytes:.1f} GB free")


def _checkpoint(folder: Path) -> Iterator[Check]:
    from learners.checkpoint import CheckpointStore

    manifest = CheckpointStore(folder).newest_manifest()
    if manifest is None:
        yield Check("ok", "checkpoint", f"none in {folder} yet")
        return
    told = f"{manifest['events']} events, fingerprint {manifest['fingerprint']}"
    yield Check("ok", "checkpoint", f"newest in {folder}: {told}")


def _snapshots(folder: Path) -> Iterator[Check]:
    """Tell who serves, read to the last byte as a node would."""
    from learners.deep.snapshots import Snapshots
    from learners.errors import SnapshotError

    snapshots = Snapshots(folder)
    try:
        there, champion = len(snapshots.ids()), snapshots.alias("champion")
        if champion is None:
            yield Check("ok", "snapshots", f"no champion in {folder} yet, snapshots: {there}")
            return
        items = len(snapshots.read(champion).items)
    except SnapshotError as error:
        wrong, _, cure = str(error).partition("; ")
        readable = "make it readable, or name another with EVERLEARN_SNAPSHOT_DIR"
        yield Check("fail", "snapshots", f"{folder}: {wrong}", cure or readable)
        return
    told = f"champion {champion} of {items:,} items in {folder}, snapshots: {there}"
    yield Check("ok", "snapshots", told)


def _memory(settings: Settings) -> Iterator[Check]:
    from learners.capacity import copy_bytes, parts_of
    from learners.engine import Engine

    engine = Engine(settings.engine)
    parts, copy, there = parts_of(engine), copy_bytes(engine), _memory_bytes()
    needed = sum(parts.values())
    largest = sorted(parts, key=parts.__getitem__, reverse=True)[:MOST_PARTS]
    told = ", ".join(f"{name} {parts[name] / 2**20:,.0f} MiB" for name in largest)
    value = (
        f"{needed / 2**30:.2f} GiB at full capacity ({told}), {copy / 2**30:.2f} for the copy of a "
        f"checkpoint and {PROGRAM_BYTES / 2**30:.2f} for the program, of {there / 2**30:.2f} GiB"
    )
    if needed + copy + PROGRAM_BYTES > there:
        yield Check("warn", "memory", value, "lower engine.users, items or sessions")
    else:
        yield Check("ok", "memory", value)


def _memory_bytes() -> int:
    """Return the memory of this machine, or of the container where that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(whole, int(text)) if text.isdigit() else whole


def _node(settings: Settings) -> Check:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    address = f"{host}:{settings.port}"
    try:
        health = _ask(f"http://{address}/health/ready?fingerprint=1")
    except ConnectionRefusedError:
        return Check("ok", "node", f"none runs at {address}")
    except (OSError, ValueError) as error:
        cure = "another program may use the port: choose one with EVERLEARN_PORT"
        return Check("warn", "node", f"{address} does not answer as a node does ({error})", cure)
    of_now = health.get("fingerprint_positions") == health.get("positions")
    fingerprint = (of_now and health.get("fingerprint")) or "not known while it learns"
    told = f"{address}, lag {health.get('lag')}, fingerprint {fingerprint}"
    if health.get("ready"):
        return Check("ok", "node", f"{told}, ready")
    return Check("warn", "node", f"{told}, not ready: {'; '.join(health.get('reasons', []))}")


def _ask(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            body = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else error from error
    health = json.loads(body)
    if not isinstance(health, dict) or "ready" not in health:
        raise ValueError("its /health/ready is another's")
    return health
