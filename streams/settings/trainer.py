"""How the trainer learns, judges and keeps: the section `[trainer]` of the settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from streams.settings.topics import Number, WholeNumber

__all__ = ["TrainerSettings"]

MOST = 100_000_000


class TrainerSettings(BaseModel):
    """What `everlearn train` can be told, beside broker and topics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["core-ave", "core", "transformer", "gru", "mlp"] = Field(
        default="core-ave",
        description="kind of the deep model: core-ave, core, transformer, gru or mlp",
    )
    width: WholeNumber = Field(
        default=192,
        ge=16,
        le=1024,
        multiple_of=16,
        description="numbers of an item's row, by 16; a node takes them by 32",
    )
    seed: WholeNumber = Field(default=1, ge=0, le=2**31, description="seed of all randomness")
    first_events: WholeNumber = Field(
        default=20_000, ge=1, le=MOST, description="clicks and purchases before the first training"
    )
    every_events: WholeNumber = Field(
        default=50_000, ge=1, le=MOST, description="clicks and purchases between two fine-tunes"
    )
    every_minutes: Number = Field(
        default=60.0,
        ge=0,
        le=525_600,
        description="minutes of event time after which one begins all the same; 0: never",
    )
    at_alarms: bool = Field(
        default=True, description="whether a drift alarm on the champion's hits begins one, too"
    )
    epochs: WholeNumber = Field(
        default=5, ge=1, le=1000, description="rounds over the new sequences in a fine-tune"
    )
    epochs_first: WholeNumber = Field(
        default=10, ge=1, le=1000, description="rounds of the first training"
    )
    rehearsed: Number = Field(
        default=2.0, ge=0, le=100, description="older sequences rehearsed for each new one"
    )
    distillation: Number = Field(
        default=0.0, ge=0, le=100, description="weight of the champion's opinion on rehearsed ones"
    )
    propagation: Number = Field(
        default=0.5, ge=0, le=1, description="share of its neighbours in an item's row; 0: none"
    )
    threads: WholeNumber = Field(
        default=1, ge=0, le=1024, description="CPU threads of a fine-tune; 0: all there are"
    )
    users: WholeNumber = Field(
        default=200_000, ge=1, le=MOST, description="users followed; the longest silent make room"
    )
    items: WholeNumber = Field(
        default=200_000,
        ge=1,
        le=10_000_000,
        description="items with a row; the longest unseen make room",
    )
    newest: WholeNumber = Field(
        default=50_000, ge=1, le=MOST, description="newest sequences kept whole to rehearse"
    )
    reservoir: WholeNumber = Field(
        default=50_000, ge=1, le=MOST, description="older sequences kept, a fair sample of all"
    )
    evaluate_one_in: WholeNumber = Field(
        default=8, ge=1, le=1_000_000, description="share of targets that judge: 1 in this many"
    )
    hold_out_one_in: WholeNumber = Field(
        default=64,
        ge=2,
        le=1_000_000,
        description="share of users never trained on, who show forgetting: 1 in this many",
    )
    gate_targets: WholeNumber = Field(
        default=2_000, ge=20, le=1_000_000, description="targets between two verdicts of the gate"
    )
    gate_verdicts: WholeNumber = Field(
        default=4, ge=1, le=100, description="verdicts until one that is not better is discarded"
    )
    gate_chance: Number = Field(
        default=0.05, gt=0, le=0.5, description="chance of promoting one that is no better"
    )
    keep: WholeNumber = Field(
        default=10, ge=2, le=10_000, description="newest snapshots kept, beside those in service"
    )
    retire_days: Number = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="days of event time after which snapshots from before an erasure are retired",
    )
    port: WholeNumber = Field(
        default=0, ge=0, le=65535, description="port of the trainer's metrics; 0: none"
    )
