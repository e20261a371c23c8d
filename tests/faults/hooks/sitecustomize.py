"""Loaded by Python itself in every process of a flow under test: strikes at marked points, counts what is read again.

The product knows nothing of it: the campaign puts this folder on PYTHONPATH. All it needs stands in one folder, named
by ONHAND_FAULTS_FOLDER (no setting has such a name: settings have `__` in theirs): `cells`, numbers shared by all
processes and the campaign; `struck-N`, made by the process that a marked point has struck; `read-again.jsonl`, a
line for each partition that a process begins to read; `bases-named`, made by the first process that keeps a lane as
changes since a base; `problems`, what could not be wrapped.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = "ONHAND_FAULTS_FOLDER"
PARTITIONS_MAX = 64
ARMED_MAX = 16
CELL_BYTES = 8
ARMED, DISARMED = 1, 2  # of a cell; 0: nothing has been armed there
CELLS_BYTES = (PARTITIONS_MAX + ARMED_MAX) * CELL_BYTES
KINDS = ("before", "after")
POINTS = {  # a marked point: module, class, method
    "redis": ("sinks.redis_pipeline", "RedisPipeline", "_put"),
    "settle": ("sinks.redis_availability", "_Slot", "snapshot"),
    "produce": ("sinks.kafka", "KafkaOutput", "produce"),
    "flush": ("sinks.kafka", "KafkaOutput", "flush"),
    "lane": ("operators.lane_step", "LaneLogic", "snapshot"),
    "source": ("sources.kafka", "_Slot", "snapshot"),
    "base": ("flows.bases", "FileBases", "_write"),
    "forget": ("flows.bases", "FileBases", "_remove_others"),
}
SOURCE = "sources.kafka"
KEEPING = "operators.keeping"
BASES = "ONHAND_FAULTS_BASES"  # where it is set, lanes are kept as bases and changes, however small they are


class Cells:
    """Numbers in a file that all processes of a flow map: next offsets by partition, then what is armed.

    What is armed is a text `<point>_<before or after>:<calls>` in a file `armed-N`, and N's cell is ARMED from then on.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "cells"
        if not path.exists():
            path.write_bytes(bytes(CELLS_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CELLS_BYTES)

    def __getitem__(self, index: int) -> int:
        return int(struct.unpack_from("<q", self._memory, index * CELL_BYTES)[0])

    def __setitem__(self, index: int, value: int) -> None:
        struct.pack_into("<q", self._memory, index * CELL_BYTES, value)


class Striking:
    """Kills this process by SIGKILL at the n-th call of a marked point, once among all processes."""

    def __init__(self, folder: Path, cells: Cells) -> None:
        self._folder = folder
        self._cells = cells
        self._left: dict[int, tuple[str, int]] = {}  # by number: where, and after how many calls

    def at(self, where: str) -> None:
        """A marked point is passed."""
        for number in range(ARMED_MAX):
            state = self._cells[PARTITIONS_MAX + number]
            if state == 0:
                return  # they are armed in turn
            if state == DISARMED:
                continue
            armed, calls = self._left.get(number) or self._read(number)
            if armed == where:
                self._left[number] = armed, calls - 1
                if calls == 1:
                    self._strike(number)

    def _read(self, number: int) -> tuple[str, int]:
        armed, calls = (self._folder / f"armed-{number}").read_text().split(":")
        self._left[number] = armed, int(calls)
        return self._left[number]

    def _strike(self, number: int) -> None:
        try:
            marker = os.open(self._folder / f"struck-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(marker, f"{time.time()} {os.getpid()}".encode())
        os.kill(os.getpid(), signal.SIGKILL)


class Wrapping(importlib.abc.MetaPathFinder):
    """Wraps methods of modules right after these are imported, whenever that is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cells = Cells(folder)
        self._striking = Striking(folder, self._cells)
        self._modules = {module for module, _, _ in POINTS.values()} | ({KEEPING} if BASES in os.environ else set())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as if this was not here, with a loader that wraps afterwards."""
        if fullname not in self._modules:
            return None
        self._modules.discard(fullname)  # or the search below would come here again
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        spec.loader.exec_module = self._wrapping(spec.loader.exec_module, fullname)  # type: ignore[method-assign, assignment]
        return spec

    def _wrapping(self, load: Callable[[ModuleType], None], fullname: str) -> Callable[[ModuleType], None]:
        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            for point, (name, class_, method) in POINTS.items():
                if name == fullname:
                    self._try(self._mark_point, module, point, class_, method)
            if fullname == SOURCE:
                self._try(self._count_reading, module)
            if fullname == KEEPING:
                self._try(self._prefer_bases, module)

        return load_and_wrap

    def _try(self, wrap: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401  # of either kind
        try:
            wrap(*arguments)
        except AttributeError as error:
            with (self._folder / "problems").open("a") as problems:
                problems.write(f"{error}\n")

    def _mark_point(self, module: ModuleType, point: str, class_: str, method: str) -> None:
        owner = getattr(module, class_)
        plain = getattr(owner, method)
        at = self._striking.at
        before, after = (f"{point}_{kind}" for kind in KINDS)

        @functools.wraps(plain)
        def marked(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # whatever the method takes and returns
            at(before)
            result = plain(*arguments, **named)
            at(after)
            return result

        setattr(owner, method, marked)

    def _prefer_bases(self, module: ModuleType) -> None:
        keeping, small = module.Keeping, module.Limits(base_bytes_min=0, share=8.0, cost_max=20_000)
        make, blob, marker = keeping.__init__, keeping._blob, self._folder / "bases-named"  # noqa: SLF001

        @functools.wraps(make)
        def made(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # all that a lane is kept with
            given = inspect.signature(make).bind(self, *arguments, **named)
            given.arguments["limits"] = small
            make(*given.args, **given.kwargs)

        def named(self: Any, changes: Any) -> Any:  # noqa: ANN401  # a lane's changes, a blob
            marker.touch()
            return blob(self, changes)

        keeping.__init__, keeping._blob = made, named  # noqa: SLF001

    def _count_reading(self, module: ModuleType) -> None:
        slot = module._Slot  # noqa: SLF001  # the one place that knows where reading goes on
        take, batch, cells, folder = slot._take, slot._batch, self._cells, self._folder  # noqa: SLF001

        def taken(self: Any, positions: dict[int, int]) -> None:  # noqa: ANN401  # a slot
            now = time.time()
            lines = [
                json.dumps(
                    {"at": now, "pid": os.getpid(), "partition": partition, "from": offset, "read": cells[partition]}
                )
                for partition, offset in positions.items()
                if partition < PARTITIONS_MAX
            ]
            if lines:
                with (folder / "read-again.jsonl").open("a") as out:
                    out.write("\n".join(lines) + "\n")
            take(self, positions)

        def made(self: Any, partition: int, messages: Any) -> Any:  # noqa: ANN401  # a slot, messages, a batch
            found = batch(self, partition, messages)
            if partition < PARTITIONS_MAX:
                cells[partition] = max(cells[partition], found.offsets[-1] + 1)
            return found

        slot._take, slot._batch = taken, made  # noqa: SLF001


if FOLDER in os.environ:
    sys.meta_path.insert(0, Wrapping(Path(os.environ[FOLDER])))
