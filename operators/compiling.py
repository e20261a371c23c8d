"""Compiling: loops over columns become machine code; nothing else of numba is used."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.experimental import structref
from numba.extending import intrinsic
from numpy.typing import NDArray

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
ValueT = TypeVar("ValueT")
Bytes = NDArray[np.uint8]


def compiled(function: FunctionT) -> FunctionT:
    """`function` as machine code, made at its first call and kept beside its file until that changes.

    It counts no references to arrays, which took half of the time and more where functions call each other: so it
    makes no arrays, and those that it is given have to live as long as the call, as arguments from Python do.
    What is kept does not notice changes in other files: a compiled function calls compiled ones of its own file only,
    and whoever changes what this file generates has to empty `__pycache__`.
    """
    made = numba.njit(cache=True, error_model="numpy", _nrt=False)(function)  # type: ignore[call-overload]
    return cast("FunctionT", made)


def entered(function: FunctionT) -> FunctionT:
    """As `compiled`, for the way in: it may take `Held` values, and keeps what these hold alive."""
    return cast("FunctionT", numba.njit(cache=True, error_model="numpy")(function))


@structref.register
class _HeldType(types.StructRef):
    """What the compiler knows of a `Held`."""

    def preprocess_fields(self, fields: Any) -> Any:  # noqa: ANN401
        """Fields of the types that values of their kind have."""
        return tuple((name, types.unliteral(type_)) for name, type_ in fields)  # type: ignore[no-untyped-call]


class Held(structref.StructRefProxy, Generic[ValueT]):
    """A value that compiled functions were given once: as an argument it costs 2 µs, however many arrays it holds."""

    value: ValueT  # for compiled functions only


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    class _Uncompiled:
        def __init__(self, value: object) -> None:
            self.value = value

    def hold(value: ValueT) -> Held[ValueT]:
        """As below."""
        return cast("Held[ValueT]", _Uncompiled(value))

else:
    structref.define_proxy(Held, _HeldType, ["value"])  # type: ignore[no-untyped-call]

    @entered
    def hold(value: ValueT) -> Held[ValueT]:
        """Hands a tuple of arrays over to compiled functions; costs what one such argument does, 10 µs for thirty."""
        return Held(value)  # type: ignore[no-untyped-call]


class _Direct:
    """As `direct`, compiled."""

    def __init__(self, function: Any, held: tuple[int, ...]) -> None:  # noqa: ANN401
        self._function = function
        self._held = held
        self._points: dict[tuple[int, ...], tuple[Callable[..., object], tuple[object, ...]]] = {}

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401
        known = self._points.get(tuple([id(arguments[at]._type) for at in self._held]))  # noqa: SLF001
        if known is not None:
            return known[0](*arguments)
        result = self._function(*arguments)
        types_ = tuple(arguments[at]._type for at in self._held)  # noqa: SLF001  # held on to, so that an id stays theirs
        overload = self._function.overloads[tuple(map(numba.typeof, arguments))]
        self._points[tuple(map(id, types_))] = overload.entry_point, types_
        return result


def direct(function: FunctionT, held: tuple[int, ...]) -> FunctionT:
    """`function`, a compiled one, called without the look at each argument's type: that takes longer than it does.

    The arguments at the places `held` are `Held`, whose types are compared; the others have to be of the types that
    they were first called with: whole numbers, and arrays that lie in one piece.
    """
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return function
    return cast("FunctionT", _Direct(function, held))


# Eight bytes of an array at once, wherever they stand; `at` and seven more have to lie within it, which is not checked

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def word_at(text: Bytes, at: int) -> np.uint64:
        """As below."""
        return np.uint64(int.from_bytes(text[at : at + 8].tobytes(), "little"))

    def put_word(text: Bytes, at: int, word: np.uint64) -> None:
        """As below."""
        text[at : at + 8] = np.frombuffer(int(word).to_bytes(8, "little"), np.uint8)

    def zeros_below(word: np.uint64) -> int:
        """As below."""
        return (int(word) & -int(word)).bit_length() - 1

    def prefetch(_array: Any, _at: int) -> None:  # noqa: ANN401
        """As below."""

else:

    @intrinsic
    def word_at(_typing: Any, text: Any, at: Any) -> Any:  # noqa: ANN401
        """Little-endian, as it stands on every machine that numba compiles for."""

        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            loaded = builder.load(_pointer(context, builder, signature, arguments))
            loaded.align = 1
            return loaded

        return types.uint64(text, at), generated

    @intrinsic
    def put_word(_typing: Any, text: Any, at: Any, _word: Any) -> Any:  # noqa: ANN401
        """Writes what `word_at` reads."""

        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            builder.store(arguments[2], _pointer(context, builder, signature, arguments)).align = 1
            return context.get_dummy_value()

        return types.void(text, at, types.uint64), generated

    @intrinsic
    def zeros_below(_typing: Any, _word: Any) -> Any:  # noqa: ANN401
        """How many bits below the lowest 1 of a word that has one."""

        def generated(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            return builder.cttz(arguments[0], cgutils.false_bit)

        return types.int64(types.uint64), generated

    @intrinsic
    def prefetch(_typing: Any, array: Any, at: Any) -> Any:  # noqa: ANN401
        """Lets the processor fetch a place of an array while other work goes on; one outside does no harm."""

        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            bytes_, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            place = builder.bitcast(_pointer(context, builder, signature, arguments), bytes_)
            asked = ir.FunctionType(ir.VoidType(), [bytes_, number, number, number])
            to_read, in_all_caches, data = (ir.Constant(number, value) for value in (0, 3, 1))
            function = builder.module.declare_intrinsic("llvm.prefetch", [bytes_], asked)
            builder.call(function, [place, to_read, in_all_caches, data])
            return context.get_dummy_value()

        return types.void(array, at), generated


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
