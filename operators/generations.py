"""Generations: the rules that each partition goes by, and how a change of them is put together from its records."""

from typing import Any, Final, NamedTuple

import msgspec

from operators.rules import RuleBook
from schemas.movements import Reason, Refusal, RulesChanged
from schemas.rule_changes import NO_RULES

FIRST_GENERATION: Final = 1


class InForce(NamedTuple):
    """The rules of one partition; `of_file` until the log has said something."""

    generation: int
    book: RuleBook
    of_file: bool


class _Assembly(NamedTuple):
    """The pieces of a change that have arrived."""

    generation: int
    since: int
    parts: int
    pieces: list[str]

    def continues_with(self, record: RulesChanged) -> bool:
        """Whether `record` is the next piece."""
        mine = (self.generation, self.since, self.parts, len(self.pieces) + 1)
        return mine == (record.generation, record.since, record.parts, record.part)


class Generations:
    """The rules in force of each origin; origins are dense row numbers."""

    def __init__(self, first: RuleBook) -> None:
        self._first = first
        self.first = InForce(FIRST_GENERATION, first, of_file=True)
        self._in_force: list[InForce] = []
        self._assemblies: dict[int, _Assembly] = {}

    def add_origin(self) -> None:
        """A new origin, which begins with the rules of the file."""
        self._in_force.append(self.first)

    def __len__(self) -> int:
        return len(self._in_force)

    def __getitem__(self, origin: int) -> InForce:
        return self._in_force[origin]

    def take(self, origin: int, record: RulesChanged) -> InForce | Refusal | None:
        """The rules in force before, where `record` brings others in force; why it may not; None: nothing changes."""
        patch = self._whole(origin, record)
        if patch is None or isinstance(patch, Refusal):
            return patch
        before = self._in_force[origin]
        if record.generation < before.generation:
            return _refused(f"generation {record.generation} came after generation {before.generation}")
        if record.since not in (NO_RULES, before.generation):
            return _refused(f"builds on generation {record.since}, but {before.generation} is in force here")
        book = before.book.changed_by(patch, is_complete=record.since == NO_RULES)
        if isinstance(book, str):
            return _refused(book)
        changes = book.digest != before.book.digest
        if record.generation == before.generation and changes and not before.of_file:
            return _refused(f"generation {record.generation} has other rules already")
        after = book if changes else before.book
        self._in_force[origin] = InForce(record.generation, after, of_file=False)
        return before if changes else None

    def dump(self) -> list[Any]:
        """Per origin, in their order: generation, whose it is, the document, and what has arrived of a change."""
        return [
            [rules.generation, rules.of_file, rules.book.document, self._assemblies.get(origin)]
            for origin, rules in enumerate(self._in_force)
        ]

    def load(self, dumped: list[Any]) -> None:
        """Replaces everything."""
        self._in_force, self._assemblies = [], {}
        for origin, (generation, of_file, document, assembly) in enumerate(dumped):
            book = self._first.stored(document)
            self._in_force.append(InForce(generation, book, of_file))
            if assembly is not None:
                self._assemblies[origin] = _Assembly(*assembly)

    def _whole(self, origin: int, record: RulesChanged) -> dict[str, Any] | Refusal | None:
        """The patch, once its last piece is there; None before."""
        if record.part > record.parts:
            return _refused(f"part {record.part} of {record.parts}")
        if record.parts == 1:
            self._assemblies.pop(origin, None)
            return _patch_in(bytes(record.changes))
        piece = _piece_in(record)
        if piece is None:
            return _refused("changes of a part must be text")
        assembly = self._assemblies.get(origin)
        if record.part == 1:
            assembly = self._assemblies[origin] = _Assembly(record.generation, record.since, record.parts, [])
        elif assembly is None or not assembly.continues_with(record):
            return _refused(f"part {record.part} of {record.parts} does not follow the part before it")
        assembly.pieces.append(piece)
        if record.part < record.parts:
            return None
        del self._assemblies[origin]
        return _patch_in("".join(assembly.pieces).encode())


def _piece_in(record: RulesChanged) -> str | None:
    try:
        return msgspec.json.decode(record.changes, type=str)
    except msgspec.ValidationError:
        return None


def _patch_in(text: bytes) -> dict[str, Any] | Refusal:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _refused(f"changes are no JSON object: {error}")


def _refused(detail: str) -> Refusal:
    return Refusal(Reason.BAD_RULES, detail)
