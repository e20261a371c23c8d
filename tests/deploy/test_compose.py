"""The compose file: valid by its specification, and of one mind with our defaults."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft7Validator

from schemas.complaints import Document
from schemas.settings import Settings, settings_from
from schemas.topics import TOPICS

ONHAND = str(Path(sys.executable).with_name("onhand"))
CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
SPECIFICATION = json.loads(Path(__file__).with_name("compose-spec.json").read_text())


def settings_of(service: str) -> Settings:
    """Return the settings that a service's environment makes, which must hold no complaint."""
    settings, complaints = settings_from(Document({}, {}), SERVICES[service]["environment"])
    assert not complaints
    return settings


def port_of(address: str) -> int:
    """Return the port of `host:port` or of a URL."""
    port = urlsplit(address if "://" in address else f"//{address}").port
    assert port is not None
    return port


def test_it_follows_the_compose_specification() -> None:
    """Every key and value is one that the specification knows."""
    assert [error.message for error in Draft7Validator(SPECIFICATION).iter_errors(COMPOSE)] == []


def test_the_specification_refuses_what_it_does_not_know() -> None:
    """The check above is one that can fail."""
    wrong = {"services": {"kafka": {"image": "apache/kafka:4.1.0", "prots": []}}}
    assert not Draft7Validator(SPECIFICATION).is_valid(wrong)


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ("kafka", Settings().kafka.bootstrap_servers),
        ("redis", Settings().redis.url),
    ],
)
def test_the_published_port_is_our_default(service: str, address: str) -> None:
    """An onhand outside of the containers finds them without a setting, from this machine only."""
    port = port_of(address)
    assert SERVICES[service]["ports"] == [f"127.0.0.1:{port}:{port}"]


@pytest.mark.parametrize("service", OURS)
def test_our_services_meet_the_servers_by_name(service: str) -> None:
    """Inside, Kafka and Redis are reached at addresses that they listen on."""
    settings = settings_of(service)
    assert (
        f"INSIDE://{settings.kafka.bootstrap_servers}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert urlsplit(settings.redis.url).hostname == "redis"
    assert port_of(settings.redis.url) == port_of(Settings().redis.url)


def test_the_flow_reads_a_topic_that_is_made() -> None:
    """What `topics create` makes holds the flow's input, and no other topic is named."""
    named = set(re.findall(r"\binventory\.[a-z-]+", json.dumps(COMPOSE)))
    assert settings_of("availability").input.topic == Settings().input.topic
    assert named <= {topic.name for topic in TOPICS}
    assert SERVICES["topics"]["command"] == ["topics", "create"]
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("service", OURS)
def test_the_services_run_commands_that_exist(service: str) -> None:
    """Each of our services is started with a command that `onhand` knows."""
    run = subprocess.run([ONHAND, *SERVICES[service]["command"], "--help"], capture_output=True, check=False)
    assert run.returncode == 0


def test_the_flow_finds_its_configuration_and_rules() -> None:
    """What is mounted into the container holds the file that ONHAND_CONFIG names, and valid rules beside it."""
    source, target, _ = SERVICES["availability"]["volumes"][0].split(":")
    environment = SERVICES["availability"]["environment"]
    config = CHECKOUT / source / Path(environment["ONHAND_CONFIG"]).relative_to(target)
    run = subprocess.run(
        [ONHAND, "check"],
        env=os.environ | environment | {"ONHAND_CONFIG": str(config)},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_redis_refuses_instead_of_forgetting() -> None:
    """A Redis with a bound on memory never evicts a SKU."""
    command = " ".join(SERVICES["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert re.search(r"--maxmemory \d+mb", command)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_waited_for_can_tell_its_health(service: str) -> None:
    """A service that another waits for has a health check, or ends by itself."""
    for other, wait in SERVICES[service].get("depends_on", {}).items():
        assert wait["condition"] in {"service_healthy", "service_completed_successfully"}
        assert (wait["condition"] == "service_healthy") == ("healthcheck" in SERVICES[other])


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str) -> None:
    """No service changes because somebody published an image."""
    assert re.search(r":\d+\.\d+(\.\d+)?$", SERVICES[service]["image"])


def test_the_image_is_made_from_the_lock_and_runs_as_nobody_special() -> None:
    """The Dockerfile installs locked versions, then the checkout, and drops root."""
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    steps = [line for line in lines if re.match(r"FROM|RUN pip|COPY|USER|ENTRYPOINT", line)]
    assert [step.split()[0] for step in steps] == ["FROM", "COPY", "RUN", "COPY", "RUN", "USER", "ENTRYPOINT"]
    assert "--require-hashes -r requirements.lock" in steps[2]
    assert "--no-build-isolation --no-deps --editable ." in steps[4]
    assert steps[5:] == ["USER onhand", 'ENTRYPOINT ["onhand"]']


def test_the_image_holds_every_package() -> None:
    """What the build context leaves out is nothing that the command imports."""
    kept = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {path.parent.name for path in CHECKOUT.glob("[a-z]*/__init__.py")}
    assert packages | {"LICENSE", "pyproject.toml", "requirements.lock"} <= kept


def test_the_state_of_the_flow_outlives_its_container() -> None:
    """It lies in a volume, in a folder that the image gives to the flow's user."""
    flow = SERVICES["availability"]
    path = settings_of("availability").state.path
    assert f"state:{path}" in flow["volumes"]
    assert "state" in COMPOSE["volumes"]
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    assert re.search(rf"install --directory --owner onhand --mode 0700 {path}$", dockerfile, re.MULTILINE)


def test_a_container_is_given_the_time_of_a_drain() -> None:
    """Else it is killed before its last snapshot, and reads again what it had done."""
    seconds = int(SERVICES["availability"]["stop_grace_period"].removesuffix("s"))
    assert seconds > settings_of("availability").state.drain_seconds


def test_the_flow_is_asked_whether_it_lives_where_it_answers() -> None:
    """At the port of its first worker."""
    port = port_of(settings_of("availability").metrics.listen)
    assert f"127.0.0.1:{port}/livez" in SERVICES["availability"]["healthcheck"]["test"][-1]
    assert f"127.0.0.1:{port}:{port}" in SERVICES["availability"]["ports"]
