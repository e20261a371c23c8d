"""Running: a dataflow in this process, alone or as one of a cluster, until its sources end."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main


def run_flow(
    flow: Dataflow,
    *,
    snapshot_seconds: float,
    store: Path | None = None,
    addresses: Sequence[str] = (),
    process: int = 0,
) -> None:
    """Run `flow` with one worker, from what `store` holds; what a step raises comes as the cause of an error.

    With `addresses` it is the one at place `process` of that cluster, whose processes must all start together.
    """
    cluster = {"addresses": list(addresses), "process_id": process} if addresses else {}
    recovery = None if store is None else RecoveryConfig(store)  # type: ignore[no-untyped-call]  # as Bytewax has it
    interval = timedelta(seconds=snapshot_seconds)
    cli_main(flow, epoch_interval=interval, recovery_config=recovery, **cluster)  # type: ignore[no-untyped-call]
