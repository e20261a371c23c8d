"""The watcher: silence becomes control records, once for each change; and `onhand heartbeat`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import cast

import msgspec
import pytest
from redis import Redis

from bench.servers import RedisServer
from cli import heartbeat, watching
from cli.configuration import Configuration
from cli.watching import RulesFollowed, Watcher, Watching, stale_after_of
from schemas.rule_changes import digest_of, document_of
from schemas.rules import ChannelRules, LocationRules, Rules
from schemas.settings import InputSettings, RedisSettings, Settings
from schemas.times import format_ms
from schemas.topics import HEARTBEATS
from schemas.watch import Generation
from sinks.redis_keys import Held
from sinks.slots import SinkError
from sources.heartbeats import HeartbeatError
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand, wait_until

WATCHED = Rules(channels={"web": ChannelRules()}, locations={"east": LocationRules(stale_after="10s")})
UNWATCHED = Rules(channels={"web": ChannelRules()})


class Log:
    """Heartbeats and a log, without any server behind them: what a look hears, and what it tells."""

    def __init__(self) -> None:
        self.heard: dict[str, int] = {}
        self.told: list[tuple[str, int]] = []
        self.records: list[dict[str, object]] = []
        self.attempts = 0
        self.is_down = False
        self.is_deaf = False
        self.pushed = [WATCHED]

    def heard_ms(self) -> Mapping[str, int]:
        """When each location was last heard of."""
        if self.is_deaf:
            raise HeartbeatError("deaf")
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
        self.attempts += 1
        if self.is_down:
            raise SinkError("down")
        records = [msgspec.json.decode(payload) for payload in payloads]
        self.records += records
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


def test_a_location_whose_watch_was_pushed_and_taken_back_is_believed_again() -> None:
    """Of one that no generation watches nothing is told; the rules are looked at every other time."""
    watch = Watch()
    plain = Rules(channels={"web": ChannelRules()}, locations={"east": LocationRules(safety_units=1)})
    watch.rules, watch.log.pushed = plain, [plain]
    assert [watch.look_at(second) for second in (100, 101)] == [[], []]
    watch.rules = WATCHED
    assert [watch.look_at(second) for second in (102, 119, 121)] == [[("east", 100)], [("east", 10)], [("east", 0)]]
    watch.rules = plain
    assert [watch.look_at(second) for second in (122, 123, 124)] == [[], [("east", 100)], []]


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


def test_one_that_was_silent_before_the_watcher_began_is_not_believed_for_a_while() -> None:
    """What was heard before a restart counts."""
    watch = Watch()
    watch.log.heard["east"] = 50_000
    assert watch.look_at(100) == [("east", 0)]


def test_nothing_is_judged_before_the_heartbeats_are_read() -> None:
    """The first look is the first one that could listen."""
    watch = Watch()
    watch.log.heard["east"] = 50_000
    watch.log.is_deaf = True
    with pytest.raises(HeartbeatError):
        watch.look_at(100)
    assert watch.log.told == []
    watch.log.is_deaf = False
    assert watch.look_at(101) == [("east", 0)]


def test_a_record_says_when_it_was_decided_and_when_the_location_was_last_heard() -> None:
    """The second only where it ever was."""
    watch = Watch()
    watch.log.heard["west"] = 90_000
    watch.look_at(115)
    assert watch.log.records == [
        {"kind": "location", "location": "east", "trust_percent": 50, "time": format_ms(115_000)},
        {
            "kind": "location", "location": "west", "trust_percent": 100, "time": format_ms(115_000),
            "last_heard": format_ms(90_000),
        },
    ]  # fmt: skip


def test_failures_are_told_when_they_begin_and_when_they_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once a second in between; what was missed is made up for."""
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.01)
    watch, closed, said = Watch(), Event(), list[str]()

    def is_said(words: str) -> bool:
        said.append(capsys.readouterr().out)
        return words in "".join(said)

    watch.log.is_down = True
    with Watching(lambda: watch.watcher, closed.set):
        wait_until(lambda: watch.log.attempts > 3)
        watch.log.is_down = False
        wait_until(lambda: watch.log.told)
        wait_until(lambda: is_said("noticed again"))
    assert closed.is_set()
    said.append(capsys.readouterr().out)
    assert "".join(said).count("silent locations are not noticed") == 1
    assert "".join(said).count("silent locations are noticed again") == 1


def hold(client: Redis, generation: int, stale_after: str | None, partition: int = 0) -> None:
    """Let Redis say that a partition goes by rules that watch `east` so."""
    rules = Rules(channels={"web": ChannelRules()}, locations={"east": LocationRules(stale_after=stale_after)})
    document = document_of(rules)
    held = Held(generation, digest_of(document), 5, None)
    client.hset(
        "avail:@rules",
        mapping={
            "@incarnation": "1",
            "generation": str(generation),
            "document": msgspec.json.encode(document),
            str(partition): msgspec.json.encode(held),
        },
    )


def test_a_later_generation_in_force_is_followed_and_an_earlier_one_is_not(redis: Redis) -> None:
    """A flow that replays goes by old rules for a while; what is watched now does not."""
    follow = RulesFollowed(redis, "avail:", WATCHED, 3)
    seen = [stale_after_of(follow())]
    for generation, stale_after in ((1, None), (3, "1h"), (4, "1m"), (2, None), (5, None)):
        hold(redis, generation, stale_after)
        seen.append(stale_after_of(follow()))
    assert seen == [{"east": 10_000}, {"east": 10_000}, {"east": 10_000}, {"east": 60_000}, {"east": 60_000}, {}]


def test_rules_that_have_not_changed_are_not_read_again(redis: Redis) -> None:
    """They may be large, and the watcher lives in the flow's process."""
    follow = RulesFollowed(redis, "avail:", WATCHED, 1)
    hold(redis, 2, "1m")
    first = follow()
    redis.config_resetstat()
    assert follow() is first
    assert "cmdstat_hgetall" not in redis.info("commandstats")


@pytest.mark.parametrize("field", ["0", "document", "generation"])
def test_a_hash_that_is_not_onhands_is_told_as_such(redis: Redis, field: str) -> None:
    """The watcher says so and goes on trying."""
    follow = RulesFollowed(redis, "avail:", WATCHED, 1)
    hold(redis, 2, "1m")
    redis.hset("avail:@rules", field, "{")
    with pytest.raises(HeartbeatError, match="does not tell which rules hold"):
        follow()


def test_heartbeats_in_redis_do_not_grow_without_end(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cron job goes on for years; Kafka compacts, Redis is told how many to keep."""
    monkeypatch.setattr(heartbeat, "STREAM_ENTRIES_MAX", 50)
    settings = Settings(redis=RedisSettings(url=redis_server.url), input=InputSettings(kind="redis_stream"))
    for _ in range(400):
        heartbeat._add(Configuration(settings, tmp_path, None), b"{}")  # noqa: SLF001  # without a process for each
    assert 50 <= redis.xlen(HEARTBEATS.name) < 200


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
        (["east", "--source", ""], {}, 2),
        (["east", "--source", "x" * 300], {}, 2),
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
    done = onhand("heartbeat", "--source", "wms", *arguments, cwd=tmp_path, settings=settings)
    assert_failed_in_one_line(done, code)
