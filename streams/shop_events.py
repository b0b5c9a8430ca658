"""What happened in the synthetic shop: columns, event structs for Kafka, or an engine's batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from learners.base import ITEM, PURCHASE, Batch, CatalogueEntry
from streams.events import Click, Event, Item, Purchase

__all__ = ["ShopEvents", "item_name", "item_number", "user_name"]


def user_name(number: int) -> str:
    """Id of a shopper."""
    return f"user-{number:05d}"


def item_name(number: int) -> str:
    """Id of an item."""
    return f"item-{number:05d}"


def item_number(item: str) -> int:
    """Number of an item, from its id; -1 when the id is not the shop's."""
    digits = item.removeprefix("item-")
    return int(digits) if digits.isascii() and digits.isdigit() and digits != item else -1


@dataclass(frozen=True, slots=True)
class ShopEvents:
    """Clicks and purchases in order, columns of length n; entries of `catalogue` come before them.

    `position` is the place in the list that was shown, -1 for an item the shopper found alone.
    """

    shop: str  # starts the ids of events and sessions
    kind: NDArray[np.uint8]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    session: NDArray[np.int64]
    time: NDArray[np.float64]
    price: NDArray[np.float64]
    quantity: NDArray[np.float64]
    position: NDArray[np.int64]
    number: NDArray[np.int64]
    catalogue: Sequence[Item] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def joined(cls, parts: Sequence[ShopEvents]) -> ShopEvents:
        """All parts as one; the catalogue's entries move to the front."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__dataclass_fields__
            if name not in ("shop", "catalogue")
        }
        return cls(
            shop=parts[0].shop,
            **columns,
            catalogue=[entry for part in parts for entry in part.catalogue],
        )

    def events(self, impressions: Mapping[int, str] | None = None) -> list[Event]:
        """Event structs; `impressions` names the list that a place of the columns was shown."""
        shown = impressions or {}
        told: list[Event] = list(self.catalogue)
        for i, kind in enumerate(self.kind.tolist()):
            common: dict[str, Any] = {
                "event_id": f"{self.shop}-{self.number[i]}",
                "timestamp": float(self.time[i]),
                "user": user_name(self.user[i]),
                "item": item_name(self.item[i]),
                "session": f"{self.shop}-{self.session[i]}",
            }
            if self.position[i] >= 0:
                common |= {"position": int(self.position[i]), "impression_id": shown.get(i)}
            if kind == PURCHASE:
                price, quantity = float(self.price[i]), float(self.quantity[i])
                told.append(Purchase(**common, price=price, quantity=quantity))
            else:
                told.append(Click(**common))
        return told

    def _values(self) -> NDArray[np.float64]:
        return np.where(self.kind == PURCHASE, self.price * self.quantity, 0.0)

    def batch(self) -> Batch:
        """The same events as a batch for `Engine.learn`, as if read from one partition."""
        shop = self.shop
        entries = list(self.catalogue)
        lead, label = len(entries), f"{shop}/0"
        ids = [entry.event_id for entry in entries] + [f"{shop}-{n}" for n in self.number.tolist()]
        hashes = (xxhash.xxh3_64_intdigest(event_id.encode()) for event_id in ids)
        return Batch(
            kind=np.concatenate([np.full(lead, ITEM, np.uint8), self.kind]),
            user=[""] * lead + [user_name(number) for number in self.user.tolist()],
            item=[e.item for e in entries] + [item_name(number) for number in self.item.tolist()],
            session=[""] * lead + [f"{shop}-{number}" for number in self.session.tolist()],
            timestamp=np.concatenate([[entry.timestamp for entry in entries], self.time]),
            event_hash=np.fromiter(hashes, np.uint64, len(ids)),
            log=np.zeros(len(ids), np.int32),
            logs=[label],
            catalogue={i: _entry(item) for i, item in enumerate(entries)},
            value=np.concatenate([np.zeros(lead), self._values()]).astype(np.float32),
            positions={label: int(self.number[-1]) + 1} if len(self) else {},
            watermarks={label: float(self.time.max())} if len(self) else {},
        )


def _entry(item: Item) -> CatalogueEntry:
    return CatalogueEntry(
        category=item.category,
        price=item.price,
        title=item.title,
        created=item.created,
        available=item.available,
    )
