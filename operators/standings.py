"""Standings: what each channel may sell of a SKU and where it stands with that; few have contracts, or owe units."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from operators.columns import Array, Columns, dump_of
from operators.commitments import Ledger

_STANDING_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "channel": np.int32,
    "level": np.int8,
    "recovered": np.int8,
    "crossed": np.int8,  # 1 after the first crossing
    "sellable": np.int64,
    "promised": np.int64,
}
_STANDING_COLUMNS_DERIVED: Final[dict[str, type[np.generic]]] = {
    "obligation": np.int32,  # row + 1 among the obligations; 0: the channel never had any
}
_OBLIGATION_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "contract": np.int8,  # 1 once the channel has had a commitment
    "committed": np.int64,
    "open": np.int64,
    "drawn": np.int64,
    "overcommitted": np.int64,
    "backordered": np.int64,
}
_OBLIGATION_COLUMNS_DERIVED: Final[dict[str, type[np.generic]]] = {
    "standing": np.int32,
}
_SNAPSHOT_COLUMNS: Final = {**_STANDING_COLUMNS, **_OBLIGATION_COLUMNS}  # side by side, as they once stood in memory


class Standings(Columns):
    """A dense row for each channel of a SKU; what few have takes a row of its own where it is first needed.

    Compiled loops know nothing of obligations: SKUs of which there are any do not go through them.
    """

    def __init__(self) -> None:
        super().__init__(_STANDING_COLUMNS, _STANDING_COLUMNS_DERIVED)
        self._obligations = Columns(_OBLIGATION_COLUMNS, _OBLIGATION_COLUMNS_DERIVED)

    def ledger(self, row: int) -> Ledger | None:
        """The channel's commitment, None where it never had one."""
        obligation, cells = self._obligation(row), self._obligations.cells
        if obligation < 0 or not cells["contract"][obligation]:
            return None
        return Ledger(cells["committed"][obligation], cells["open"][obligation], cells["drawn"][obligation])

    def set_ledger(self, row: int, ledger: Ledger) -> None:
        """Writes the channel's commitment down."""
        obligation = self._add_obligation(row)
        cells = self._obligations.cells
        cells["contract"][obligation] = 1
        cells["committed"][obligation], cells["open"][obligation], cells["drawn"][obligation] = ledger

    def overcommitted(self, row: int) -> int:
        """Units of the channel's open contract stock that it was not granted when it was last looked at."""
        return self._of_obligation(row, "overcommitted")

    def set_overcommitted(self, row: int, units: int) -> None:
        """Writes them down."""
        if units or self._obligation(row) >= 0:
            obligation = self._add_obligation(row)
            self._obligations.cells["overcommitted"][obligation] = units

    def backordered(self, row: int) -> int:
        """Units that the channel owes."""
        return self._of_obligation(row, "backordered")

    def owe(self, row: int, units: int) -> None:
        """The channel owes `units` more, or fewer for negative ones."""
        obligation = self._add_obligation(row)
        self._obligations.cells["backordered"][obligation] += units

    @property
    def obligations(self) -> int:
        """How many standings have had any."""
        return self._obligations.rows

    def with_obligations(self) -> dict[str, Array]:
        """All columns by name, those of obligations 0 where there are none."""
        found = {name: self[name] for name in _STANDING_COLUMNS}
        for name, type_ in _OBLIGATION_COLUMNS.items():
            column = found[name] = np.zeros(self.rows, type_)
            column[self._obligations["standing"]] = self._obligations[name]
        return found

    def dump(self) -> dict[str, Any]:
        """All columns side by side."""
        return dump_of(self.with_obligations())

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Replaces all rows; obligations that are over are gone."""
        both = Columns(_SNAPSHOT_COLUMNS)
        both.load(dumped)
        self.begin(both.rows)
        for name in _STANDING_COLUMNS:
            self[name][:] = both[name]
        standings = np.flatnonzero(np.any([both[name] for name in _OBLIGATION_COLUMNS], axis=0))
        self._obligations.begin(len(standings))
        for name in _OBLIGATION_COLUMNS:
            self._obligations[name][:] = both[name][standings]
        self._obligations["standing"][:] = standings
        self["obligation"][standings] = np.arange(1, len(standings) + 1)

    def _of_obligation(self, row: int, name: str) -> int:
        obligation = self._obligation(row)
        return 0 if obligation < 0 else int(self._obligations.cells[name][obligation])

    def _obligation(self, row: int) -> int:
        """The row of the standing's obligation, −1 where it has none."""
        return int(self.cells["obligation"][row]) - 1

    def _add_obligation(self, row: int) -> int:
        """The row of the standing's obligation, made where it has none."""
        obligation = self._obligation(row)
        if obligation < 0:
            obligation = self._obligations.add_row()
            self._obligations.cells["standing"][obligation] = row
            self.cells["obligation"][row] = obligation + 1
        return obligation
