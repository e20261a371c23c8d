"""Numbers into Redis: one hash a SKU, many in one round trip, with redis-py and hiredis."""

from collections.abc import Mapping
from typing import Final

from redis import Redis

from bench.peers.stock import Rules, Taken

SKUS_MAX: Final = 1000  # of one round trip


def write_numbers(client: Redis, latest: Mapping[str, Taken], rules: Rules) -> None:
    """Write the latest numbers of SKUs; what Redis refuses is raised."""
    names = [channel.name for channel in rules.channels]
    skus = list(latest)
    for start in range(0, len(skus), SKUS_MAX):
        with client.pipeline(transaction=False) as pipeline:
            for sku in skus[start : start + SKUS_MAX]:
                taken = latest[sku]
                fields: list[str | int] = ["@version", taken.version]
                for name, units in zip(names, taken.sellable, strict=True):
                    fields += (name, units)
                pipeline.hset(f"avail:{sku}", items=fields)
            pipeline.execute()
