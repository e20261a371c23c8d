"""Starts a worker of a flow; apart from it, because looks for garbage are put off before it is loaded."""

import sys

from cli.loading import loading


def main(arguments: list[str]) -> int:
    """Load a worker, and run it; returns its exit code."""
    with loading():
        from cli.worker import main as work
        from operators.lane import warm_up

        warm_up()
    return work(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
