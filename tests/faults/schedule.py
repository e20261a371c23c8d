"""What happens in one run of the campaign, drawn from its seed alone: the flow, its load, and its faults in order."""

import random
from typing import Final, Literal

import msgspec

from tests.faults.hooks.sitecustomize import KINDS, POINTS
from tests.faults.load import LoadPlan, draw_load

FaultKind = Literal[
    "marked point",
    "redis flushed",
    "worker killed",
    "rescale",
    "kafka killed",
    "worker frozen",
    "redis killed",
    "drain",
    "supervisor killed",
    "all workers killed",
    "redis network",
    "redis read-only",
    "store damaged",
    "redis full",
    "kafka network",
    "disk full",
    "redis emptied by a restart",
    "kafka frozen",
    "redis frozen",
]
FAULTS: Final[tuple[FaultKind, ...]] = FaultKind.__args__  # type: ignore[attr-defined]  # of a Literal
RESTARTS: Final = frozenset({"drain", "rescale", "supervisor killed", "store damaged", "disk full"})
STORE: Final = frozenset({"store damaged", "disk full"})
SELDOM: Final = frozenset({"kafka killed", "worker frozen", *STORE})  # slow: only as the first fault of a seed
SLOW_PER_SECOND: Final = 200  # a load that can be read in small pieces, too
Damage = Literal["header", "pages", "deleted part", "deleted description"]
DAMAGES: Final[tuple[Damage, ...]] = Damage.__args__  # type: ignore[attr-defined]
OF_BASES: Final = ("base", "forget")  # points that only a flow with bases passes
MARKED: Final = tuple(f"{point}_{kind}" for point in POINTS for kind in KINDS)


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault, `after_seconds` of calm; which of the other fields count depends on its kind."""

    kind: FaultKind
    after_seconds: float
    seconds: float = 0.0  # how long it lasts, where it lasts
    rounds: int = 1  # how often it strikes, `pauses` apart
    pauses: tuple[float, ...] = ()
    points: tuple[str, ...] = ()  # armed together, each "<point>_<before or after>:<calls until it strikes>"
    workers: tuple[int, ...] = ()  # after each start
    worker_killed_meanwhile: bool = False
    rules_change: bool = False  # the file is another one at the next start
    damage: Damage = "header"
    delay_seconds_max: float = 0.0
    drop_share: float = 0.0
    reset_share: float = 0.0


SNAPSHOT_SECONDS_A_WORKER: Final = 0.2  # many processes that do nothing but snapshots leave two cores no time to heal


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """All that a seed decides."""

    seed: int
    only: FaultKind | None
    workers: int
    snapshot_seconds: float
    lanes: int
    fetch_bytes: int  # at most, of one partition; 0: as librdkafka has it. Small: what is read again comes in pieces
    load: LoadPlan
    rules_pushed: bool  # by the command, while it runs
    bases: bool  # lanes are kept as bases and changes, as those of a large calm state are
    faults: tuple[Fault, ...]


def draw(seed: int, only: FaultKind | None = None) -> Schedule:
    """The schedule of a seed: its first fault goes round with the seeds, so that each is met as often; `only` that."""
    chance = random.Random(seed)
    first = FAULTS[seed % len(FAULTS)] if only is None else only
    others = [kind for kind in FAULTS if kind not in SELDOM]
    kinds = [first]
    kinds += [chance.choice(others) if only is None else only for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
    if first in SELDOM:
        kinds = kinds[:2] if only is None else kinds[:1]
    chance.shuffle(kinds)
    plan = draw_load(chance)
    workers = chance.choice((1, 2, 2, 2, 3))
    snapshot_seconds = chance.uniform(0.2, 1.0)
    lanes = chance.choice((8, 16, 64))
    fetch_bytes = chance.choice((0, 4000)) if plan.messages_per_second <= SLOW_PER_SECOND else 0
    rules_pushed = chance.random() < 0.2  # a fifth
    bases = chance.random() < 0.5  # a half,
    faults = tuple(_fault(kind, chance) for kind in kinds)
    points = [point for fault in faults for point in fault.points]
    bases |= any(point.startswith(OF_BASES) for point in points)  # which else would never strike
    most = max((workers, *(number for fault in faults for number in fault.workers)))
    return Schedule(
        seed=seed,
        only=only,
        workers=workers,
        snapshot_seconds=round(max(snapshot_seconds, most * SNAPSHOT_SECONDS_A_WORKER), 2),
        lanes=lanes,
        load=plan,
        fetch_bytes=fetch_bytes,
        rules_pushed=rules_pushed,
        bases=bases,
        faults=faults,
    )


def slowed(schedule: Schedule, times: float) -> Schedule:
    """The same for a machine that takes so many times as long: fewer records a second, and epochs further apart.

    Without it a machine that is slower than the load heals from nothing, because it was never well.
    """
    rate = max(1, round(schedule.load.messages_per_second / times))
    load = msgspec.structs.replace(schedule.load, messages_per_second=rate)
    return msgspec.structs.replace(schedule, load=load, snapshot_seconds=round(schedule.snapshot_seconds * times, 2))


def _fault(kind: FaultKind, chance: random.Random) -> Fault:
    plain = Fault(
        kind=kind,
        after_seconds=round(chance.uniform(0.3, 2.5), 2),
        rules_change=kind in RESTARTS and chance.random() < 0.4,
        worker_killed_meanwhile=kind.startswith(("redis", "kafka")) and chance.random() < 0.4,
    )
    match kind:
        case "worker killed" | "all workers killed" | "supervisor killed":
            rounds = chance.choice((1, 1, 2, 3))
            pauses = tuple(round(chance.uniform(0.0, 3.0), 2) for _ in range(rounds - 1))
            return msgspec.structs.replace(plain, rounds=rounds, pauses=pauses)
        case "marked point":
            points = tuple(_point(chance) for _ in range(chance.choice((1, 2, 2, 3))))
            return msgspec.structs.replace(plain, points=points)
        case "rescale":
            return msgspec.structs.replace(plain, workers=chance.choice(((4, 2), (1, 4, 2), (3, 1), (2, 5))))
        case "store damaged":
            return msgspec.structs.replace(plain, damage=chance.choice(DAMAGES))
        case "redis network" | "kafka network":
            return _weather(plain, chance)
        case _:
            return msgspec.structs.replace(plain, seconds=round(chance.uniform(0.2, 4.0), 2))


def _point(chance: random.Random) -> str:
    """Snapshots come a few times a second, writes far more often."""
    marked = chance.choice(MARKED)
    often = marked.startswith(("redis", "produce", "lane"))
    return f"{marked}:{chance.choice((1, 2, 3, 8, 40) if often else (1, 2, 3, 5, 8))}"


def _weather(plain: Fault, chance: random.Random) -> Fault:
    slow, deaf, broken = chance.choice(((0.05, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.02), (0.02, 0.005, 0.01)))
    return msgspec.structs.replace(
        plain, seconds=round(chance.uniform(2.0, 5.0), 2),
        delay_seconds_max=slow, drop_share=deaf, reset_share=broken,
    )  # fmt: skip
