"""Asked SKUs: those that somebody wants explained now, heard on a channel of Redis."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

ASKED_PER_LANE_MAX: Final = 16  # who waits longer asks again
NAME_BYTES_MAX: Final = 1024
LOOK_SECONDS: Final = 0.2  # how long a wait for messages is, and so an end
AGAIN_SECONDS: Final = 1.0
ANSWER_SECONDS_MAX: Final = 2.0
QUIET_SECONDS_MAX: Final = 10.0  # then Redis is asked whether it is there,
UNANSWERED_SECONDS_MAX: Final = 5.0  # and when it has not answered within this, it is not
STOP_SECONDS_MAX: Final = 5.0

log = structlog.get_logger(__name__)


def asked_channel(explain_prefix: str) -> str:
    """Where the names of SKUs are published that are to be explained now; no SKU begins with `@`."""
    return explain_prefix + "@asked"


class AskedSkus:
    """The SKUs that were asked for last, by lane, heard in a thread of its own while its `with` block runs.

    A name is a message of its own, in UTF-8; `lane_of` says where the SKU lives. What cannot be a name is passed over.
    While Redis is away nothing is heard, and whoever asked asks again: so nothing is kept anywhere. In a cluster any
    server will do, since all of them are told.
    """

    def __init__(self, url: str, channel: str, lane_of: Callable[[str], int]) -> None:
        self._client = Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS_MAX,
            socket_connect_timeout=ANSWER_SECONDS_MAX,
            health_check_interval=QUIET_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        )
        self._channel = channel
        self._lane_of = lane_of
        self._by_lane: dict[int, deque[str]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        run = copy_context().run  # so that what is logged says of which worker it is
        self._thread = threading.Thread(target=run, args=(self._run,), name="asked-skus", daemon=True)
        self._failing = False

    def asked(self, lane: int) -> list[str]:
        """The names of those that live in `lane`, the latest last; they are given once."""
        if lane not in self._by_lane:  # nearly always: this is asked all the time
            return []
        with self._lock:
            return list(self._by_lane.pop(lane))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS_MAX)
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except RedisError as error:
                self._failed(error)
                self._stopping.wait(AGAIN_SECONDS)

    def _listen(self) -> None:
        """Until this ends; RedisError where Redis does not answer, or refuses."""
        with self._client.pubsub() as heard:  # type: ignore[no-untyped-call]  # as redis-py has it
            heard.subscribe(self._channel)
            answered_at = time.monotonic()
            while not self._stopping.is_set():
                message = heard.get_message(timeout=LOOK_SECONDS)
                if message is not None:
                    self._take(message)
                if not heard.health_check_response_counter:
                    answered_at = time.monotonic()
                elif time.monotonic() > answered_at + UNANSWERED_SECONDS_MAX:
                    raise RedisTimeoutError(f"no answer in {UNANSWERED_SECONDS_MAX:g} s")

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._note(message["data"])
        elif message["type"] == "subscribe" and self._failing:
            self._failing = False
            log.info("it is heard again which SKUs are to be explained")

    def _note(self, name: bytes) -> None:
        if len(name) > NAME_BYTES_MAX:
            return
        try:
            sku = name.decode()
        except UnicodeDecodeError:
            return
        with self._lock:
            names = self._by_lane.setdefault(self._lane_of(sku), deque(maxlen=ASKED_PER_LANE_MAX))
            if sku not in names:
                names.append(sku)

    def _failed(self, error: RedisError) -> None:
        if not self._failing:
            self._failing = True
            log.warning("it is not heard which SKUs are to be explained: they wait for their turn", error=str(error))
