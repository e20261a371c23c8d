"""`onhand recovery` as a user runs it, and what a start says of a state that it cannot go on from."""

import json
import re
import shutil
from pathlib import Path
from zlib import crc32

import pytest
from redis import Redis

from bench.servers import RedisServer
from flows.store import META_FILE, lane_snapshots
from operators.snapshots import unpack
from tests.cli.command import assert_failed_in_one_line, onhand

RULES = "[locations.dc-1]\n[channels.web]\n"


@pytest.fixture
def settings(redis: Redis, redis_server: RedisServer) -> dict[str, str]:
    """A file in, nothing out but Redis."""
    assert redis.dbsize() == 0
    return {
        "redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "in.jsonl", "output.kind": "none",
        "metrics.listen": "",
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rules, and a file with a movement."""
    (tmp_path / "rules.toml").write_text(RULES)
    more(tmp_path, "1")
    return tmp_path


def more(folder: Path, id_: str, sku: str = "A") -> None:
    """One movement more at the end of the file."""
    body = {"id": id_, "source": "wms", "kind": "received", "sku": sku, "location": "dc-1", "quantity": 1}
    with (folder / "in.jsonl").open("a") as file:
        file.write(json.dumps(body | {"time": "2026-11-21T00:00:00Z"}) + "\n")


def run(folder: Path, settings: dict[str, str]) -> None:
    """The flow, to the end of its file."""
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert done.returncode == 0, done.stderr


def test_a_start_goes_on_where_the_last_run_ended(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """One state, one incarnation, and what was read is not read again."""
    run(folder, settings)
    first = redis.hgetall("avail:A")
    more(folder, "2")
    run(folder, settings)
    second = redis.hgetall("avail:A")
    assert (first[b"web"], second[b"web"]) == (b"1", b"2")
    assert first[b"@incarnation"] == second[b"@incarnation"]
    assert (first[b"@version"], second[b"@version"]) == (b"0", b"1")


def test_a_state_of_the_first_format_goes_on_in_the_lanes_that_it_has(
    folder: Path, settings: dict[str, str], redis: Redis
) -> None:
    """Newer ones find a SKU's lane by another hash: its movements would be applied where nothing is known of it."""
    assert onhand("recovery", "create", cwd=folder, settings=settings).returncode == 0
    meta = folder / "state" / META_FILE
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 1}))
    for id_ in ("2", "3"):
        for sku in "BCDEFGH":
            more(folder, f"{sku}{id_}", sku)
        run(folder, settings)
    assert {redis.hget(f"avail:{sku}", "web") for sku in "BCDEFGH"} == {b"2"}
    found = {sku: lane for lane, blob in lane_snapshots(folder / "state") for sku in unpack(blob)["stock"]["skus"]}
    assert found == {sku: crc32(sku.encode()) % 64 for sku in "ABCDEFGH"}


def test_a_state_made_anew_outdoes_the_one_before(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """Its offsets begin at 0 again: without a greater incarnation, Redis would refuse them for ever."""
    more(folder, "2")
    run(folder, settings)
    before = redis.hgetall("avail:A")
    shutil.rmtree(folder / "state")
    (folder / "in.jsonl").unlink()
    more(folder, "3")
    run(folder, settings)
    after = redis.hgetall("avail:A")
    assert (before[b"web"], after[b"web"]) == (b"2", b"1")
    assert int(after[b"@incarnation"]) > int(before[b"@incarnation"])


def test_create_makes_what_a_run_uses_and_check_reads_it(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """The incarnation that it printed is the one in Redis."""
    made = onhand("recovery", "create", "--json", cwd=folder, settings=settings)
    assert made.returncode == 0, made.stderr
    run(folder, settings)
    assert int(redis.hget("avail:A", "@incarnation") or 0) == json.loads(made.stdout)["incarnation"]
    checked = onhand("recovery", "check", "--json", cwd=folder, settings=settings)
    assert checked.returncode == 0, checked.stderr
    said = json.loads(checked.stdout)
    assert (said["lanes_found"], said["findings"]) == (64, [])
    again = onhand("recovery", "create", cwd=folder, settings=settings)
    assert "holds a state already" in assert_failed_in_one_line(again, 1)


def test_the_shares_of_several_machines_are_said(folder: Path, settings: dict[str, str]) -> None:
    """The first prints the command for the others."""
    first = onhand("recovery", "create", "--machines", "2", cwd=folder, settings=settings)
    assert first.returncode == 0, first.stderr
    command = next(line for line in first.stdout.splitlines() if line.startswith("machine 1: onhand "))
    other = settings | {"state.path": "other"}
    assert onhand(*command.split()[3:], cwd=folder, settings=other).returncode == 0
    assert onhand("recovery", "check", cwd=folder, settings=other).returncode == 0
    alone = onhand("recovery", "create", "--machines", "2", "--machine", "1", cwd=folder, settings=settings)
    assert "--incarnation" in assert_failed_in_one_line(alone, 2)


def test_a_start_that_cannot_go_on_says_what_to_do(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """Other lanes, a missing part, a damaged lane, another file: one line; after the repair it runs."""
    run(folder, settings)
    shutil.copytree(folder / "state", folder / "backup")

    other_lanes = onhand("run", "availability", cwd=folder, settings=settings | {"state.lanes": "8"})
    assert "set it back" in assert_failed_in_one_line(other_lanes, 1)

    (folder / "state" / "part-3.sqlite3").unlink()
    assert "is missing" in assert_failed_in_one_line(onhand("run", "availability", cwd=folder, settings=settings), 1)
    checked = onhand("recovery", "check", cwd=folder, settings=settings)
    assert "is missing" in assert_failed_in_one_line(checked, 3)

    restore(folder)
    for part in (folder / "state").glob("part-*"):
        content = bytearray(part.read_bytes())
        for found in re.finditer(b"OHLN", bytes(content)):  # SQLite leaves copies behind that nobody reads
            content[found.start() + 40] ^= 1
        part.write_bytes(content)
    assert "damaged" in assert_failed_in_one_line(onhand("run", "availability", cwd=folder, settings=settings), 1)
    assert "damaged" in assert_failed_in_one_line(onhand("recovery", "check", cwd=folder, settings=settings), 3)

    restore(folder)
    elsewhere = onhand("run", "availability", cwd=folder, settings=settings | {"input.topic": "rules.toml"})
    assert "the state was made from" in assert_failed_in_one_line(elsewhere, 1)

    restore(folder)
    (folder / "rules.toml").write_text(RULES + "safety_units = 5\n")
    other_rules = onhand("run", "availability", cwd=folder, settings=settings)
    assert "was begun with other rules" in assert_failed_in_one_line(other_rules, 1)
    (folder / "rules.toml").write_text(RULES)

    more(folder, "2")
    run(folder, settings)
    assert redis.hget("avail:A", "web") == b"2"


def restore(folder: Path) -> None:
    """The backup in its place."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder / "backup", folder / "state")
