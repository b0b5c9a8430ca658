"""Named tuples that kernels read where they lie, by address.

Numba hands a named tuple on by value: each of its arrays is seven words, so a state of 180 arrays
is a copy of ten kilobytes for every call between kernels, and takes the compiler seconds for each
of them. A borrowed tuple is one address. Its arrays are read from there when a kernel names them;
that they are never replaced meanwhile is told to the compiler, so that a loop reads them once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate
from numba.experimental.structref import _Utils
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model

__all__ = ["Borrowed", "borrow"]


class Borrowed(types.Type):
    """A named tuple of arrays and of such tuples, by its address; only its fields can be read."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        super().__init__(f"Borrowed({whole})")

    @property
    def key(self) -> Any:
        """That of the tuple, fields and all: its name does not tell two of one class apart."""
        return self.whole


@register_model(Borrowed)
class _BorrowedModel(models.OpaqueModel):
    """An address."""


@infer_getattr
class _Fields(AttributeTemplate):
    key = Borrowed

    def generic_resolve(self, value: Any, attr: str) -> Any:  # type: ignore[override]
        """Return the type of a field; a tuple's is borrowed, too."""
        fields = value.whole.fields
        if attr not in fields:
            return None
        kind = value.whole.types[fields.index(attr)]
        return Borrowed(kind) if isinstance(kind, types.BaseTuple) else kind


@lower_getattr_generic(Borrowed)  # type: ignore[no-untyped-call, untyped-decorator]
def _read_field(context: Any, builder: Any, borrowed: Borrowed, address: Any, name: str) -> Any:
    whole = borrowed.whole
    place = whole.fields.index(name)
    stored = context.data_model_manager[whole].get_value_type()
    start = builder.bitcast(address, stored.as_pointer())
    field = builder.gep(start, [ir.IntType(32)(0), ir.IntType(32)(place)], inbounds=True)
    kind = whole.types[place]
    if isinstance(kind, types.BaseTuple):
        return builder.bitcast(field, address.type)
    value = _load(builder, field)
    return impl_ret_borrowed(context, builder, kind, value)  # type: ignore[no-untyped-call]


def _load(builder: Any, address: Any) -> Any:
    """Read what stands at an address and never changes, word by word."""
    stored = address.type.pointee
    if not isinstance(stored, ir.Aggregate):
        value = builder.load(address)
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value
    whole = ir.Constant(stored, ir.Undefined)
    for place in range(len(stored)):
        part = builder.gep(address, [ir.IntType(32)(0), ir.IntType(32)(place)], inbounds=True)
        whole = builder.insert_value(whole, _load(builder, part), place)
    return whole


def borrow(name: str) -> Any:
    """Make what borrows the tuple in a field of a structref; it lives as long as its owner."""

    def lend(typing_context: Any, owner: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            parts: Any = _Utils
            held = parts(context, builder, signature.args[0]).get_data_struct(arguments[0])
            return builder.bitcast(held._get_ptr_by_name(name), ir.IntType(8).as_pointer())

        return Borrowed(owner.field_dict[name])(owner), build

    return intrinsic(lend)
