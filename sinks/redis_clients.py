"""Clients for what is read now and then: of one server, or of the cluster that it belongs to."""

from typing import Any, cast

from redis import Redis, RedisCluster
from redis.exceptions import NoPermissionError


def client_of(url: str, **options: Any) -> Redis:  # noqa: ANN401  # what redis-py's clients take
    """A client of the server at `url`, or of its whole cluster; both find the keys of a SKU.

    `options` are keyword arguments of redis-py. Raises what redis-py raises: ValueError where `url` is no address.
    """
    client = Redis.from_url(url, **options)
    try:
        if not _is_of_a_cluster(client):
            return client
    except BaseException:
        client.close()
        raise
    client.close()
    kept = {name: value for name, value in options.items() if name != "retry"}
    return cast("Redis", RedisCluster.from_url(url, **kept))  # the same commands, of keys one by one


def _is_of_a_cluster(client: Redis) -> bool:
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except NoPermissionError:
        return False
