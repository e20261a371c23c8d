"""Running: a dataflow in this process until its sources end."""

from datetime import timedelta

from bytewax.dataflow import Dataflow
from bytewax.run import cli_main


def run_flow(flow: Dataflow, *, snapshot_seconds: float) -> None:
    """Run `flow` with one worker; what a step raises comes as the cause of a BytewaxRuntimeError."""
    cli_main(flow, epoch_interval=timedelta(seconds=snapshot_seconds))  # type: ignore[no-untyped-call]  # as Bytewax has it
