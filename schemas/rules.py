"""Business rules as planners write them in rules.toml, and everything that is wrong or odd about them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from schemas.complaints import Complaint, Document, Path, readable, table_from, unknown_tables
from schemas.movements import QUANTITY_MAX, AnyFact, name_fault
from schemas.times import duration_ms

Units = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Days = Annotated[float, msgspec.Meta(ge=0, le=3650)]
Duration = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(ms|s|m|h|d)$")]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
ACCOUNT_SEPARATOR = "/"  # `b2b/acme` is an account of the channel `b2b`
FACT_KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in AnyFact.__args__)


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """A table of the file; a key that it does not know is an error."""


class LocationRules(Table, frozen=True):
    """A warehouse, store or supplier; `safety_units` of each SKU stay there unsold.

    With `low_stock_at` its positions have levels of their own (suppliers always have, from 9 units on).
    """

    kind: Literal["warehouse", "store", "supplier"] = "warehouse"
    safety_units: Units = 0
    low_stock_at: Units | None = None
    stale_after: Duration | None = None


class ChannelRules(Table, frozen=True):
    """What a channel may sell where nothing more particular is said; `locations` None: all that are no suppliers."""

    locations: tuple[str, ...] | None = None
    priority: int = 0
    share_percent: Percent = 100
    safety_units: Units = 0
    safety_percent: Percent = 0
    low_stock_at: Units = 0
    recovered_at: Units | None = None
    cap_units: Units | None = None
    backorder_units: Units = 0
    commitment_only: bool = False
    sell: bool = True


class Rule(Table, frozen=True):
    """An exception for one SKU, one category or (with a location alone) every SKU there: what is None stays as it was.

    With a `location`, `safety_units` and `low_stock_at` are that position's; without, they are the channel's (every
    channel's, where none is named). When and how much to buy is said of positions: of the location, or of all.
    """

    sku: str | None = None
    category: str | None = None
    channel: str | None = None
    location: str | None = None
    share_percent: Percent | None = None
    safety_units: Units | Literal["dynamic"] | None = None
    safety_percent: Percent | None = None
    low_stock_at: Units | None = None
    recovered_at: Units | None = None
    cap_units: Units | None = None
    backorder_units: Units | None = None
    commitment_only: bool | None = None
    sell: bool | None = None
    lead_time_days: Days | None = None
    lead_time_sigma_days: Days | None = None
    review_days: Days | None = None
    service_level_percent: Annotated[float, msgspec.Meta(gt=0, lt=100)] | None = None
    pack_units: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] | None = None
    minimum_units: Units | None = None
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class SourceRules(Table, frozen=True):
    """What a source system may say, where, and how much its word weighs."""

    kinds: tuple[str, ...] | None = None
    locations: tuple[str, ...] | None = None
    authority: int = 0
    corrects: bool = False
    tolerance_units: Units = 0
    tolerance_percent: Percent = 0
    grace: Duration = "0s"


class ReplenishmentRules(Table, frozen=True):
    """When to propose a purchase, and how much."""

    lead_time_days: Days = 7
    lead_time_sigma_days: Days = 0
    review_days: Days = 1
    service_level_percent: Annotated[float, msgspec.Meta(gt=0, lt=100)] = 95
    pack_units: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] = 1
    minimum_units: Units = 1


class CategoryFile(Table, frozen=True):
    """A CSV of `sku,category` lines beside rules.toml."""

    file: str


class Rules(Table, frozen=True):
    """Everything that rules.toml may say; `categories` map a name to SKUs, where `*` stands for anything."""

    locations: dict[str, LocationRules] = {}
    channels: dict[str, ChannelRules] = {}
    rules: tuple[Rule, ...] = ()
    categories: dict[str, tuple[str, ...] | CategoryFile] = {}
    sources: dict[str, SourceRules] = {}
    replenishment: ReplenishmentRules | None = None


CHANNEL_FIELDS = (
    "share_percent", "safety_units", "safety_percent", "low_stock_at", "recovered_at", "cap_units",
    "backorder_units", "commitment_only", "sell",
)  # fmt: skip
LOCATION_FIELDS = ("safety_units", "low_stock_at")
REPLENISHMENT_FIELDS = tuple(field.name for field in msgspec.structs.fields(ReplenishmentRules))
STALE_AFTER_MS_MIN = 2000
_TableT = TypeVar("_TableT", bound=Table)


def rules_from(document: Document) -> tuple[Rules, list[Complaint]]:
    """The rules of a file, and all complaints; a caller that got an error must not run with them."""
    complaints: list[Complaint] = []
    known = {field.name: field.type for field in msgspec.structs.fields(Rules)}
    complaints.extend(unknown_tables(document, known))
    rules = Rules(
        locations=_named_tables(document, "locations", LocationRules, complaints),
        channels=_named_tables(document, "channels", ChannelRules, complaints),
        rules=_exceptions(document, complaints),
        categories=_categories(document, complaints),
        sources=_named_tables(document, "sources", SourceRules, complaints),
        replenishment=_replenishment(document, complaints),
    )
    if not any(complaint.severity == "error" for complaint in complaints):
        complaints.extend(_oddities(rules, document))
    return rules, sorted(complaints, key=lambda complaint: complaint.line or 0)


def category_members(name: str, text: str) -> tuple[tuple[str, ...], list[tuple[int, str]]]:
    """The SKUs of category `name` in a CSV text of `sku,category` lines, and (line, fault) of lines that are none."""
    members: list[str] = []
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        sku, comma, category = (part.strip() for part in line.partition(","))
        if not line.strip() or (number == 1 and (sku, category) == ("sku", "category")):
            continue
        if not comma or name_fault(sku) or not category:
            faults.append((number, "must be sku,category"))
        elif category == name:
            members.append(sku)
    return tuple(members), faults


def _named_tables(
    document: Document, name: str, type_: type[_TableT], complaints: list[Complaint]
) -> dict[str, _TableT]:
    """`[channels.web]` and its like, by name."""
    tables = document.values.get(name, {})
    if not isinstance(tables, dict):
        complaints.append(document.complaint((name,), f"must be tables: [{name}.<name>]"))
        return {}
    return {key: table_from(document, (name, key), values, type_, complaints) for key, values in tables.items()}


def _exceptions(document: Document, complaints: list[Complaint]) -> tuple[Rule, ...]:
    tables = document.values.get("rules", [])
    if not isinstance(tables, list):
        complaints.append(document.complaint(("rules",), "must be an array of tables: [[rules]]"))
        return ()
    return tuple(
        table_from(document, ("rules", index), values, Rule, complaints) for index, values in enumerate(tables)
    )


def _categories(document: Document, complaints: list[Complaint]) -> dict[str, tuple[str, ...] | CategoryFile]:
    tables = document.values.get("categories", {})
    if not isinstance(tables, dict):
        complaints.append(document.complaint(("categories",), "must be a table: [categories]"))
        return {}
    categories: dict[str, tuple[str, ...] | CategoryFile] = {}
    for name, value in tables.items():
        try:
            categories[name] = members = msgspec.convert(value, tuple[str, ...] | CategoryFile)
        except msgspec.ValidationError as error:
            complaints.append(document.complaint(("categories", name), readable(error)))
            continue
        if isinstance(members, tuple):
            faults = ((member, name_fault(member)) for member in members)
            complaints.extend(
                document.complaint(("categories", name), f"{member!r} {fault}") for member, fault in faults if fault
            )
    return categories


def _replenishment(document: Document, complaints: list[Complaint]) -> ReplenishmentRules | None:
    values = document.values.get("replenishment")
    if values is None:
        return None
    return table_from(document, ("replenishment",), values, ReplenishmentRules, complaints)


def _oddities(rules: Rules, document: Document) -> Iterator[Complaint]:
    """What makes no sense although each table is well formed."""
    yield from _odd_names(rules, document)
    for name, channel in rules.channels.items():
        yield from _odd_channel(rules, document, ("channels", name), channel)
    yield from _odd_shares(rules, document)
    for index, rule in enumerate(rules.rules):
        yield from _odd_exception(rules, document, ("rules", index), rule)
    for name, source in rules.sources.items():
        for kind in source.kinds or ():
            if kind not in FACT_KINDS:
                yield document.complaint(("sources", name, "kinds"), f"unknown kind {kind!r}")
        yield from _unknown_locations(rules, document, ("sources", name, "locations"), source.locations)
    for name, location in rules.locations.items():
        if location.stale_after is not None and duration_ms(location.stale_after) < STALE_AFTER_MS_MIN:
            yield document.complaint(("locations", name, "stale_after"), "must be at least 2s")


def _odd_names(rules: Rules, document: Document) -> Iterator[Complaint]:
    if not rules.channels:
        yield Complaint("error", None, "channels", "there is no channel: nothing could be sold")
    for table, names in (("channels", rules.channels), ("locations", rules.locations)):
        for name in names:
            if fault := name_fault(name):
                yield document.complaint((table, name), f"the name {fault}")


def _odd_channel(rules: Rules, document: Document, path: Path, channel: ChannelRules) -> Iterator[Complaint]:
    if channel.locations == ():
        yield document.complaint((*path, "locations"), "a channel without locations can sell nothing")
    if channel.locations is not None and len(set(channel.locations)) < len(channel.locations):
        yield document.complaint((*path, "locations"), "names a location twice")
    yield from _unknown_locations(rules, document, (*path, "locations"), channel.locations)
    if channel.recovered_at is not None and channel.recovered_at <= channel.low_stock_at:
        yield document.complaint((*path, "recovered_at"), f"must be above low_stock_at ({channel.low_stock_at})")


def _unknown_locations(
    rules: Rules, document: Document, path: Path, names: tuple[str, ...] | None
) -> Iterator[Complaint]:
    for name in names or ():
        if rules.locations and name not in rules.locations:
            yield document.complaint(path, f"location {name!r} has no table of its own: a typing error?", "warning")


def _odd_shares(rules: Rules, document: Document) -> Iterator[Complaint]:
    """Shares limit a channel, they keep nothing for another; above 100 % the same unit is shown twice."""
    selling = {name: rule for name, rule in rules.channels.items() if rule.sell and not rule.commitment_only}
    seen: set[tuple[str, ...]] = set()
    for location in (*rules.locations, None):
        sharing = tuple(name for name, rule in selling.items() if _draws_on(rules, rule, location))
        total = sum(selling[name].share_percent for name in sharing)
        if total > 100 and sharing not in seen:  # noqa: PLR2004  # per cent
            seen.add(sharing)
            yield document.complaint(
                ("channels", sharing[-1], "share_percent"),
                f"{', '.join(sharing)} share locations and show {total} % of them: one unit may be shown to several",
                "warning",
            )


def _draws_on(rules: Rules, channel: ChannelRules, location: str | None) -> bool:
    """Whether `channel` sells from `location`; None stands for one without a table of its own."""
    if channel.locations is not None:
        return location in channel.locations
    return location is None or rules.locations[location].kind != "supplier"


def _odd_exception(rules: Rules, document: Document, path: Path, rule: Rule) -> Iterator[Complaint]:
    if rule.sku is not None and rule.category is not None:
        yield document.complaint(path, "must not name both a sku and a category")
    if rule.sku is None and rule.category is None and rule.location is None:
        yield document.complaint(path, "must name a sku, a category or a location")
    if rule.sku is not None and (fault := name_fault(rule.sku)):
        yield document.complaint((*path, "sku"), fault)
    if rule.sku is not None and "*" in rule.sku:
        yield document.complaint((*path, "sku"), "stands for this one SKU: * is no pattern here", "warning")
    if rule.category is not None and rule.category not in rules.categories:
        yield document.complaint((*path, "category"), f"unknown category {rule.category!r}")
    if rule.channel is not None and rule.channel not in rules.channels:
        yield document.complaint((*path, "channel"), f"unknown channel {rule.channel!r}")
    if rule.channel is not None and rule.location is not None:
        yield document.complaint(path, "must not name both a channel and a location")
    if rule.valid_from and rule.valid_to and rule.valid_to <= rule.valid_from:
        yield document.complaint((*path, "valid_to"), "must lie after valid_from")
    yield from _odd_exception_fields(rules, document, path, rule)


def _odd_exception_fields(rules: Rules, document: Document, path: Path, rule: Rule) -> Iterator[Complaint]:
    given = {field for field in Rule.__struct_fields__ if getattr(rule, field) is not None}
    if rule.channel is not None:
        for field in REPLENISHMENT_FIELDS:
            if field in given:
                yield document.complaint((*path, field), "belongs to positions, not to a channel")
    if rule.location is not None:
        yield from _unknown_locations(rules, document, (*path, "location"), (rule.location,))
        for field in sorted(given & set(CHANNEL_FIELDS) - set(LOCATION_FIELDS)):
            yield document.complaint((*path, field), "belongs to a channel, not to a location")
    if rule.recovered_at is not None and rule.low_stock_at is not None and rule.recovered_at <= rule.low_stock_at:
        yield document.complaint((*path, "recovered_at"), f"must be above low_stock_at ({rule.low_stock_at})")
    if not given & {*CHANNEL_FIELDS, *REPLENISHMENT_FIELDS}:
        yield document.complaint(path, "changes nothing", "warning")
