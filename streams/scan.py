"""Clicks and purchases read in a kernel: from the bytes of many messages to columns, no objects.

`scan` takes the messages that are surely sound: one flat JSON object in ASCII, without escapes,
every known field within its bounds. Whatever else a message may be, it is left to the decoder,
which alone decides; so the kernel may be strict, and never has to say why. Both ways give the same,
a test holds that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from learners.base import CLICK, PURCHASE
from learners.jit import jit
from learners.store.xxh3 import hash_64
from streams.events import MAX_AHEAD_SECONDS, MAX_AMOUNT, MAX_BYTES, MAX_ID_BYTES, MAX_POSITION

__all__ = ["ANY_ACT", "NO_ACT", "Scanned", "make_scanned", "scan"]

ANY_ACT, NO_ACT = 254, 255  # what a topic carries, besides CLICK and PURCHASE
FIELDS = (
    "event_id",
    "timestamp",
    "user",
    "item",
    "session",
    "type",
    "impression_id",
    "price",
    "quantity",
    "position",
    "context",
)
EVENT_ID, TIMESTAMP, USER, ITEM, SESSION, TYPE, IMPRESSION, PRICE, QUANTITY, POSITION, CONTEXT = (
    range(len(FIELDS))
)
OTHER = len(FIELDS)
REQUIRED = 1 << EVENT_ID | 1 << TIMESTAMP | 1 << USER | 1 << ITEM
FIELD_HASHES = np.array([xxh3_64_intdigest(name.encode()) for name in FIELDS], np.uint64)
CLICK_HASH, PURCHASE_HASH = (np.uint64(xxh3_64_intdigest(name)) for name in (b"click", b"purchase"))
TEXT, NUMBER, NULL, LITERAL = range(4)  # kinds of values
PLAIN = np.zeros(256, np.bool_)  # bytes of a text that stand for themselves
PLAIN[0x20:0x80] = True
PLAIN[[ord('"'), ord("\\")]] = False
BLANK = np.zeros(256, np.bool_)
BLANK[[ord(c) for c in " \t\n\r"]] = True
POWERS = 10 ** np.arange(19, dtype=np.int64)
MOST_DIGITS = 10**17  # a number of up to 18 digits
QUOTE, COLON, COMMA, DOT, ZERO, NINE, OPEN, CLOSE, LETTER_E = (ord(c) for c in '":,.09{}e')


class Scanned(NamedTuple):
    """What was read of n messages, an entry each; where `sound` is false, the rest says nothing.

    Texts are places in the buffer, from `start` up to before `stop`.
    """

    sound: NDArray[np.bool_]  # (n,)
    kind: NDArray[np.uint8]  # (n,) CLICK or PURCHASE
    timestamp: NDArray[np.float64]  # (n,) seconds UTC
    event_hash: NDArray[np.uint64]  # (n,) XXH3_64bits of event_id
    value: NDArray[np.float32]  # (n,) price x quantity of a purchase, NaN without a price, else 0
    start: NDArray[np.int64]  # (3, n) of user, item, session
    stop: NDArray[np.int64]  # (3, n)


def make_scanned(n: int) -> Scanned:
    """Return room for n messages."""
    return Scanned(
        np.zeros(n, np.bool_),
        np.zeros(n, np.uint8),
        np.zeros(n),
        np.zeros(n, np.uint64),
        np.zeros(n, np.float32),
        np.zeros((3, n), np.int64),
        np.zeros((3, n), np.int64),
    )


@jit
def _skip_blank(data: NDArray[np.uint8], at: int, stop: int) -> int:
    while at < stop and BLANK[data[at]]:
        at += 1
    return at


@jit
def _end_of_text(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """Return the place of the quote that ends a text; -1 where the text is not plain."""
    while at < stop and PLAIN[data[at]]:
        at += 1
    return at if at < stop and data[at] == QUOTE else -1


@jit
def _end_of_literal(data: NDArray[np.uint8], at: int, stop: int, word: bytes) -> int:
    """Return the place after `word`, -1 where it does not stand."""
    if at + len(word) > stop:
        return -1
    for i in range(len(word)):
        if data[at + i] != word[i]:
            return -1
    return at + len(word)


@jit
def _quotient(mantissa: int, decimals: int) -> float:
    """Return mantissa / 10^decimals rounded as it should be, -1 where that is not sure.

    The quotient of two floats is next to the right one: what is left over, which is small enough
    to be counted modulo 2^64, tells by how much. `mantissa` is below 10^18, not negative.
    """
    if decimals == 0 or mantissa == 0:
        return float(mantissa) if mantissa < 2**53 else -1.0
    power = POWERS[decimals]
    near = np.float64(mantissa) / np.float64(power)
    bits = np.float64(near).view(np.int64)
    shift = 1075 - (bits >> 52)
    if shift < 1 or shift > 63:
        return -1.0
    whole = (bits & (2**52 - 1)) | 2**52
    left = (mantissa << shift) - whole * power
    if 2 * abs(left) > power:
        if whole == 2**52:
            return -1.0
        bits += 1 if left > 0 else -1
        left -= power if left > 0 else -power
    if 2 * abs(left) >= power:
        return -1.0
    return float(np.int64(bits).view(np.float64))


@jit
def _number(data: NDArray[np.uint8], at: int, stop: int) -> tuple[int, float, int]:
    """Read a number without sign and exponent; return the place after it, value and decimals.

    The place is -1 where there is none, or one that cannot be told exactly.
    """
    begin = at
    mantissa = np.int64(0)
    while at < stop and ZERO <= data[at] <= NINE and mantissa < MOST_DIGITS:
        mantissa = 10 * mantissa + data[at] - ZERO
        at += 1
    if at == begin or (data[begin] == ZERO and at > begin + 1):
        return -1, 0.0, 0
    decimals = 0
    if at < stop and data[at] == DOT:
        at += 1
        point = at
        while at < stop and ZERO <= data[at] <= NINE and mantissa < MOST_DIGITS:
            mantissa = 10 * mantissa + data[at] - ZERO
            at += 1
        decimals = at - point
        if decimals == 0 or decimals > 18:
            return -1, 0.0, 0
    value = _quotient(int(mantissa), decimals)
    if value < 0.0 or (at < stop and (ZERO <= data[at] <= NINE or data[at] | 32 == LETTER_E)):
        return -1, 0.0, 0
    return at, value, decimals


@jit
def _value(data: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int, float, int]:
    """Read a value; return the place after it (-1: not plain), its kind, number and decimals."""
    first = data[at]
    if first == QUOTE:
        end = _end_of_text(data, at + 1, stop)
        return (end + 1 if end >= 0 else -1), TEXT, 0.0, 0
    if ZERO <= first <= NINE:
        end, number, decimals = _number(data, at, stop)
        return end, NUMBER, number, decimals
    if first == ord("n"):
        return _end_of_literal(data, at, stop, b"null"), NULL, 0.0, 0
    if first == ord("t"):
        return _end_of_literal(data, at, stop, b"true"), LITERAL, 0.0, 0
    if first == ord("f"):
        return _end_of_literal(data, at, stop, b"false"), LITERAL, 0.0, 0
    return -1, LITERAL, 0.0, 0


@jit
def _is_sound(field: int, kind: int, length: int, number: float, decimals: int) -> bool:
    """Tell whether a field may have a value; `length` is that of a text."""
    if field in (EVENT_ID, USER, ITEM):
        return kind == TEXT and 0 < length <= MAX_ID_BYTES
    if field in (SESSION, IMPRESSION):
        return kind == NULL or (kind == TEXT and 0 < length <= MAX_ID_BYTES)
    if field == TIMESTAMP:
        return kind == NUMBER
    if field == PRICE:
        return kind == NULL or (kind == NUMBER and number <= MAX_AMOUNT)
    if field == QUANTITY:
        return kind == NUMBER and number <= MAX_AMOUNT
    if field == POSITION:
        return kind == NULL or (kind == NUMBER and decimals == 0 and number <= MAX_POSITION)
    if field == CONTEXT:
        return kind == NULL
    return field == OTHER or kind == TEXT


@jit
def _field(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Return the number of the field with this name, `OTHER` for none of ours."""
    if stop - start > MAX_ID_BYTES:
        return OTHER
    name = hash_64(data, start, stop)
    for field in range(len(FIELD_HASHES)):
        if FIELD_HASHES[field] == name:
            return field
    return OTHER


