"""Generations of rules as commands make them: read, claimed, written into every partition, and noticed at a start."""

import time
from typing import Any, Final, NamedTuple

import structlog
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.connections import cluster_of, kafka_admin
from cli.failures import MISUSED, CliError, one_line
from cli.kafka_topics import make_topics, wanted_topics
from cli.topics import cluster_that_knows
from schemas.movements import encode
from schemas.rule_changes import (
    NO_RULES,
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
from sinks.redis_clients import client_of
from sinks.redis_keys import read_partitions_held
from sinks.rule_log import KafkaRuleLog, RedisRuleLog, RuleLog
from sinks.slots import SinkError

CLAIMS_MAX: Final = 10
CHANGES_SHOWN_MAX: Final = 10
REPLICAS_MAX: Final = 3
REDIS_SECONDS_MAX: Final = 5.0

log = structlog.get_logger(__name__)


class Settled(NamedTuple):
    """What a start found or made: the rules of the first generation, and the number of the latest, which is the file's.

    What stands in the log before any generation is decided by the first one, whenever it is read.
    """

    first: Rules
    generation: int


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
        return KafkaRuleLog(settings.kafka.bootstrap_servers, reads.topic, settings.kafka.options)
    if reads.kind == "redis_stream":
        return RedisRuleLog(redis_url, reads.topic)
    raise CliError("a file takes no rules from outside: it has the control records that stand in it", MISUSED)


def make_registry(settings: Settings) -> None:
    """The topic that generations are kept in, which is made where it is missing; a stream in Redis makes itself."""
    if settings.input.kind != "kafka":
        return
    admin = kafka_admin(settings.kafka)
    cluster = cluster_of(admin, settings.kafka)
    if GENERATIONS.name not in cluster.topics:
        wanted = [topic for topic in wanted_topics(settings) if topic.name == GENERATIONS.name]
        make_topics(admin, wanted, 1, min(REPLICAS_MAX, len(cluster.brokers)))
        cluster_that_knows(admin, settings, wanted)


def pushed_last(settings: Settings, redis_url: str) -> Generation | None:
    """The generation pushed last; None where none was, as far as anybody knows. Makes nothing."""
    if settings.input.kind == "jsonl":
        return None
    if settings.input.kind == "kafka":
        cluster = cluster_of(kafka_admin(settings.kafka), settings.kafka)
        if GENERATIONS.name not in cluster.topics:
            return None
    return latest_of(rule_log(settings, redis_url))


def latest_of(rules: RuleLog) -> Generation | None:
    """The generation with the greatest number, of several the first; None where there is none."""
    return max(rules.generations(), key=lambda generation: generation.generation, default=None)


def claim(rules: RuleLog, document: dict[str, Any], in_force: int = 0) -> Pushed | None:
    """Makes `document` the next generation; None where the latest one is the same.

    Of several who claim a number the first in the log has it; the others try again behind it. `in_force` is the
    greatest generation that a flow goes by: where the registry was lost, numbers go on behind that.
    """
    digest = digest_of(document)
    for _ in range(CLAIMS_MAX):
        before = latest_of(rules)
        if before is not None and before.digest == digest:
            return None
        number = max(0 if before is None else before.generation, in_force) + 1
        mine = Generation(generation=number, digest=digest, time=format_ms(_now_ms()), document=document)
        rules.append(mine)
        winner = next((found for found in rules.generations() if found.generation == number), None)
        if winner is not None and winner.digest == digest:
            return Pushed(winner, before)
    raise CliError(f"somebody else pushes rules, {CLAIMS_MAX} times in a row: try again when that is over")


def write(rules: RuleLog, generation: Generation, base: Generation | None = None) -> None:
    """Writes a generation into every partition: whole, or as what changed since `base` where it is large."""
    records = records_of(generation.generation, NO_RULES, generation.document, generation.time)
    if base is not None and len(records) > 1:
        patch = patch_between(base.document, generation.document)
        records = records_of(generation.generation, base.generation, patch, generation.time)
    try:
        rules.tell([encode(record) for record in records])
    except SinkError as error:
        raise SinkError(
            f"generation {generation.generation} is not in every partition ({one_line(error)}): "
            "a start of `onhand run availability` writes it again"
        ) from error


def settle_rules(configuration: Configuration, rules: Rules, redis_url: str) -> Settled:
    """At a start: the file's rules as the next generation where they differ from the latest, else that one again.

    Written again it does nothing where it holds already, and helps a partition that has never seen it.
    """
    settings = configuration.settings
    if settings.input.kind == "jsonl":
        return Settled(rules, 0)
    make_registry(settings)
    held = rule_log(settings, redis_url)
    try:
        pushed = claim(held, document_of(rules), generation_in_force(configuration, redis_url))
        latest = latest_of(held) if pushed is None else pushed.generation
        first = min(held.generations(), key=lambda generation: generation.generation, default=latest)
        if latest is None or first is None:
            raise CliError(f"{GENERATIONS.name} was emptied while it was read: start again")
        write(held, latest)
    except SinkError as error:
        raise CliError(one_line(error)) from error
    _tell(configuration, latest, pushed)
    return Settled(_rules_in(first), latest.generation)


def generation_in_force(configuration: Configuration, redis_url: str) -> int:
    """The greatest generation that Redis has been told of, 0 where there is none."""
    try:
        with client_of(redis_url, socket_timeout=REDIS_SECONDS_MAX) as client:
            held = read_partitions_held(client, configuration.settings.redis.prefix)
    except RedisError as error:
        raise CliError(f"Redis does not tell which rules hold ({one_line(error)}); look into its log") from error
    return max((rules.generation for rules in held.values()), default=0)


def _rules_in(generation: Generation) -> Rules:
    rules, complaints = rules_of_document(generation.document)
    for complaint in complaints:
        if complaint.severity == "error":
            raise CliError(
                f"generation {generation.generation} in {GENERATIONS.name} cannot be used by this version: "
                f"{complaint.path}: {complaint.message}"
            )
    return rules


def _tell(configuration: Configuration, latest: Generation, pushed: Pushed | None) -> None:
    if pushed is None:
        log.info("rules hold", generation=latest.generation, since=latest.time)
        return
    changes = pushed.changes
    log.info(
        "rules pushed" if pushed.before is None else "rules have changed, pushed",
        file=str(configuration.rules_path),
        generation=latest.generation,
        changes=changes[:CHANGES_SHOWN_MAX],
        more=max(0, len(changes) - CHANGES_SHOWN_MAX),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
