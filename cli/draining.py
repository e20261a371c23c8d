"""Signals of a running flow: the first one drains it, the second one ends it at once."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

from cli.failures import INTERRUPTED

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """While it is entered, SIGTERM and SIGINT set a flag that sources ask for; a second one ends the process (130).

    A thread hears them by a descriptor that the system itself writes to, because Python's own handlers wait for the
    main thread, which may be inside a call of Kafka's library for seconds. `told` is called once, with the signal's
    name, in that thread; `at_once` before the process ends by the second signal.
    """

    def __init__(self, told: Callable[[str], None], at_once: Callable[[], None] = lambda: None) -> None:
        self._told = told
        self._at_once = at_once
        self._asked = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self) -> bool:
        """Whether the flow is to end."""
        return self._asked.is_set()

    def __enter__(self) -> Self:
        """Take over both signals."""
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="drain", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give both signals back."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.close()  # ends the thread

    def _listen(self) -> None:
        while heard := self._reader.recv(1):
            if heard[0] not in SIGNALS:
                continue
            if self._asked.is_set():
                self._at_once()
                os._exit(INTERRUPTED)
            self._asked.set()
            self._told(signal.Signals(heard[0]).name)
        self._reader.close()
