"""What a deep model is, and how it is fine-tuned: plain values, as manifests keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ARCHITECTURES", "HEADS", "Architecture", "FineTuneConfig", "SequenceConfig"]

Architecture = Literal["core", "transformer", "gru", "mlp", "core-ave"]
ARCHITECTURES: tuple[Architecture, ...] = ("core", "transformer", "gru", "mlp", "core-ave")
HEADS = 2  # user vectors of a history: what is clicked next, what is bought next (CLICK, PURCHASE)


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """The shape of a model, and what is dropped while it trains."""

    architecture: Architecture = "core-ave"
    width: int = 192  # of item rows and user vectors
    feed_forward: int = 384
    most_events: int = 50  # of a user, the most recent
    scale: float = 14.0  # length of a user vector; an item vector has length 1
    dropout_items: float = 0.5
    dropout_residual: float = 0.2
    table_std: float = 0.05  # of a new row's numbers


@dataclass(frozen=True, slots=True)
class FineTuneConfig:
    """How a model is trained.

    What ends in `_first` is for a first training, from nothing; rows of items take steps of their
    own rate, `row_rate` times `rate`.
    """

    seed: int = 1
    epochs: int = 5
    epochs_first: int = 10
    most_steps: int = 100_000
    batch: int = 128  # sequences a step
    negatives: int = 1024  # items drawn a step
    negative_power: float = 0.75
    rate: float = 4e-3
    row_rate: float = 6.0
    row_rate_first: float = 3.0
    warmup_steps: int = 20
    last_rate: float = 0.1  # of `rate`, at the last step
    rehearsed: float = 2.0  # older sequences for each new one
    propagation: float = 0.5  # share of its neighbours in a row, at the end; 0 for none
    distillation: float = 0.0  # weight of the champion's opinion on rehearsed sequences
    most_gradient: float = 5.0  # norm at which gradients are clipped
    threads: int = 0  # of the CPU; 0 leaves them as they are
