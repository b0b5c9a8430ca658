"""What only some engines read, behind a reference of its own, so that the others pay nothing.

`Models` go from kernel to kernel by value, so that arrays in them cost time even where nobody reads
them. One reference does not, and a flag beside it says whether to follow it.
"""

from __future__ import annotations

from typing import Any, cast

from numba import types
from numba.experimental import structref

from learners.jit import jit_brief
from learners.outcomes import OutcomesState

__all__ = ["Aside", "set_aside"]


@structref.register
class _AsideType(types.StructRef):
    def preprocess_fields(self, fields: Any) -> Any:
        """Keep types, not values of literals."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)  # type: ignore[no-untyped-call]


class Aside(structref.StructRefProxy):
    """A reference to what is learnt of outcomes; kernels read `on` before `state`."""

    on: int
    state: OutcomesState

    def __new__(cls, on: int, state: OutcomesState) -> Aside:
        """Compile what makes such references; `set_aside` keeps it."""
        return cast(Aside, super().__new__(cls, on, state))  # type: ignore[no-untyped-call]


structref.define_proxy(Aside, _AsideType, ["on", "state"])  # type: ignore[no-untyped-call]


@jit_brief
def set_aside(on: int, state: OutcomesState) -> Aside:
    """Return a reference to a state."""
    return Aside(on, state)
