"""Rule columns: the rules of SKUs as plain numbers, one class for all SKUs that the same ones concern."""

from typing import Final

import numpy as np

from operators.columns import Array, IndexedNames, Names, record_of
from operators.plain import ABSENT, NO_CAP, NO_LEVEL, RuleColumns
from operators.rules import DYNAMIC, SkuRules
from schemas.rules import ACCOUNT_SEPARATOR

_OF_CHANNEL: Final = (
    "share_percent", "safety_units", "safety_percent", "low_stock_at", "recovered_at", "backorder_units",
    "commitment_only", "sell",
)  # fmt: skip
CLASSES_MAX: Final = 2048  # of a lane, whose columns are made anew with each new one; further SKUs go row by row
CHANNELS_MAX: Final = 512  # of a SKU: what one movement can tell has to fit into what a call may tell
CHANNEL: Final = record_of(
    [
        *((name, np.int64) for name in (*_OF_CHANNEL[:-2], "cap_units")),
        ("channel", np.int32),
        ("shown", np.int8),
        *((name, np.int8) for name in _OF_CHANNEL[-2:]),
    ]
)


class PlainRules:
    """Classes of rules that hold nothing but numbers: no safety stock follows from demand.

    A class is made when it is first asked for, and knows every location. `channels_max` is how many channels a class
    has at most; `moves` counts how often the columns were made anew.
    """

    def __init__(self, locations: IndexedNames, channels: Names) -> None:
        self._locations = locations
        self._channels = channels
        self.forget()

    moves = 0

    def forget(self) -> None:
        """Other rules came into force: all classes are made anew when they are asked for."""
        self._classes: dict[SkuRules, int] = {}
        self._of_class: list[SkuRules] = []
        self.channels_max = 0
        self._columns: RuleColumns | None = None
        self._known_locations = 0
        self.moves += 1

    def class_of(self, resolved: SkuRules) -> int:
        """The class of a SKU with these rules; ABSENT where they follow from more than stock."""
        known = self._classes.get(resolved)
        if known is None:
            is_plain = not _is_dynamic(resolved) and len(resolved.channels) <= CHANNELS_MAX
            is_plain = is_plain and len(self._of_class) < CLASSES_MAX
            known = self._classes[resolved] = self._add(resolved) if is_plain else ABSENT
        return known

    @property
    def columns(self) -> RuleColumns:
        """What holds for each class, at all locations that are known by now."""
        if self._columns is None or self._known_locations < len(self._locations):
            self._columns = self._made()
        return self._columns

    def _add(self, resolved: SkuRules) -> int:
        self._of_class.append(resolved)
        self.channels_max = max(self.channels_max, len(resolved.channels))
        self._columns = None
        return len(self._of_class) - 1

    def _made(self) -> RuleColumns:
        self.moves += 1
        self._known_locations = len(self._locations)
        rules = [rule for resolved in self._of_class for rule in resolved.channels]
        sizes = [len(resolved.channels) for resolved in self._of_class]
        channels = np.zeros(len(rules), CHANNEL)
        channels["channel"] = [self._channels.add(rule.name) for rule in rules]
        channels["shown"] = [
            ACCOUNT_SEPARATOR not in rule.name or rule.name in resolved.named
            for resolved in self._of_class
            for rule in resolved.channels
        ]
        channels["cap_units"] = [NO_CAP if rule.cap_units is None else rule.cap_units for rule in rules]
        for name in _OF_CHANNEL:
            channels[name] = [getattr(rule, name) for rule in rules]
        begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        columns = [self._of_places("safety_units", 0), self._of_places("low_stock_at", NO_LEVEL)]
        places = np.stack([*columns, self._of_places("is_planned", 0)], axis=2)
        planned = np.array([resolved.is_planned for resolved in self._of_class], np.int8)
        return RuleColumns(begins, channels, self._draws(), np.ascontiguousarray(places), planned)

    def _draws(self) -> Array:
        table = [
            [resolved.draws_on(rule, location) for location in self._locations]
            for resolved in self._of_class
            for rule in resolved.channels
        ]
        return np.array(table, np.int8).reshape(len(table), len(self._locations))

    def _of_places(self, field: str, none: int) -> Array:
        table = [
            [
                none if (value := getattr(resolved.at(location), field)) is None else value
                for location in self._locations
            ]
            for resolved in self._of_class
        ]
        return np.array(table, np.int64).reshape(len(table), len(self._locations))


def _is_dynamic(resolved: SkuRules) -> bool:
    return resolved.is_dynamic or any(rule.safety_units == DYNAMIC for rule in resolved.channels)
