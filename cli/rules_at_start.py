"""Generations of rules as commands make them: read, claimed, written into every partition, and noticed at a start."""

import time
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka.admin import AdminClient
from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.connections import cluster_of, kafka_admin
from cli.failures import MISUSED, CliError, one_line
from cli.kafka_topics import make_topics, wanted_topics
from schemas.movements import encode
from schemas.rule_changes import (
    NO_RULES,
    PIECE_CHARACTERS_MAX,
    changed_paths,
    digest_of,
    document_of,
    patch_between,
    records_of,
    rules_of_document,
)
from schemas.rules import Rules
from schemas.settings import Settings
from schemas.times import format_ms
from schemas.topics import GENERATIONS
from schemas.watch import Generation
from sinks.redis_keys import read_rules_in_force
from sinks.rule_log import KafkaRuleLog, RedisRuleLog, RuleLog
from sinks.slots import SinkError

CLAIMS_MAX: Final = 10
CHANGES_SHOWN_MAX: Final = 10
REPLICAS_MAX: Final = 3
REDIS_SECONDS_MAX: Final = 5.0

log = structlog.get_logger(__name__)


class Pushed(NamedTuple):
    """A generation that was claimed, and the one that it follows (None: it is the first)."""

    generation: Generation
    before: Generation | None

    @property
    def changes(self) -> list[str]:
        """What differs from the generation before, as people write it."""
        before: dict[str, Any] = {} if self.before is None else self.before.document
        return sorted(changed_paths(patch_between(before, self.generation.document)))


def rule_log(settings: Settings, redis_url: str) -> RuleLog:
    """Where the rules of this input are kept; CliError (exit 2) for a file, which has those that stand in it."""
    reads = settings.input
    if reads.kind == "kafka":
        admin = kafka_admin(settings.kafka)
        _make_registry(admin, settings)
        return KafkaRuleLog(settings.kafka.bootstrap_servers, reads.topic, settings.kafka.options)
    if reads.kind == "redis_stream":
        return RedisRuleLog(redis_url, reads.topic)
    raise CliError("a file takes no rules from outside: it has the control records that stand in it", MISUSED)


def latest_of(rules: RuleLog) -> Generation | None:
    """The generation pushed last; None where there is none."""
    first: dict[int, Generation] = {}
    for generation in rules.generations():
        first.setdefault(generation.generation, generation)
    return first[max(first)] if first else None


def claim(rules: RuleLog, document: dict[str, Any], in_force: int = 0) -> Pushed | None:
    """Makes `document` the next generation; None where the latest one is the same.

    Of several who claim a number the first in the log has it; the others try again behind it. `in_force` is the
    greatest generation that a flow goes by: where the registry was lost, numbers go on behind that.
    """
    for _ in range(CLAIMS_MAX):
        before = latest_of(rules)
        digest = digest_of(document)
        if before is not None and before.digest == digest:
            return None
        number = max(0 if before is None else before.generation, in_force) + 1
        mine = Generation(generation=number, digest=digest, time=format_ms(_now_ms()), document=document)
        rules.append(mine)
        winner = next(found for found in rules.generations() if found.generation == number)
        if winner.digest == digest:
            return Pushed(mine, before)
    raise CliError(f"somebody else pushes rules, {CLAIMS_MAX} times in a row: try again when that is over")


def write(rules: RuleLog, generation: Generation, base: Generation | None = None) -> None:
    """Writes a generation into every partition: whole, or as what changed since `base` where it is large."""
    complete = records_of(generation.generation, NO_RULES, generation.document, generation.time)
    records = complete
    if base is not None and sum(len(bytes(record.changes)) for record in complete) > PIECE_CHARACTERS_MAX:
        patch = patch_between(base.document, generation.document)
        records = records_of(generation.generation, base.generation, patch, generation.time)
    rules.tell([encode(record) for record in records])


def settle_rules(configuration: Configuration, rules: Rules, redis_url: str) -> Rules:
    """At a start: the file's rules as the next generation where they differ from the latest, else that one again.

    Written again it does nothing where it holds already, and helps a partition that has never seen it. Returns the
    rules of the first generation: what stands in the log before any of them is decided by those, whenever it is read.
    """
    if configuration.settings.input.kind == "jsonl":
        return rules
    held = rule_log(configuration.settings, redis_url)
    try:
        pushed = claim(held, document_of(rules), generation_in_force(configuration, redis_url))
        if pushed is not None:
            write(held, pushed.generation)
            _tell(configuration, pushed)
        elif (latest := latest_of(held)) is not None:
            write(held, latest)
            log.info("rules hold", generation=latest.generation, since=latest.time)
        first = min(held.generations(), key=lambda generation: generation.generation)
    except SinkError as error:
        raise CliError(one_line(error)) from error
    return _rules_in(first)


def generation_in_force(configuration: Configuration, redis_url: str) -> int:
    """The greatest generation that Redis has been told of, 0 where there is none."""
    with Redis.from_url(redis_url, socket_timeout=REDIS_SECONDS_MAX) as client:
        try:
            held = read_rules_in_force(client, configuration.settings.redis.prefix)
        except RedisError as error:
            raise CliError(f"Redis does not tell which rules hold ({one_line(error)}); look into its log") from error
    return 0 if held is None else held.generation


def _rules_in(generation: Generation) -> Rules:
    rules, complaints = rules_of_document(generation.document)
    for complaint in complaints:
        if complaint.severity == "error":
            raise CliError(
                f"generation {generation.generation} in {GENERATIONS.name} cannot be used by this version: "
                f"{complaint.path}: {complaint.message}"
            )
    return rules


def _tell(configuration: Configuration, pushed: Pushed) -> None:
    changes = pushed.changes
    log.info(
        "rules pushed" if pushed.before is None else "rules have changed, pushed",
        file=str(configuration.rules_path),
        generation=pushed.generation.generation,
        changes=changes[:CHANGES_SHOWN_MAX],
        more=max(0, len(changes) - CHANGES_SHOWN_MAX),
    )


def _make_registry(admin: AdminClient, settings: Settings) -> None:
    """The topic that generations are kept in: a flow's own, made where it is missing."""
    cluster = cluster_of(admin, settings.kafka)
    if GENERATIONS.name not in cluster.topics:
        wanted = [topic for topic in wanted_topics(settings) if topic.name == GENERATIONS.name]
        make_topics(admin, wanted, 1, min(REPLICAS_MAX, len(cluster.brokers)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
