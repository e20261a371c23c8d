"""Prepared messages: what is written is read, from any place."""

from pathlib import Path

from bench.prepared import Prepared, prepare

MESSAGES = [(3, b"SKU-1", b'{"id":"a"}'), (0, b"", b"tick"), (7, b"SKU-22", b""), (3, b"SKU-1", b'{"id":"b"}')]


def test_messages_come_back_as_they_were(tmp_path: Path) -> None:
    """With empty keys and payloads, and any stretch of them."""
    prepare(tmp_path, iter(MESSAGES))
    prepared = Prepared.opened(tmp_path)
    for first in range(len(MESSAGES)):
        for end in range(first, len(MESSAGES) + 1):
            assert prepared.between(first, end) == MESSAGES[first:end]
