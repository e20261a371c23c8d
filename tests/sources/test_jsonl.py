"""The file source: which lines become messages, where it goes on, and what it says of a file that it cannot read."""

import gzip
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from schemas.movements import PAYLOAD_BYTES_MAX
from sources.errors import SourceError
from sources.jsonl import LINE_BYTES_MAX, FileState, JsonlSource, LineSplitter
from sources.states import sealed

TURNS_MAX = 10_000


def source(path: object, draining: Callable[[], bool] = lambda: False, stdin_descriptor: int = 0) -> JsonlSource:
    """A source whose clock stands still."""
    return JsonlSource(str(path), now_ms=lambda: 1_000, draining=draining, stdin_descriptor=stdin_descriptor)


def at_line(line: int, path: object, format_: int = 1) -> FileState:
    """The state of a file that goes on at `line`."""
    state: FileState = {"format": format_, "path": str(path), "line": line}
    return sealed(state)


def items(reader: JsonlSource, state: FileState | None = None) -> tuple[list[Batch], list[Mark], FileState]:
    """All that a source gives until it ends, and its state then."""
    part = reader.build_part("movements", "file", state)
    batches: list[Batch] = []
    marks: list[Mark] = []
    try:
        for _ in range(TURNS_MAX):
            given = part.next_batch()
            batches.extend(item for item in given if isinstance(item, Batch))
            marks.extend(item for item in given if isinstance(item, Mark))
    except StopIteration:
        return batches, marks, part.snapshot()
    finally:
        part.close()
    pytest.fail("it does not end")


def numbered(batches: list[Batch]) -> dict[int, bytes | None]:
    """Payloads by line number."""
    return {offset: payload for batch in batches for offset, payload in zip(batch.offsets, batch.payloads, strict=True)}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, as a shell would give it."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        return  # the test closed it


def test_each_line_is_a_message_and_its_number_the_offset(tmp_path: Path) -> None:
    """Blank lines are counted and give nothing; the last line needs no end; there are no keys and no times."""
    path = tmp_path / "movements.jsonl"
    path.write_bytes(b'{"a":1}\n\n  \r\n{"b":2}\r\nnot json\n\xff\n{"c":3}')
    batches, marks, state = items(source(path))
    assert numbered(batches) == {0: b'{"a":1}', 3: b'{"b":2}\r', 4: b"not json", 5: b"\xff", 6: b'{"c":3}'}
    origin = Origin("file", str(path), 0, str(path))
    assert all(batch.origin == origin and batch.headers is None for batch in batches)
    assert {key for batch in batches for key in batch.keys} == {None}
    assert {timestamp for batch in batches for timestamp in batch.timestamps} == {-1}
    assert marks[-1] == Mark(origin, 7, 7, -1, 1_000)
    assert state == at_line(7, path)


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n"])
def test_a_file_without_messages_ends_at_once(tmp_path: Path, text: bytes) -> None:
    """Nothing to read is no error; there is still a mark."""
    (tmp_path / "empty").write_bytes(text)
    batches, marks, state = items(source(tmp_path / "empty"))
    assert (batches, state["line"]) == ([], text.count(b"\n"))
    assert marks


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz"])
def test_a_resumed_file_gives_exactly_the_rest(tmp_path: Path, name: str) -> None:
    """After any piece, a new run gives what the first had not given, under the same offsets."""
    path = tmp_path / name
    lines = b"".join(b'{"n":%d}\n\n' % number for number in range(40_000))
    path.write_bytes(gzip.compress(lines, 1) if name.endswith(".gz") else lines)
    part = source(path).build_part("movements", "file", None)
    first: list[Batch] = []
    while not first:
        first.extend(item for item in part.next_batch() if isinstance(item, Batch))
    state = part.snapshot()
    part.close()
    assert 0 < state["line"] < 80_000
    rest, _, end = items(source(path), state)
    assert not numbered(first).keys() & numbered(rest).keys()
    assert numbered(first) | numbered(rest) == {2 * n: b'{"n":%d}' % n for n in range(40_000)}
    assert items(source(path), end)[0] == []


def test_a_file_shorter_than_the_state_is_an_error(tmp_path: Path) -> None:
    """The state cannot be of this file; what it says tells both numbers."""
    path = tmp_path / "short"
    path.write_bytes(b"{}\n")
    with pytest.raises(SourceError, match=r"has 1 lines, but the state goes on at line 2"):
        items(source(path), at_line(2, path))


def test_a_state_of_another_file_or_format_is_refused(tmp_path: Path) -> None:
    """A line number means nothing in another file."""
    path = tmp_path / "a"
    path.write_bytes(b"{}\n")
    with pytest.raises(SourceError, match="made from /elsewhere"):
        source(path).build_part("movements", "file", at_line(1, "/elsewhere"))
    with pytest.raises(SourceError, match="format 2"):
        source(path).build_part("movements", "file", at_line(1, path, format_=2))


@pytest.mark.parametrize("pieces_seed", range(20))
def test_lines_do_not_depend_on_how_the_bytes_are_cut(pieces_seed: int) -> None:
    """However a pipe hands over the bytes, the lines are the same, also around the longest line allowed."""
    sizes = [0, 5, LINE_BYTES_MAX - 1, LINE_BYTES_MAX, 3, LINE_BYTES_MAX + 1, 0, 2 * LINE_BYTES_MAX, 7]
    data = b"".join(bytes([97 + number]) * size + b"\n" for number, size in enumerate(sizes)) + b"last"
    chance = random.Random(pieces_seed)
    splitter = LineSplitter()
    lines: list[bytes] = []
    while data:
        size = chance.choice([1, 1000, 65_536, 262_144, LINE_BYTES_MAX])
        lines.extend(splitter.split(data[:size]))
        data = data[size:]
    lines.extend(splitter.rest())
    expected = [size if size <= LINE_BYTES_MAX else PAYLOAD_BYTES_MAX + 1 for size in sizes]
    assert [len(line) for line in lines] == [*expected, 4]
    assert [line[:1] for line in lines] == [bytes([97 + n]) * (size > 0) for n, size in enumerate(sizes)] + [b"l"]


