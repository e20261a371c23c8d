"""`onhand run availability` on a real Redis Cluster: every SKU on the server that has its key."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import onhand, started, wait_until
from tests.sinks.test_redis_cluster import Cluster, cluster_of

SKUS = 200
RULES = "[locations.dc-1]\n[channels.web]\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three primaries."""
    with cluster_of(3) as found:
        yield found


@pytest.fixture
def settings(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """A stream of lines in, Redis alone out."""
    (tmp_path / "rules.toml").write_text(RULES)
    return {
        "redis.url": cluster.url, "input.kind": "jsonl", "input.topic": "-", "output.kind": "none",
        "metrics.listen": "",
    }  # fmt: skip


def line(number: int) -> bytes:
    """One movement."""
    body = {"id": str(number), "source": "wms", "kind": "received", "sku": f"SKU-{number % SKUS}", "location": "dc-1"}
    return json.dumps({**body, "quantity": 1, "time": "2026-11-21T00:00:00Z"}).encode() + b"\n"


def test_a_flow_fills_a_cluster_again_and_commands_find_every_sku(
    cluster: Cluster, settings: dict[str, str], tmp_path: Path
) -> None:
    """Also when one of its servers was emptied while nothing moved."""

    def count() -> int:
        return sum(len(client.keys("avail:SKU-*")) for client in cluster.clients)

    with started("run", "availability", cwd=tmp_path, settings=settings) as run:
        assert run.stdin is not None
        run.stdin.write(b"".join(map(line, range(SKUS))))
        run.stdin.flush()
        wait_until(lambda: count() == SKUS, 60)
        assert all(client.dbsize() > SKUS // 10 for client in cluster.clients)
        got = onhand("get", "SKU-7", "--json", cwd=tmp_path, settings=settings)
        assert got.returncode == 0, got.stderr
        assert json.loads(got.stdout)["version"] == 7
        explained = onhand("explain", "SKU-7", "--json", cwd=tmp_path, settings=settings)
        assert explained.returncode == 0, explained.stderr
        for client in cluster.clients:
            client.flushall()
            wait_until(lambda: count() == SKUS, 30)
        run.stdin.close()
        assert run.wait(30) == 0, (tmp_path / "err").read_text()
