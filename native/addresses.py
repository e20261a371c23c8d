"""Addresses: memory that is not Python's, read and written by compiled loops, and functions of C that they call."""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from native.librdkafka import LIBRDKAFKA, declare

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])

NUMBER: Final = "intp"  # of 64 bits, an address among them
SMALL_NUMBER: Final = "int32"
NOTHING: Final = "void"
_IN_C: Final[Mapping[str, Any]] = {NUMBER: ctypes.c_ssize_t, SMALL_NUMBER: ctypes.c_int32, NOTHING: None}


def compiled(signature: str) -> Callable[[FunctionT], FunctionT]:
    """As machine code, made when its file is imported and kept beside it: no message waits for it."""
    return cast("Callable[[FunctionT], FunctionT]", numba.njit(signature, cache=True, error_model="numpy"))


def called(name: str, result: str, *arguments: str) -> Any:  # noqa: ANN401  # what numba calls has no type
    """A function of librdkafka, for compiled loops."""
    declare({name: (_IN_C[result], [_IN_C[argument] for argument in arguments])})
    function = getattr(LIBRDKAFKA, name)
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return lambda *values: function(*map(int, values))  # of NumPy's numbers, too
    binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)  # cached machine code finds it by its name
    return _external(name, result, *arguments)


def _external(name: str, result: str, *arguments: str) -> Any:  # noqa: ANN401
    return types.ExternalFunction(name, getattr(types, result)(*(getattr(types, argument) for argument in arguments)))


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def number_at(address: int) -> int:
        """As below."""
        return ctypes.c_int64.from_address(int(address)).value

    def small_number_at(address: int) -> int:
        """As below."""
        return ctypes.c_int32.from_address(int(address)).value

    def copy(destination: int, source: int, count: int) -> None:
        """As below."""
        ctypes.memmove(int(destination), int(source), int(count))

    def _length_of(address: int) -> int:
        return len(ctypes.string_at(int(address)))

    length_at: Any = _length_of

else:

    @intrinsic
    def number_at(_typing: Any, _address: Any) -> Any:  # noqa: ANN401
        """The 64 bits at an address."""

        def generated(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

        return types.int64(types.intp), generated

    @intrinsic
    def small_number_at(_typing: Any, _address: Any) -> Any:  # noqa: ANN401
        """The 32 bits at an address."""

        def generated(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))

        return types.int32(types.intp), generated

    @intrinsic
    def copy(_typing: Any, _destination: Any, _source: Any, _count: Any) -> Any:  # noqa: ANN401
        """Copies so many bytes from the second address to the first."""

        def generated(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            destination, source = (builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2])
            cgutils.raw_memcpy(builder, destination, source, arguments[2], 1)  # type: ignore[no-untyped-call]
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), generated

    length_at = _external("strlen", NUMBER, NUMBER)  # of a text that ends with a 0