@jit
def _act(data: NDArray[np.uint8], start: int, stop: int, expected: int) -> int:
    """Return the kind that a message's type (nothing where it has none) says it is, or `NO_ACT`."""
    if stop == start:
        return expected if expected <= PURCHASE else NO_ACT
    name = hash_64(data, start, min(stop, start + MAX_ID_BYTES))
    kind = CLICK if name == CLICK_HASH else PURCHASE if name == PURCHASE_HASH else NO_ACT
    return kind if expected in (ANY_ACT, kind) else NO_ACT


@jit
def _scan_one(
    data: NDArray[np.uint8], at: int, stop: int, expected: int, latest: float, out: Scanned, i: int
) -> bool:
    """Read a message into entry i; tell whether it is sound."""
    if stop - at > MAX_BYTES:
        return False
    at = _skip_blank(data, at, stop)
    if at == stop or data[at] != OPEN:
        return False
    met = type_start = type_stop = 0
    price, quantity = np.nan, 1.0
    out.start[2, i] = out.stop[2, i] = 0
    closed = False
    while not closed:
        at = _skip_blank(data, at + 1, stop)
        if at == stop or data[at] != QUOTE:
            return False
        name = at + 1
        at = _end_of_text(data, name, stop)
        if at < 0:
            return False
        field = _field(data, name, at)
        at = _skip_blank(data, at + 1, stop)
        if at == stop or data[at] != COLON:
            return False
        at = _skip_blank(data, at + 1, stop)
        if at == stop or (field != OTHER and met >> field & 1):
            return False
        met |= 1 << field
        begin = at + 1  # of what stands between the quotes of a text
        at, kind, number, decimals = _value(data, at, stop)
        if at < 0 or not _is_sound(field, kind, at - 1 - begin, number, decimals):
            return False
        end = at - 1 if kind == TEXT else begin
        if field == TIMESTAMP:
            out.timestamp[i] = number
        elif field == EVENT_ID:
            out.event_hash[i] = hash_64(data, begin, end)
        elif field == PRICE:
            price = number if kind == NUMBER else np.nan
        elif field == QUANTITY:
            quantity = number
        elif field == TYPE:
            type_start, type_stop = begin, end
            if begin == end:
                return False
        elif field in (USER, ITEM, SESSION):
            out.start[field - USER, i] = begin
            out.stop[field - USER, i] = end
        at = _skip_blank(data, at, stop)
        if at == stop:
            return False
        closed = data[at] == CLOSE
        if not closed and data[at] != COMMA:
            return False
    kind = _act(data, type_start, type_stop, expected)
    out.kind[i] = kind
    out.value[i] = np.float32(price * quantity) if kind == PURCHASE else np.float32(0.0)
    whole = met & REQUIRED == REQUIRED and _skip_blank(data, at + 1, stop) == stop
    return whole and kind != NO_ACT and out.timestamp[i] <= latest


@jit
def scan(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    expected: NDArray[np.uint8],
    times: NDArray[np.float64],
    now: float,
    out: Scanned,
) -> int:
    """Read the messages that are surely sound clicks or purchases; return how many are.

    Parameters
    ----------
    data : (bytes,)
        All messages, one after the other.
    start, stop : (n,)
        Where each begins and ends.
    expected : (n,)
        What each message's topic carries: `CLICK`, `PURCHASE`, `ANY_ACT` where the message says
        it, or `NO_ACT`.
    times : (n,)
        Record times, seconds; an event may be `MAX_AHEAD_SECONDS` ahead of its own and of `now`.
    now
        Wall clock, seconds UTC.
    out
        Filled.
    """
    sound = 0
    for i in range(len(start)):
        out.sound[i] = False
        if expected[i] != NO_ACT:
            known = min(times[i], now) if times[i] >= 0 else now
            out.sound[i] = _scan_one(
                data, start[i], stop[i], expected[i], known + MAX_AHEAD_SECONDS, out, i
            )
        sound += out.sound[i]
    return sound
