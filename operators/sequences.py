"""Sequences: numbers that a source skipped at a position, until they arrive after all."""

from typing import Any, Final

MISSING_MAX: Final = 16
EVIDENCE_MAX: Final = 5


class Sequences:
    """The highest number of each (position, source), and up to 16 lowest missing ones below it."""

    def __init__(self) -> None:
        self._highest: dict[tuple[int, str], int] = {}
        self._missing: dict[int, dict[str, list[int]]] = {}  # by position, then source

    def note(self, position: int, source: str, sequence: int) -> None:
        """`source` has sent `sequence` about `position`; the first one seen begins the count."""
        highest = self._highest.get((position, source))
        if highest is None or sequence > highest:
            self._highest[position, source] = sequence
            if highest is not None and sequence > highest + 1:
                self._skipped(position, source, highest + 1, sequence)
        elif position in self._missing:
            self._arrived(position, source, sequence)

    def evidence(self, position: int) -> list[str]:
        """Up to 5 missing numbers at `position`, by source and number."""
        by_source = self._missing.get(position, {})
        found = [(source, number) for source in sorted(by_source) for number in by_source[source]]
        return [f"sequence {number} of {source} missing" for source, number in found[:EVIDENCE_MAX]]

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "highest": [[*key, value] for key, value in self._highest.items()],
            "missing": [[position, by_source] for position, by_source in self._missing.items()],
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._highest = {(position, source): highest for position, source, highest in dumped["highest"]}
        self._missing = dict(dumped["missing"])

    def _skipped(self, position: int, source: str, first: int, end: int) -> None:
        missing = self._missing.setdefault(position, {}).setdefault(source, [])
        missing.extend(range(first, min(end, first + MISSING_MAX - len(missing))))

    def _arrived(self, position: int, source: str, sequence: int) -> None:
        by_source = self._missing[position]
        if sequence in by_source.get(source, ()):
            by_source[source].remove(sequence)
            if not by_source[source]:
                del by_source[source]
            if not by_source:
                del self._missing[position]