def test_a_line_without_end_takes_bounded_memory() -> None:
    """200 MiB without a line end hold no more than a piece and a line, and are one message that is refused."""
    splitter = LineSplitter()
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(3200):
            assert splitter.split(piece) == []
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * 1024 * 1024
    assert [len(line) for line in splitter.split(b"x\nshort\n")] == [PAYLOAD_BYTES_MAX + 1, 5]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, r"missing\.jsonl cannot be read \(No such file"),
        ("missing.gz", None, r"missing\.gz cannot be read \(No such file"),
        ("truncated.gz", gzip.compress(os.urandom(10_000))[:-500], r"truncated\.gz ends in the middle"),
        ("plain.gz", b'{"a":1}\n', r"plain\.gz is no gzip file"),
        ("damaged.gz", gzip.compress(b"x" * 1000)[:10] + b"\xff" * 30, r"damaged\.gz is no gzip file, or a damaged"),
    ],
    ids=["missing", "missing-gzip", "truncated", "no-gzip", "damaged"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """What is wrong with it and its path are in one line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        items(source(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A path that is no file is an error that says so."""
    with pytest.raises(SourceError, match=r"cannot be read \(Is a directory\)"):
        items(source(tmp_path))


def test_standard_input_is_read_as_it_comes(pipe: tuple[int, int]) -> None:
    """A pause in the pipe gives nothing and waits for nothing; a line cut by it is whole; closing it is the end."""
    reading, writing = pipe
    part = source("-", stdin_descriptor=reading).build_part("movements", "file", None)
    assert [type(item) for item in part.next_batch()] == [Mark]
    os.write(writing, b'{"a":1}\n{"b"')
    (batch,) = part.next_batch()
    assert isinstance(batch, Batch)
    assert (batch.payloads, batch.origin) == ([b'{"a":1}'], Origin("file", "-", 0, "-"))
    assert list(part.next_batch()) == []
    assert part.next_awake() is not None
    os.write(writing, b":2}\nend")
    assert numbered([item for item in part.next_batch() if isinstance(item, Batch)]) == {1: b'{"b":2}'}
    os.close(writing)
    assert numbered([item for item in part.next_batch() if isinstance(item, Batch)]) == {2: b"end"}
    assert [type(item) for item in part.next_batch()] == [Mark]
    with pytest.raises(StopIteration):
        part.next_batch()
    assert os.get_blocking(reading)


def test_standard_input_cannot_go_on_where_a_state_ends() -> None:
    """Lines of a pipe that were read are gone, so such a state is refused; one that has read nothing is not."""
    with pytest.raises(SourceError, match="standard input cannot be read again"):
        source("-").build_part("movements", "file", at_line(1, "-"))
    part = source("-").build_part("movements", "file", at_line(0, "-"))
    assert part.snapshot()["line"] == 0


def test_a_drain_ends_a_pipe_that_pauses(pipe: tuple[int, int]) -> None:
    """In a real flow: a pipe that stays open and silent does not keep the flow from ending."""
    reading, writing = pipe
    os.write(writing, b'{"a":1}\n{"b":2}\n')
    seen: list[Batch | Mark | Wake | CaughtUp] = []
    turns = iter(range(TURNS_MAX))
    reader = source("-", draining=lambda: next(turns) >= 50, stdin_descriptor=reading)
    flow = Dataflow("piped")
    op.output("out", op.input("in", flow, reader), TestingSink(seen))
    run_main(flow)  # type: ignore[no-untyped-call]  # as Bytewax has it
    assert numbered([item for item in seen if isinstance(item, Batch)]) == {0: b'{"a":1}', 1: b'{"b":2}'}
    assert isinstance(seen[-1], Mark)
    assert seen[-1].offset == 2


def test_a_drain_in_the_middle_of_a_file_loses_nothing(tmp_path: Path) -> None:
    """What a drained run had not given, the next one gives."""
    path = tmp_path / "long"
    path.write_bytes(b'{"some":"thing"}\n' * 50_000)
    turns = iter(range(TURNS_MAX))
    before, _, state = items(source(path, draining=lambda: next(turns) >= 2))
    after, _, _ = items(source(path), state)
    assert 0 < len(numbered(before)) < 50_000
    assert sorted([*numbered(before), *numbered(after)]) == list(range(50_000))


def test_a_file_that_is_not_read_to_its_end_is_not_told_to_be(tmp_path: Path) -> None:
    """Nobody takes numbers from the middle of a file for those of now."""
    path = tmp_path / "movements.jsonl"
    path.write_bytes(b"{}\n" * 5)
    _, marks, _ = items(source(path))
    assert (marks[0].offset, marks[0].end_offset) == (5, 6)
    part = source(path).build_part("movements", "file", None)
    part.next_batch()
    assert not part.has_caught_up()
    part.next_batch()
    assert part.has_caught_up()
    part.close()
    assert (marks[-1].offset, marks[-1].end_offset) == (5, 5)
