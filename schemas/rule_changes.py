"""Changes of rules on their way through the log: merge patches between generations, in pieces where they are large."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
from xxhash import xxh3_64_hexdigest

from schemas.complaints import Complaint, Document, Path, dotted
from schemas.movements import RulesChanged
from schemas.rules import Rules, rules_from

PIECE_CHARACTERS_MAX: Final = 12_000  # escaped and in UTF-8 it still fits into a message
PARTS_MAX: Final = 10_000
NO_RULES: Final = 0  # the generation that a complete set builds on

_plain = msgspec.json.Encoder(order="deterministic").encode


class Assembled(NamedTuple):
    """The whole of a change: the generation that it makes, the one it builds on, and the merge patch between them."""

    generation: int
    since: int
    patch: dict[str, Any]


def document_of(rules: Rules) -> dict[str, Any]:
    """`rules` as plain JSON values, without what is as by default; the members of categories are in it."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(rules)))


def digest_of(document: Mapping[str, Any]) -> str:
    """A name for the content of a document; equal content has an equal name."""
    return xxh3_64_hexdigest(_plain(document))


def rules_of_document(document: Mapping[str, Any]) -> tuple[Rules, list[Complaint]]:
    """The rules in a document, and all complaints; with an error among them the rules must not be used."""
    return rules_from(Document(dict(document), {}))


def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes `after` of `before`; neither holds a null."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif before[key] != value:
            both = isinstance(before[key], dict) and isinstance(value, dict)
            patch[key] = patch_between(before[key], value) if both else value
    return patch


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the JSON merge patch `patch` (RFC 7386) applied; neither argument is changed."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result


def records_of(generation: int, since: int, patch: Mapping[str, Any], time: str | None = None) -> list[RulesChanged]:
    """The control records that carry `patch`, in their order; ValueError where it is larger than the log takes."""
    text = msgspec.json.encode(patch).decode()
    if len(text) <= PIECE_CHARACTERS_MAX:
        return [RulesChanged(generation=generation, since=since, changes=msgspec.Raw(text.encode()), time=time)]
    pieces = [text[at : at + PIECE_CHARACTERS_MAX] for at in range(0, len(text), PIECE_CHARACTERS_MAX)]
    if len(pieces) > PARTS_MAX:
        raise ValueError(f"the rules are {len(text):,} characters long, at most {PARTS_MAX * PIECE_CHARACTERS_MAX:,}")
    return [
        RulesChanged(
            generation=generation,
            since=since,
            part=part,
            parts=len(pieces),
            changes=msgspec.Raw(msgspec.json.encode(piece)),
            time=time,
        )
        for part, piece in enumerate(pieces, 1)
    ]


def changed_paths(patch: Mapping[str, Any]) -> Iterable[str]:
    """What a patch touches, as people write it: `channels.web.safety_units`."""
    for key, value in patch.items():
        if isinstance(value, dict) and value:
            yield from (dotted((key, *path)) for path in _leaves(value))
        else:
            yield key


def _leaves(patch: Mapping[str, Any]) -> Iterable[Path]:
    for key, value in patch.items():
        if isinstance(value, dict) and value:
            yield from ((key, *path) for path in _leaves(value))
        else:
            yield (key,)
