"""Every engine of the comparison once, each peer in its own environment; run by `make peers`, as it makes those."""

import pytest

from bench.comparison import ENGINES, PEERS, compare, generated_backlog
from bench.environments import python_of
from bench.generate import LoadConfig

pytestmark = pytest.mark.timeout(1800)  # seconds: packages are fetched


def test_every_engine_leaves_what_the_oracle_says() -> None:
    """No SKU and no crossing differs, on packages that were installed by their hashes."""
    pythons = {engine: python_of(engine) for engine in PEERS}
    backlog = generated_backlog(LoadConfig(movements=3000, skus=100, partitions=2), 1)
    runs = list(compare(backlog, pythons, ENGINES, runs=1))
    assert [run.engine for run in runs] == list(ENGINES)
    assert [run for run in runs if run.differs] == []
    assert runs[-1].versions["quixstreams"]
