"""onhand.toml and its environment variables: defaults, order of precedence, and complaints."""

import pytest

from schemas.complaints import Document, read_toml
from schemas.settings import (
    InputSettings,
    KafkaSettings,
    MetricsSettings,
    OutputSettings,
    RedisSettings,
    RulesSettings,
    Settings,
    StateSettings,
    settings_from,
)


def told(text: str, environment: dict[str, str] | None = None) -> tuple[Settings, list[str]]:
    """The settings of `text` under `environment`, and its complaints as `severity line path`."""
    document = read_toml(text)
    assert isinstance(document, Document)
    settings, complaints = settings_from(document, environment or {})
    return settings, [f"{complaint.severity} {complaint.line} {complaint.path}" for complaint in complaints]


def test_without_a_file_everything_has_its_documented_default() -> None:
    """A checkout runs with no settings at all."""
    settings, complaints = told("")
    assert not complaints
    assert settings == Settings(
        kafka=KafkaSettings(bootstrap_servers="localhost:9092", group="onhand-availability", options={}),
        redis=RedisSettings(url="redis://localhost:6379/0", prefix="avail:", explain_prefix="explain:"),
        state=StateSettings(path="state", lanes=64, snapshot_seconds=10),
        input=InputSettings(kind="kafka", topic="inventory.movements", dedupe_hours=72, as_of_hours=72),
        output=OutputSettings(kind="kafka"),
        rules=RulesSettings(path="rules.toml", shadow_path=""),
        metrics=MetricsSettings(listen="127.0.0.1:9464"),
    )


@pytest.mark.parametrize(
    ("text", "environment", "lanes"),
    [
        ("", {}, 64),
        ("[state]\nlanes = 8", {}, 8),
        ("[state]\nlanes = 8", {"ONHAND_STATE__LANES": "16"}, 16),
        ("", {"ONHAND_STATE__LANES": "16"}, 16),
        ("", {"onhand_state__lanes": "16", "STATE__LANES": "16", "ONHAND_STATE": "16"}, 64),
    ],
)
def test_the_environment_wins_over_the_file(text: str, environment: dict[str, str], lanes: int) -> None:
    """`ONHAND_<SECTION>__<KEY>`, then the file, then the default."""
    settings, complaints = told(text, environment)
    assert (settings.state.lanes, complaints) == (lanes, [])


def test_options_of_librdkafka_come_from_both() -> None:
    """Secrets come from the environment, with dots written as single underscores; the rest of the file stays."""
    text = '[kafka.options]\n"security.protocol" = "SASL_SSL"\n"sasl.password" = "old"\nretries = 3'
    settings, complaints = told(text, {"ONHAND_KAFKA__OPTIONS__SASL_PASSWORD": "new"})
    assert not complaints
    assert settings.kafka.options == {"security.protocol": "SASL_SSL", "sasl.password": "new", "retries": 3}


@pytest.mark.parametrize(
    ("text", "environment", "complaints"),
    [
        ("[stat]", {}, ["error 1 stat"]),
        ("[state]\nlane = 8", {}, ["error 2 state.lane"]),
        ("[state]\nlanes = 0\npath = 5", {}, ["error 2 state.lanes", "error 3 state.path"]),
        ("[state]\nsnapshot_seconds = 0", {}, ["error 2 state.snapshot_seconds"]),
        ("state = 5", {}, ["error 1 state"]),
        ("[input]\nkind = 'rabbit'", {}, ["error 2 input.kind"]),
        ('[redis]\nprefix = "x:"\nexplain_prefix = "x:"', {}, ["error 3 redis.explain_prefix"]),
        ("", {"ONHAND_REDIS__PREFIX": "explain:"}, ["error None redis.explain_prefix"]),
        ("[kafka.options]\nretries = []", {}, ["error 1 kafka.options"]),
        ("", {"ONHAND_STATE__LANES": "many"}, ["error None ONHAND_STATE__LANES"]),
        ("", {"ONHAND_STATE__LANE": "8"}, ["error None ONHAND_STATE__LANE"]),
        ("", {"ONHAND_STAT__LANES": "8"}, ["error None ONHAND_STAT__LANES"]),
        ("", {"ONHAND_CONFIG": "x.toml", "PATH": "/bin"}, []),
    ],
)
def test_what_is_wrong_is_said_at_its_line_or_by_its_variable(
    text: str, environment: dict[str, str], complaints: list[str]
) -> None:
    """One fault hides no other; of a variable its name stands for the line."""
    assert told(text, environment)[1] == complaints


def test_a_fault_leaves_the_default_in_its_place() -> None:
    """So that all other faults of a file can be found in one go."""
    settings, complaints = told("[state]\nlanes = 0\nsnapshot_seconds = 5")
    assert (settings.state.lanes, settings.state.snapshot_seconds) == (64, 5)
    assert len(complaints) == 1
