"""librdkafka: the library that came with its Python binding, for functions that the binding does not offer."""

import ctypes
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException, cimpl

# The binding's module is linked with the librdkafka that it was made for, wherever that is installed.
LIBRDKAFKA: Final = ctypes.CDLL(cimpl.__file__)

ERROR_BYTES: Final = 512
EVENTS_MAX: Final = 100  # that wait to be told; the newest ones say how things are

Handle: Final = ctypes.c_void_p
Text: Final = ctypes.c_char_p
Functions = Mapping[str, tuple[Any, list[Any]]]  # what they return, and take
ON_ERROR: Final = ctypes.CFUNCTYPE(None, Handle, ctypes.c_int, Text, Handle)


def declare(functions: Functions) -> None:
    """Says of functions what they return and take; raises AttributeError where the library lacks one."""
    for name, (result, arguments) in functions.items():
        function = getattr(LIBRDKAFKA, name)
        function.restype, function.argtypes = result, arguments


declare(
    {
        "rd_kafka_conf_new": (Handle, []),
        "rd_kafka_conf_set": (ctypes.c_int, [Handle, Text, Text, Text, ctypes.c_size_t]),
        "rd_kafka_conf_set_error_cb": (None, [Handle, ON_ERROR]),
        "rd_kafka_conf_destroy": (None, [Handle]),
        "rd_kafka_new": (Handle, [ctypes.c_int, Handle, Text, ctypes.c_size_t]),
        "rd_kafka_fatal_error": (ctypes.c_int, [Handle, Text, ctypes.c_size_t]),
        "rd_kafka_error_code": (ctypes.c_int, [Handle]),
        "rd_kafka_error_string": (Text, [Handle]),
        "rd_kafka_error_destroy": (None, [Handle]),
    }
)
_KINDS: Final = {"producer": 0, "consumer": 1}  # rd_kafka_type_t


def client(kind: Literal["producer", "consumer"], config: Mapping[str, Any], callbacks: Mapping[str, Any]) -> int:
    """A client's handle. `callbacks` are by the functions that set them, and have to live as long as it does.

    Raises KafkaException for a setting that cannot be.
    """
    conf, text = LIBRDKAFKA.rd_kafka_conf_new(), ctypes.create_string_buffer(ERROR_BYTES)
    for name, value in config.items():
        if LIBRDKAFKA.rd_kafka_conf_set(conf, name.encode(), str(value).encode(), text, ERROR_BYTES) != 0:
            LIBRDKAFKA.rd_kafka_conf_destroy(conf)
            raise _refused(text.value)
    for name, callback in callbacks.items():
        getattr(LIBRDKAFKA, name)(conf, callback)
    handle: int | None = LIBRDKAFKA.rd_kafka_new(_KINDS[kind], conf, text, ERROR_BYTES)
    if handle is None:  # else `conf` is its own
        LIBRDKAFKA.rd_kafka_conf_destroy(conf)
        raise _refused(text.value)
    return handle


class Heard:
    """What librdkafka complains about by itself while it is called: kept, as nothing can be raised from there."""

    def __init__(self) -> None:
        self.events: deque[KafkaError] = deque(maxlen=EVENTS_MAX)
        self.callback: Final = ON_ERROR(self._hear)

    def tell(self, on_error: Callable[[KafkaError], None]) -> None:
        """All of it, once."""
        while self.events:
            on_error(self.events.popleft())

    def _hear(self, handle: int, code: int, reason: bytes | None, _opaque: int) -> None:
        is_fatal = code == KafkaError._FATAL  # noqa: SLF001  # so librdkafka names the errors of its own
        if is_fatal:
            text = ctypes.create_string_buffer(ERROR_BYTES)
            code, reason = LIBRDKAFKA.rd_kafka_fatal_error(handle, text, ERROR_BYTES), text.value
        self.events.append(KafkaError(code, (reason or b"").decode(errors="replace"), is_fatal))


def error_of(error: int) -> KafkaError:
    """What an error that a function has returned says; it is given back."""
    code, said = LIBRDKAFKA.rd_kafka_error_code(error), LIBRDKAFKA.rd_kafka_error_string(error)
    LIBRDKAFKA.rd_kafka_error_destroy(error)
    return KafkaError(code, said.decode(errors="replace"))


def raise_error(error: int | None) -> None:
    """Raises KafkaException where a function has returned an error."""
    if error:
        raise KafkaException(error_of(error))


def raise_code(code: int) -> None:
    """Raises KafkaException where a function has returned the number of one."""
    if code:
        raise KafkaException(KafkaError(code))


def _refused(said: bytes) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._INVALID_ARG, said.decode(errors="replace")))  # noqa: SLF001
