"""Availability: stock movements in, what every channel may sell out."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import KeyedStream
from bytewax.outputs import Sink

from operators.lane_step import LaneMaking, run_lanes
from operators.route import Item
from schemas.outputs import LaneResult

RecordT = TypeVar("RecordT")


class Sinks(NamedTuple):
    """Where results go; every item is keyed by its lane's number as text. Records come as such, or encoded."""

    redis: Sink[tuple[str, LaneResult]]
    availability: Sink[tuple[str, list[Any]]]
    thresholds: Sink[tuple[str, list[Any]]]
    divergences: Sink[tuple[str, list[Any]]]
    reservations: Sink[tuple[str, list[Any]]]
    replenishments: Sink[tuple[str, list[Any]]]
    shadow: Sink[tuple[str, list[Any]]]
    dead_letters: Sink[tuple[str, list[Any]]]


def availability_flow(movements: Source[Item], sinks: Sinks, making: LaneMaking) -> Dataflow:
    """Movements ─▶ lanes ─▶ Redis · availability · thresholds · divergences · reservations · … · dead letters."""
    flow = Dataflow("availability")
    items = op.input("movements", flow, movements)
    results = run_lanes("lane", items, making)
    op.output("redis", results, sinks.redis)
    op.output("availability", pick("changed", results, "changed"), sinks.availability)
    op.output("thresholds", pick("crossed", results, "thresholds"), sinks.thresholds)
    op.output("divergences", pick("diverged", results, "divergences"), sinks.divergences)
    op.output("reservations", pick("answered", results, "reservations"), sinks.reservations)
    op.output("replenishments", pick("proposed", results, "replenishments"), sinks.replenishments)
    op.output("shadow", pick("compared", results, "shadow"), sinks.shadow)
    op.output("dead_letters", pick("refused", results, "dead_letters"), sinks.dead_letters)
    return flow


def pick(step_id: str, results: KeyedStream[LaneResult], field: str) -> KeyedStream[list[Any]]:
    """The records that `results` hold in `field`, still keyed by lane; refills are left out.

    Empty lists, too, but in a new epoch: a sink that slept through it would go on from the state of a run that died.
    """

    def picked(batch: list[tuple[str, LaneResult]]) -> Iterable[tuple[str, list[Any]]]:
        return [
            (lane, records)
            for lane, result in batch
            if not result.is_refill and ((records := getattr(result, field)) or result.woken)
        ]

    return op.flat_map_batch(step_id, results, picked)
