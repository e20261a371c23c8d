"""Settings of onhand.toml: their defaults, their environment variables, and what is wrong with them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from schemas.complaints import Complaint, Document, readable, table_from, unknown_tables
from schemas.topics import MOVEMENTS

Hours = Annotated[int, msgspec.Meta(ge=1, le=24 * 365)]
ENVIRONMENT_PREFIX = "ONHAND_"
OPTIONS_PREFIX = "options__"


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file; a key that it does not know is an error."""


class KafkaSettings(Section, frozen=True):
    """How to reach Kafka; `options` are further librdkafka settings."""

    bootstrap_servers: str = "localhost:9092"
    group: str = "onhand-availability"
    options: dict[str, str | int | float | bool] = {}


class RedisSettings(Section, frozen=True):
    """Where channels read; "embedded" starts the bundled server."""

    url: str = "redis://localhost:6379/0"
    prefix: str = "avail:"
    explain_prefix: str = "explain:"


class StateSettings(Section, frozen=True):
    """The lanes' state; `lanes` is fixed once a state exists."""

    path: str = "state"
    lanes: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    snapshot_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 10
    drain_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30


class InputSettings(Section, frozen=True):
    """Where movements come from: a Kafka topic, a Redis stream, or a JSONL file (`-`: standard input)."""

    kind: Literal["kafka", "redis_stream", "jsonl"] = "kafka"
    topic: str = MOVEMENTS.name
    dedupe_hours: Hours = 72
    as_of_hours: Hours = 72


class OutputSettings(Section, frozen=True):
    """Where records go besides Redis: Kafka topics, or one JSONL file per topic in the directory `path`.

    The availability topic is told of a SKU at most once in `availability_seconds`; Redis never waits for that.
    """

    kind: Literal["kafka", "jsonl", "none"] = "kafka"
    path: str = "out"
    availability_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0


class RulesSettings(Section, frozen=True):
    """The business rules, and a second set to compare with."""

    path: str = "rules.toml"
    shadow_path: str = ""


class MetricsSettings(Section, frozen=True):
    """Where health and metrics are served, and up to which lag and for how long a standing epoch a process is ready."""

    listen: str = "127.0.0.1:9464"
    ready_lag_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30
    ready_epoch_seconds: Annotated[float, msgspec.Meta(gt=0)] = 120


class Settings(Section, frozen=True):
    """Everything that onhand.toml may say."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    state: StateSettings = StateSettings()
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    rules: RulesSettings = RulesSettings()
    metrics: MetricsSettings = MetricsSettings()


def settings_from(document: Document, environment: Mapping[str, str]) -> tuple[Settings, list[Complaint]]:
    """The settings of a file with the environment's `ONHAND_<SECTION>__<KEY>` over it, and all complaints.

    Where something is wrong, the default stands in its place; a caller that got an error must not run with it.
    """
    complaints: list[Complaint] = []
    sections: dict[str, Section] = {}
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    complaints.extend(unknown_tables(document, types))
    overrides = _overrides(environment, types, complaints)
    for name, type_ in types.items():
        section = table_from(document, (name,), document.values.get(name, {}), type_, complaints)
        sections[name] = _overridden(section, overrides.get(name, {}), name, complaints)
    settings = Settings(**sections)  # type: ignore[arg-type]  # each is of its field's type
    if settings.redis.prefix == settings.redis.explain_prefix:
        said = "must differ from redis.prefix, or explanations would stand where channels read"
        complaints.append(document.complaint(("redis", "explain_prefix"), said))
    return settings, complaints


def _overridden(section: Section, overrides: dict[str, Any], name: str, complaints: list[Complaint]) -> Section:
    """`section` with the environment's texts over it."""
    types = {field.name: field.type for field in msgspec.structs.fields(section)}
    values: dict[str, Any] = {}
    for key, text in overrides.items():
        try:
            values[key] = msgspec.convert(text, types[key], strict=False)
        except msgspec.ValidationError as error:
            complaints.append(Complaint("error", None, f"{ENVIRONMENT_PREFIX}{name}__{key}".upper(), readable(error)))
    if isinstance(section, KafkaSettings) and "options" in values:
        values["options"] = {**section.options, **values["options"]}
    return msgspec.structs.replace(section, **values)


def _overrides(
    environment: Mapping[str, str], types: dict[str, Any], complaints: list[Complaint]
) -> dict[str, dict[str, Any]]:
    """`ONHAND_KAFKA__GROUP=x` as `{"kafka": {"group": "x"}}`; `ONHAND_CONFIG` and its like have no `__`.

    `ONHAND_KAFKA__OPTIONS__SASL_PASSWORD` is librdkafka's `sasl.password`, so that secrets need no file.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or not separator:
            continue
        if section == "kafka" and key.startswith(OPTIONS_PREFIX):
            option = key.removeprefix(OPTIONS_PREFIX).replace("_", ".")
            overrides.setdefault(section, {}).setdefault("options", {})[option] = text
        elif section not in types or key not in {field.name for field in msgspec.structs.fields(types[section])}:
            complaints.append(Complaint("error", None, name, "names no setting"))
        else:
            overrides.setdefault(section, {})[key] = text
    return overrides
