"""The proxy of the fault campaign: it passes everything on in calm weather, and strikes as it is told."""

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.servers import free_port
from tests.faults.proxy import CALM, Proxy, Weather

SECONDS_MAX = 5.0
LONG = bytes(range(256)) * 4096


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS_MAX)
        stopping = threading.Event()
        threads: list[threading.Thread] = []

        def answer(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(SECONDS_MAX)
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=answer, args=(connection,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield server.getsockname()[1]
        stopping.set()
        server.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *threads):
            thread.join(2 * SECONDS_MAX)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    """A proxy in front of it."""
    with Proxy(free_port(), echo_port, random.Random(1)) as found:
        yield found


def connected(proxy: Proxy) -> socket.socket:
    """A connection through the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SECONDS_MAX)


def heard(connection: socket.socket, count: int) -> bytes:
    """That many bytes."""
    data = b""
    while len(data) < count:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
    return data


def test_calm_weather_changes_nothing(proxy: Proxy) -> None:
    """What comes back is what was sent, byte for byte and in order."""
    with connected(proxy) as connection:
        sending = threading.Thread(target=connection.sendall, args=(LONG,))
        sending.start()
        assert heard(connection, len(LONG)) == LONG
        sending.join(SECONDS_MAX)


def test_a_delay_holds_everything_back_and_keeps_its_order(proxy: Proxy) -> None:
    """Slow is not broken."""
    proxy.set(Weather(delay_seconds_max=0.2))
    with connected(proxy) as connection:
        begun = time.monotonic()
        for number in range(10):
            connection.sendall(bytes([number]))
            assert heard(connection, 1) == bytes([number])
        assert time.monotonic() - begun > 0.5
    assert proxy.delayed >= 20


def test_a_reset_ends_the_connection_on_the_spot(proxy: Proxy) -> None:
    """The client is told by the kernel, and may come again."""
    proxy.set(Weather(reset_share=1.0))
    with connected(proxy) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            assert connection.recv(1) != b""
    proxy.set(CALM)
    with connected(proxy) as connection:
        connection.sendall(b"x")
        assert heard(connection, 1) == b"x"
    assert proxy.resets >= 1


def test_a_dropped_connection_stays_open_and_silent(proxy: Proxy) -> None:
    """Nobody is told: only a time limit finds it out, and a new connection is well."""
    proxy.set(Weather(drop_share=1.0))
    with connected(proxy) as connection:
        connection.settimeout(0.5)
        connection.sendall(b"x")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.set(CALM)
        connection.sendall(b"y")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        with connected(proxy) as another:
            another.sendall(b"z")
            assert heard(another, 1) == b"z"


def test_all_connections_are_reset_at_once(proxy: Proxy) -> None:
    """As by a firewall that has lost its table."""
    with connected(proxy) as one, connected(proxy) as two:
        for connection in (one, two):
            connection.sendall(b"x")
            assert heard(connection, 1) == b"x"
        proxy.reset_all()
        for connection in (one, two):
            with pytest.raises(ConnectionResetError):
                assert connection.recv(1) != b""


def test_a_target_that_is_away_ends_the_connection() -> None:
    """Nobody waits for a server that does not run."""
    with Proxy(free_port(), free_port(), random.Random(1)) as proxy, connected(proxy) as connection:
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            return
