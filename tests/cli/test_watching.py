"""The watcher: silence becomes control records, once for each change; and `onhand heartbeat`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
from redis import Redis

from bench.servers import RedisServer
from cli.watching import Watcher
from schemas.rule_changes import digest_of, document_of
from schemas.rules import ChannelRules, LocationRules, Rules
from schemas.topics import HEARTBEATS
from schemas.watch import Generation
from sinks.slots import SinkError
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand

WATCHED = Rules(channels={"web": ChannelRules()}, locations={"east": LocationRules(stale_after="10s")})
UNWATCHED = Rules(channels={"web": ChannelRules()})


class Log:
    """Heartbeats and a log, without any server behind them: what a look hears, and what it tells."""

    def __init__(self) -> None:
        self.heard: dict[str, int] = {}
        self.told: list[tuple[str, int]] = []
        self.is_down = False
        self.pushed = [WATCHED]

    def heard_ms(self) -> Mapping[str, int]:
        """When each location was last heard of."""
        return self.heard

    def close(self) -> None:
        """There is nothing to close."""

    def generations(self) -> list[Generation]:
        """The rules that were pushed."""
        documents = [document_of(rules) for rules in self.pushed]
        return [
            Generation(generation=number, digest=digest_of(document), time="", document=document)
            for number, document in enumerate(documents, 1)
        ]

    def append(self, generation: Generation) -> None:
        """A watcher pushes no rules."""
        raise AssertionError(generation)

    def partitions(self) -> list[int]:
        """One."""
        return [0]

    def tell(self, payloads: Sequence[bytes]) -> None:
        """Keep what is told, if the log is up."""
        if self.is_down:
            raise SinkError("down")
        records = [msgspec.json.decode(payload) for payload in payloads]
        self.told += [(record["location"], record["trust_percent"]) for record in records]


class Watch:
    """A watcher that began at 100 s."""

    def __init__(self) -> None:
        self.log, self.rules, self.now_ms = Log(), WATCHED, 100_000
        self.watcher = Watcher(self.log, self.log, lambda: self.rules, lambda: self.now_ms)

    def look_at(self, second: float) -> list[tuple[str, int]]:
        """Look at a time; what was told."""
        self.now_ms = int(second * 1000)
        before = len(self.log.told)
        self.watcher.look()
        return self.log.told[before:]


def test_a_silence_and_its_end_are_told_once_for_each_step() -> None:
    """First what holds, then each step down, then that it is heard."""
    watch = Watch()
    assert watch.look_at(100) == [("east", 100)]
    assert watch.look_at(109) == []
    assert watch.look_at(114) == [("east", 60)]
    assert watch.look_at(114.5) == [("east", 50)]
    assert watch.look_at(150) == [("east", 0)]
    assert watch.look_at(160) == []
    watch.log.heard["east"] = 160_000
    assert watch.look_at(161) == [("east", 100)]


def test_a_quiet_location_with_heartbeats_keeps_its_trust() -> None:
    """Movements have nothing to do with it."""
    watch = Watch()
    for second in range(100, 200, 5):
        watch.log.heard["east"] = second * 1000
        told = watch.look_at(second)
        assert told == ([("east", 100)] if second == 100 else [])


def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    """A log that was away hears what holds then."""
    watch = Watch()
    watch.look_at(100)
    watch.log.is_down = True
    with pytest.raises(SinkError):
        watch.look_at(115)
    watch.log.is_down = False
    assert watch.look_at(116) == [("east", 40)]


def test_a_location_that_is_watched_no_more_is_believed_again() -> None:
    """Also where the rules changed while no watcher ran."""
    watch = Watch()
    watch.look_at(100)
    assert watch.look_at(150) == [("east", 0)]
    watch.rules = UNWATCHED
    assert watch.look_at(151) + watch.look_at(152) == [("east", 100)]
    later = Watch()
    later.rules = UNWATCHED
    assert later.look_at(100) == [("east", 100)]


def test_a_heartbeat_is_written_to_a_redis_stream(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """With the time that was given."""
    settings = {"redis.url": redis_server.url, "input.kind": "redis_stream"}
    done = onhand(
        "heartbeat", "east", "--source", "wms", "--time", "2026-11-21T09:00:00Z", cwd=tmp_path, settings=settings
    )
    assert (done.returncode, done.stdout) == (0, "east heard 2026-11-21T09:00:00.000Z\n")
    ((_, fields),) = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(HEARTBEATS.name))
    assert json.loads(fields[b"payload"]) == {
        "source": "wms", "location": "east", "time": "2026-11-21T09:00:00.000Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "settings", "code"),
    [
        (["@east"], {}, 2),
        (["east", "--time", "yesterday"], {}, 2),
        (["east"], {"input.kind": "jsonl"}, 2),
        (["east"], {"kafka.bootstrap_servers": NOWHERE}, 1),
        (["east"], {"input.kind": "redis_stream", "redis.url": f"redis://{NOWHERE}/0"}, 1),
    ],
)
def test_a_heartbeat_that_cannot_be_written_is_said_in_one_line(
    arguments: list[str], settings: dict[str, str], code: int, tmp_path: Path
) -> None:
    """So that a cron job tells somebody."""
    done = onhand("heartbeat", *arguments, "--source", "wms", cwd=tmp_path, settings=settings)
    assert_failed_in_one_line(done, code)
