"""All that kernels read, behind one reference.

A kernel that is called with named tuples of 80 arrays pays 16 µs before its first instruction: the
type of each is looked up, each is taken out of its Python object. A handle is made once, and a call
with it costs less than one. What it holds, a kernel borrows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from numba import types
from numba.experimental import structref

from learners.blend import Blend
from learners.borrowed import borrow
from learners.candidates import Models, Workspace
from learners.jit import jit_brief_counted
from learners.store.history import History

__all__ = ["Handle", "State", "make_handle", "state_of"]


class State(NamedTuple):
    """What a query reads, and what a learnt event changes; the arrays are never replaced."""

    history: History
    models: Models
    blend: Blend
    work: Workspace


@structref.register
class _HandleType(types.StructRef):
    def preprocess_fields(self, fields: Any) -> Any:
        """Keep types, not values of literals."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)  # type: ignore[no-untyped-call]


class Handle(structref.StructRefProxy):
    """A reference to a state; kernels take it from `state_of`."""

    state: State

    def __new__(cls, state: State) -> Handle:
        """Compile what makes handles of such states; `make_handle` keeps it."""
        return cast(Handle, super().__new__(cls, state))  # type: ignore[no-untyped-call]


state_of = cast("Callable[[Handle], State]", borrow("state"))
structref.define_proxy(Handle, _HandleType, ["state"])  # type: ignore[no-untyped-call]


@jit_brief_counted
def make_handle(state: State) -> Handle:
    """Return a handle of a state."""
    return Handle(state)
