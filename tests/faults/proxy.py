"""A seeded TCP proxy that delays, drops and resets: what a network does to connections that look whole."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Final, NamedTuple, Self

CHUNK_BYTES: Final = 65_536
START_SECONDS_MAX: Final = 10.0
STOP_SECONDS_MAX: Final = 10.0
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER without time: RST instead of FIN


class Weather(NamedTuple):
    """What happens to each piece of data that passes, as shares of 1; none of it to begin with.

    A piece that is dropped takes its connection with it: that stays open and says nothing any more, as one to a
    machine that has lost its power. One that is reset is closed on both sides at once.
    """

    delay_seconds_max: float = 0.0
    drop_share: float = 0.0
    reset_share: float = 0.0


CALM: Final = Weather()


class Proxy:
    """Passes connections on `port` of the loopback to `target_port`, through whatever `weather` is set.

    A thread of its own does it while the `with` block runs; `chance` alone decides what the weather strikes.
    """

    def __init__(self, port: int, target_port: int, chance: random.Random) -> None:
        self.port = port
        self.connections = 0
        self.delayed = 0
        self.dropped = 0
        self.resets = 0
        self._target_port = target_port
        self._chance = chance
        self._weather = CALM
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True)
        self._started: Future[None] = Future()
        self._ended = asyncio.Event()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def set(self, weather: Weather) -> None:
        """The weather from now on; connections that were dropped stay silent."""
        self._weather = weather

    def reset_all(self) -> None:
        """Reset every connection that is open now."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(START_SECONDS_MAX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        except OSError as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        await self._ended.wait()
        server.close()
        self._abort_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _abort_all(self) -> None:
        for link in list(self._links):
            self._reset(link)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: two directions, until either ends."""
        self.connections += 1
        if own := asyncio.current_task():
            self._tasks.add(own)
            own.add_done_callback(self._tasks.discard)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((writer, there_writer))
        self._links.add(link)
        both = [
            asyncio.create_task(self._pump(reader, there_writer, link)),
            asyncio.create_task(self._pump(there_reader, writer, link)),
        ]
        self._tasks.update(both)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._tasks.difference_update(both)
            self._links.discard(link)
            for end in link.writers:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: "_Link") -> None:
        """One direction; ends where the reader's side ends or the connection is reset."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                weather = self._weather
                draw = self._chance.random()
                if draw < weather.reset_share:
                    self._reset(link)
                    return
                if draw < weather.reset_share + weather.drop_share and not link.is_silent:
                    self.dropped += 1
                    link.is_silent = True
                if link.is_silent:
                    continue
                if weather.delay_seconds_max:
                    self.delayed += 1
                    await asyncio.sleep(self._chance.uniform(0, weather.delay_seconds_max))
                writer.write(data)
                await writer.drain()

    def _reset(self, link: "_Link") -> None:
        self.resets += 1
        for writer in link.writers:
            connection: socket.socket | None = writer.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()


class _Link:
    """Both ends of a connection, and whether it says nothing any more."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.is_silent = False
