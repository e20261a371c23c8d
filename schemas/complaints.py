"""What is wrong with a file that people write, at which line; and the TOML reader that knows its lines."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import msgspec

Path = tuple[str | int, ...]  # keys and, in arrays of tables, indices from 0

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_KEY_PART = re.compile(r"""([A-Za-z0-9_-]+)|"((?:[^"\\]|\\.)*)"|'([^']*)'""")
_AT_LINE = re.compile(r"\(at line (\d+)")


StructT = TypeVar("StructT", bound=msgspec.Struct)


class Complaint(NamedTuple):
    """One thing that is wrong (`error`) or makes no sense (`warning`), at `line` (from 1) where it is known."""

    severity: Literal["error", "warning"]
    line: int | None
    path: str
    message: str


class Document(NamedTuple):
    """A TOML text as plain values, and the line at which each table and key begins."""

    values: dict[str, Any]
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it that has one."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        inside = (line for other, line in self.lines.items() if other[: len(path)] == path)
        return min(inside, default=None)

    def complaint(self, path: Path, message: str, severity: Literal["error", "warning"] = "error") -> Complaint:
        """A complaint about what stands at `path`."""
        return Complaint(severity, self.line_of(path), dotted(path), message)


def dotted(path: Path) -> str:
    """A path as people write it: `channels.web.share_percent`, `rules[2].sku`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_toml(text: str) -> Document | Complaint:
    """The document in `text`, or the complaint about its syntax."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        return Complaint("error", line, "", str(error).partition(" (at ")[0])
    return Document(values, _lines(text))


def table_from(
    document: Document, path: Path, values: object, type_: type[StructT], complaints: list[Complaint]
) -> StructT:
    """The table at `path` as a `type_`, key by key, so that one wrong key hides no other.

    Defaults stand in for what is wrong; each fault is added to `complaints`.
    """
    good: dict[str, Any] = {}
    fields = {field.name: field for field in msgspec.structs.fields(type_)}
    if not isinstance(values, dict):
        complaints.append(document.complaint(path, "must be a table"))
        values = {}
    for key, value in values.items():
        if key not in fields:
            complaints.append(document.complaint((*path, key), f"unknown key; known are {', '.join(fields)}"))
            continue
        try:
            good[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            complaints.append(document.complaint((*path, key), readable(error)))
    return type_(**good)


def unknown_tables(document: Document, known: Iterable[str]) -> Iterator[Complaint]:
    """A complaint about each top-level key that is none of `known`."""
    names = list(known)
    for name in document.values:
        if name not in names:
            yield document.complaint((name,), f"unknown table; known are {', '.join(names)}")


def readable(error: msgspec.ValidationError) -> str:
    """Msgspec's message without its back-ticks."""
    return str(error).replace("`", "")


def _lines(text: str) -> dict[Path, int]:
    """Where each table and key of a valid TOML text begins."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    open_value = _OpenValue()
    for number, line in enumerate(text.split("\n"), 1):  # TOML knows no other ends of lines
        if open_value.goes_on(line):
            continue
        if header := _HEADER.fullmatch(line):
            table = _resolved(_parts(header[2]), counts)
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                table = (*table, index)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(table + _parts(key[1]), number)
            open_value.begins(line[key.end() :])
    return lines


def _parts(dotted_key: str) -> Path:
    return tuple(bare or _unescaped(basic) or literal for bare, basic, literal in _KEY_PART.findall(dotted_key))


def _unescaped(basic: str) -> str:
    """What stands between double quotes, with its escapes resolved."""
    return str(tomllib.loads(f'text = "{basic}"')["text"]) if "\\" in basic else basic


def _resolved(path: Path, counts: dict[Path, int]) -> Path:
    """`path` with the index of the newest element put in behind each array of tables that it goes through."""
    resolved: Path = ()
    for position, part in enumerate(path):
        resolved = (*resolved, part)
        if position < len(path) - 1 and resolved in counts:
            resolved = (*resolved, counts[resolved] - 1)
    return resolved


class _OpenValue:
    """Follows a value over several lines: an array, or a string in three quotes."""

    _TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|[\[\]{}]|#.*')

    _CLOSING: ClassVar = {  # up to two quotes more belong to the string
        '"""': re.compile(r'(?:\\.|[^\\])*?"{3,5}'),
        "'''": re.compile(r".*?'{3,5}"),
    }

    def __init__(self) -> None:
        self._quote = ""
        self._depth = 0

    def begins(self, rest: str) -> None:
        self._follow(rest)

    def goes_on(self, line: str) -> bool:
        """Whether `line` belongs to the value that began before it."""
        if not self._quote and not self._depth:
            return False
        self._follow(line)
        return True

    def _follow(self, text: str) -> None:
        position = 0
        while position < len(text):
            if self._quote:
                end = self._CLOSING[self._quote].match(text, position)
                if end is None:
                    return
                position, self._quote = end.end(), ""
                continue
            token = self._TOKEN.search(text, position)
            if token is None:
                return
            position = token.end()
            if token[0] in ('"""', "'''"):
                self._quote = token[0]
            else:
                self._depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
