"""`onhand explain` and `onhand rules diff`: why numbers are what they are, and what other rules would make of them."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bench.servers import RedisServer
from cli.explain import ASK_AGAIN_SECONDS, ASKED_SECONDS_MAX
from sinks.redis_keys import read_promises
from sources.asked_skus import asked_channel
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand
from tests.docs.test_documentation import user_of

RULES = """
[locations.east]
safety_units = 1
[channels.web]
safety_units = 2
low_stock_at = 5
[channels.b2b]
share_percent = 50
[channels."b2b/acme"]
[[rules]]
category = "fireworks"
channel = "web"
cap_units = 7
[categories]
fireworks = ["A"]
"""
OTHER_RULES = RULES.replace("cap_units = 7", "safety_units = 12").replace("share_percent = 50", "share_percent = 100")
LOG: list[dict[str, Any]] = [
    {"kind": "tick", "time": "2026-11-20T00:00:00Z"},
    {"kind": "received", "sku": "A", "quantity": 30, "location": "east"},
    {"kind": "received", "sku": "B", "quantity": 5, "location": "west"},
    {"kind": "channel_committed", "sku": "A", "quantity": 4, "channel": "b2b/acme"},
    {"kind": "requested", "sku": "A", "quantity": 3, "channel": "web", "expires": "2026-11-29T00:00:00Z"},
    {"kind": "stated", "sku": "A", "quantity": 25, "location": "east"},
    {"kind": "shipped", "sku": "A", "quantity": 2, "location": "east"},
    {"kind": "tick", "time": "2026-11-21T00:00:00Z"},
]


@pytest.fixture
def flow(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    """A flow that has read the log to its end; the settings with which commands find what it left."""
    assert redis.dbsize() == 0
    facts = [
        {"id": f"id-{number}", "source": "wms", "time": f"2026-11-20T09:0{number}:00Z", **record}
        for number, record in enumerate(LOG)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    (tmp_path / "rules.toml").write_text(RULES)
    settings = {"redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "in.jsonl", "output.kind": "none"}
    done = onhand("run", "availability", cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr
    return settings


def explained(flow: dict[str, str], cwd: Path, *arguments: str) -> dict[str, Any]:
    """What `onhand explain --json` says."""
    done = onhand("explain", *arguments, "--json", cwd=cwd, settings=flow)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def shown(redis: Redis, sku: str) -> dict[str, int]:
    """What every channel reads of `sku`."""
    promises = read_promises(redis, "avail:", sku)
    assert promises is not None
    return promises.promised


def test_the_steps_of_every_channel_add_up_to_what_it_reads(flow: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """The sum is the very number in Redis, and each step names its rule."""
    for sku in ("A", "B"):
        answer = explained(flow, tmp_path, sku)
        assert answer["current"]
        for name, channel in answer["explanation"]["channels"].items():
            units = sum(step["units"] for step in channel["steps"])
            assert units == channel["promised"] == int(redis.hget(f"avail:{sku}", name) or -1)
    steps = {step["step"]: step for step in explained(flow, tmp_path, "A")["explanation"]["channels"]["web"]["steps"]}
    assert steps["cap"]["rule"] == "rules[0].cap_units (category fireworks)"
    assert steps["safety"]["rule"] == "channels.web.safety_units"
    assert steps["share"]["rule"] == "default"
    assert steps["contracts"]["units"] == -4


def test_what_is_held_what_disagrees_and_what_happened_last(flow: dict[str, str], tmp_path: Path) -> None:
    """Open requests, open divergences and the last movements, the newest first."""
    explanation = explained(flow, tmp_path, "A")["explanation"]
    assert [(held["parts"], held["channel"]) for held in explanation["requests"]] == [({"east": 3}, "web")]
    assert [(open_["stated"], open_["derived"]) for open_ in explanation["divergences"]] == [(25, 30)]
    kinds = [record["kind"] for record in explanation["movements"]]
    assert kinds == ["shipped", "stated", "requested", "channel_committed", "received"]


def test_a_table_for_people(flow: dict[str, str], tmp_path: Path) -> None:
    """Positions, the steps of one channel, and the sum."""
    done = onhand("explain", "A", "--channel", "web", cwd=tmp_path, settings=flow)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1].split()[-4:] == ["AVAILABLE", "TRUSTED", "SAFETY", "SPARE"]
    assert any(line.startswith("web may sell") for line in lines)
    assert "b2b may sell" not in done.stdout
    assert "disagrees: wms at east says on_hand 25, derived 30" in done.stdout


def test_an_account_without_a_number_reads_that_of_its_channel(flow: dict[str, str], tmp_path: Path) -> None:
    """As its reader does."""
    answer = explained(flow, tmp_path, "B", "--channel", "b2b/acme")
    assert list(answer["explanation"]["channels"]) == ["b2b"]
    assert answer["promised"] == {"b2b/acme": answer["explanation"]["channels"]["b2b"]["promised"]}


def test_numbers_that_have_moved_on_are_said_to_have(flow: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """An explanation of older numbers is never taken for one of those that are read."""
    redis.hset("avail:A", mapping={"@version": "999", "web": "1"})
    assert explained(flow, tmp_path, "A")["current"] is False
    assert "have moved on" in onhand("explain", "A", cwd=tmp_path, settings=flow).stdout


def outdate(redis: Redis, sku: str) -> None:
    """What channels read is of a later version than the explanation."""
    redis.hset(f"avail:{sku}", mapping={"@version": "999"})


def test_what_is_not_of_those_numbers_is_asked_for_and_waited_for(
    flow: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    """Again and again, until the flow has explained it; the user on the page for that may do so."""
    version = redis.hget("avail:A", "@version") or b""
    outdate(redis, "A")
    asked: list[tuple[float, bytes]] = []
    with redis.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]  # as redis-py has it
        heard.subscribe(asked_channel("explain:"))

        def answer() -> None:
            """As a flow that needs some time."""
            while len(asked) < 3:
                if (message := heard.get_message(timeout=10)) is not None:
                    asked.append((time.monotonic(), message["data"]))
            redis.hset("avail:A", mapping={"@version": version})

        flow_ = threading.Thread(target=answer)
        flow_.start()
        with user_of(redis, "support") as url:
            assert explained({**flow, "redis.url": url}, tmp_path, "A")["current"] is True
        flow_.join()
    assert {name for _, name in asked} == {b"A"}
    assert 0.8 * ASK_AGAIN_SECONDS < asked[1][0] - asked[0][0] < 4 * ASK_AGAIN_SECONDS


@pytest.mark.parametrize(
    ("listens", "right", "seconds"),
    [
        (True, "+publish", (ASKED_SECONDS_MAX, ASKED_SECONDS_MAX + 0.5)),
        (True, "-publish", (0.0, 0.5)),
        (False, "+publish", (0.0, 0.5)),
    ],
    ids=["heard in vain", "may not ask", "not heard"],
)
def test_nobody_waits_for_an_answer_for_long(
    flow: dict[str, str],
    redis: Redis,
    redis_server: RedisServer,
    tmp_path: Path,
    listens: bool,  # noqa: FBT001  # as the table has it
    right: str,
    seconds: tuple[float, float],
) -> None:
    """Nor at all where there is none to wait for; what is there is shown."""
    outdate(redis, "A")
    commands = ["+ping", "+info", "+hget", "+hgetall", "+multi", "+exec", right]
    redis.acl_setuser("support", enabled=True, passwords=["+pw"], keys=["*"], channels=["explain:*"], commands=commands)
    try:
        with redis.pubsub() as heard:  # type: ignore[no-untyped-call]  # as redis-py has it
            if listens:
                heard.subscribe(asked_channel("explain:"))
            settings = {**flow, "redis.url": f"redis://support:pw@127.0.0.1:{redis_server.port}/0"}
            answer = explained(settings, tmp_path, "A")
    finally:
        redis.acl_deluser("support")
    assert (answer["current"], answer["explanation"]["sku"]) == (False, "A")
    assert seconds[0] <= answer["read_milliseconds"] / 1000 <= seconds[1]


def test_a_sku_never_seen(flow: dict[str, str], tmp_path: Path) -> None:
    """It is 0 for everybody."""
    assert "never seen, treat as 0" in onhand("explain", "Z", cwd=tmp_path, settings=flow).stdout


def test_a_redis_out_of_reach_is_said(tmp_path: Path) -> None:
    """One line, exit code 1."""
    done = onhand("explain", "A", cwd=tmp_path, settings={"redis.url": f"redis://{NOWHERE}/0"})
    assert "does not answer" in assert_failed_in_one_line(done, 1)


def test_a_diff_predicts_each_number(flow: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """What it says is what the flow shows once it goes by those rules."""
    (tmp_path / "other.toml").write_text(OTHER_RULES)
    done = onhand("rules", "diff", "other.toml", "--json", cwd=tmp_path, settings=flow)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    before = {sku: shown(redis, sku) for sku in ("A", "B")}
    (tmp_path / "rules.toml").write_text(OTHER_RULES)
    redis.flushall()
    shutil.rmtree(tmp_path / "state")
    assert onhand("run", "availability", cwd=tmp_path, settings=flow).returncode == 0
    after = {sku: shown(redis, sku) for sku in ("A", "B")}
    moved = {
        (sku, name): (units, after[sku][name])
        for sku, fields in before.items()
        for name, units in fields.items()
        if units != after[sku][name]
    }
    assert {(move["sku"], move["channel"]): (move["now"], move["then"]) for move in said["moves"]} == moved
    assert said["moved_skus"] == len({sku for sku, _ in moved}) > 0


def test_a_diff_for_people_and_one_without_differences(flow: dict[str, str], tmp_path: Path) -> None:
    """The largest changes first, and a line for each channel."""
    (tmp_path / "other.toml").write_text(OTHER_RULES)
    done = onhand("rules", "diff", "other.toml", cwd=tmp_path, settings=flow)
    assert done.stdout.splitlines()[0].split() == ["SKU", "CHANNEL", "NOW", "THEN", "CHANGE"]
    assert "of 2 SKUs would change" in done.stdout
    assert "0 of 2 SKUs would change" in onhand("rules", "diff", cwd=tmp_path, settings=flow).stdout


def test_a_diff_with_broken_rules_names_the_line(flow: dict[str, str], tmp_path: Path) -> None:
    """As `onhand check` does, exit code 2."""
    (tmp_path / "other.toml").write_text("[channels.web]\nsafety_units = -1\n")
    done = onhand("rules", "diff", "other.toml", cwd=tmp_path, settings=flow)
    assert_failed_in_one_line(done, 2)
    assert "other.toml:2: error" in done.stderr
