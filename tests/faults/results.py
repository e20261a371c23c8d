"""What seeds of a campaign have led to, a line each, so that one that was interrupted goes on where it was."""

from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from tests.faults.schedule import FaultKind
from tests.faults.striking import SeedResult

PRODUCT: Final = ("schemas", "operators", "sources", "sinks", "flows", "cli")
LOCKS: Final = ("requirements.lock",)


class Noted(msgspec.Struct):
    """The result of one seed, of this product, with this fault alone or with all (None)."""

    product: str
    only: FaultKind | None
    result: SeedResult


_decode: Final = msgspec.json.Decoder(Noted).decode


def product_of(checkout: Path) -> str:
    """A digest of all that runs in a flow: code, scripts and the versions of libraries, but no tests and no pages."""
    files = [path for name in PRODUCT for path in (checkout / name).rglob("*") if path.suffix in (".py", ".lua")]
    digest = sha256()
    for path in sorted([*files, *(checkout / name for name in LOCKS)]):
        digest.update(f"{path.relative_to(checkout)}\n".encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def noted(path: Path, product: str, only: FaultKind | None) -> dict[int, SeedResult]:
    """By seed, what was noted before of this product; ValueError where a line is none of ours."""
    found: dict[int, SeedResult] = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            entry = _decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}:{number}: {error}: give another file, or take this line out") from error
        if (entry.product, entry.only) == (product, only):
            found[entry.result.seed] = entry.result
    return found


def note(path: Path, entry: Noted) -> None:
    """Add a line."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")
