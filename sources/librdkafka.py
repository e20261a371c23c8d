"""librdkafka: the library that came with its Python binding, for functions that the binding does not offer."""

import ctypes
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import cimpl

# The binding's module is linked with the librdkafka that it was made for, wherever that is installed.
LIBRDKAFKA: Final = ctypes.CDLL(cimpl.__file__)


def declare(functions: Mapping[str, tuple[Any, list[Any]]]) -> None:
    """Says of functions what they return and take; raises AttributeError where the library lacks one."""
    for name, (result, arguments) in functions.items():
        function = getattr(LIBRDKAFKA, name)
        function.restype, function.argtypes = result, arguments
