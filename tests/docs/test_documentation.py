"""The documentation says what the code does: its examples are decoded, its tables compared, its names looked up."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
import typer
from redis import Redis
from redis.exceptions import NoPermissionError

from cli.failures import DIFFERENT, DONE, FAILED, INTERRUPTED, MISUSED
from cli.get import LAG_SECONDS_MAX, WRITTEN_SECONDS_MAX
from cli.main import application
from operators.admission import AHEAD_MS_MAX
from operators.causes import UNKNOWN
from operators.commitments import Claim, grants_of
from operators.divergences import AGREES, CORRECTED
from operators.doubts import HEARD, SILENT
from operators.lane import HISTORY_MAX, IDS_PER_SKU_MAX, Lane, LaneSettings
from operators.levels import LEVELS, START, standing_after, threshold_crossed
from operators.plain import KEPT
from operators.pools import pool_of, spare_of
from operators.positions import EFFECTS, QUANTITIES, available_units
from operators.rules import SUPPLIER_LOW_STOCK_AT, RuleBook
from operators.sellable import offer_of, safety_units
from operators.stating import COUNT_TOO_OLD
from operators.windows import DAYS, HOURS
from schemas.batches import Batch, Origin
from schemas.complaints import Complaint, Document, read_toml
from schemas.movements import (
    DEPTH_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    QUANTITY_MAX,
    TEXT_CHARACTERS_MAX,
    AnyControl,
    Decoded,
    Reason,
    Received,
    Refusal,
    Shipped,
    decode,
    encode,
)
from schemas.outputs import DeadLetter, LaneResult, RequestOutcome
from schemas.rules import (
    FACT_KINDS,
    CategoryFile,
    ChannelRules,
    LocationRules,
    ReplenishmentRules,
    Rule,
    Rules,
    SourceRules,
    rules_from,
)
from schemas.settings import Settings, settings_from
from schemas.topics import DEAD_LETTERS, MOVEMENTS, RESERVATIONS, TOPICS
from sinks.kafka import CHECK_SECONDS_MAX, DELIVERY_SECONDS_MAX
from sinks.redis_pipeline import WAIT_SECONDS_MAX, PipelineBounds
from sources.kafka import FIXED_OPTIONS, KafkaReading

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
BENCH_PAGES = (CHECKOUT / "bench" / "README.md", CHECKOUT / "bench" / "peers" / "README.md")
PAGES = (CHECKOUT / "README.md", *BENCH_PAGES, *sorted(DOCS.glob("*.md")))
LINKED_PAGES = (*PAGES, CHECKOUT / "ARCHITECTURE.md", CHECKOUT / "CONTRIBUTING.md")
MARKED_REFUSED = re.compile(r"Refused as `(\w+)`:")
MARKED_ANSWERED = re.compile(r"Answered on `([\w.-]+)`:")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PAGES_OF_RULES = ("rules.md", "reserving.md")
TEST_NAME = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
ABSENT = "none"
MINUS = "−"  # as in the pages' tables
EVERYWHERE = ("--help", "--debug")  # taken by every command
LEFT_OUT = ("MissingParameter", "NoArgsIsHelpError")  # a command named without its arguments
SHELLS = ("console", "sh", "bash")
READING = KafkaReading(bootstrap_servers="", topic="", group="")  # with all defaults
RECEIVED = Received(id="1", source="wms", sku="SKU-1", location="dc-east", quantity=5, time="2026-11-21T09:00:00Z")
SHIPPED = Shipped(id="2", source="wms", sku="SKU-1", location="dc-east", quantity=2, time="2026-11-21T09:00:01Z")
LOG = Origin("cluster", "topic-id", 0, MOVEMENTS.name)
DAY = "2026-11-21"
HOUR_MS = 3_600_000
LIKELY_CAUSES = ("gap", "duplicate_source", "late", "missing_kind")  # as operators/causes.py names them
CHANNEL_SAYS_NO = (
    "HGET stock:SKU-1 web",
    "SET avail:SKU-1 5",
    "HGETALL avail:SKU-1",
    "DEL avail:SKU-1",
    "EVAL return 0",
    "KEYS *",
)


class Block(NamedTuple):
    """A fenced block: its language and text, the line where it begins, the heading and the line above it."""

    page: Path
    line: int
    language: str
    text: str
    heading: str
    above: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield every fenced block of a page."""
    heading = above = fence = ""
    inside: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence and line.strip() == "```":
            yield Block(page, number - len(inside), fence, "\n".join(inside) + "\n", heading, above)
            fence, inside = "", []
        elif fence:
            inside.append(line)
        elif line.startswith("```"):
            fence = line[3:].strip() or "text"
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif line.strip():
            above = line.strip()


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks and comments."""
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def tables_under(page: str, heading: str) -> list[list[list[str]]]:
    """Return the tables of a section, rows of cells, without their heads."""
    section = re.split(rf"^#+ {re.escape(heading)}$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    lines = re.split(r"^#+ ", section, flags=re.MULTILINE)[0].splitlines()
    tables: list[list[list[str]]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|---"):
            tables.append([])
        elif line.startswith("|") and before.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def table_under(page: str, heading: str) -> list[list[str]]:
    """Return the first table of a section."""
    return tables_under(page, heading)[0]


def code_in(text: str) -> str:
    """Return the first code span of a cell, or the cell."""
    found = CODE_SPAN.search(text)
    return found[1] if found else text


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
JSON_BLOCKS = [block for block in ALL_BLOCKS if block.language == "json"]
TOML_BLOCKS = [block for block in ALL_BLOCKS if block.language == "toml"]
RECORD_TOPICS = {topic.name: topic for topic in TOPICS if topic is not MOVEMENTS}


def topic_name(block: Block) -> str:
    """Return the topic whose record a block shows, by its heading or the line above; otherwise something else."""
    answered = MARKED_ANSWERED.fullmatch(block.above)
    return answered[1] if answered else code_in(block.heading)


RECORD_BLOCKS = [block for block in JSON_BLOCKS if topic_name(block) in RECORD_TOPICS]
MOVEMENT_BLOCKS = [block for block in JSON_BLOCKS if block not in RECORD_BLOCKS]


@pytest.mark.parametrize("block", MOVEMENT_BLOCKS, ids=str)
def test_a_movement_example_is_read_as_the_page_says(block: Block) -> None:
    """An example decodes to a record, or is refused for the reason that stands above it."""
    decoded = decode(block.text.encode())
    if marked := MARKED_REFUSED.fullmatch(block.above):
        assert isinstance(decoded, Refusal)
        assert decoded.reason == marked[1]
    else:
        assert isinstance(decoded, Decoded), decoded


def test_every_kind_has_an_example() -> None:
    """Each kind of record, plain or not, is shown on the page about movements."""
    known = {*FACT_KINDS, *(str(kind.__struct_config__.tag) for kind in AnyControl.__args__)}
    shown = {msgspec.json.decode(block.text)["kind"] for block in MOVEMENT_BLOCKS if block.text.startswith("{")}
    assert known - shown == set()


@pytest.mark.parametrize("block", RECORD_BLOCKS, ids=str)
def test_a_record_example_is_read_by_its_topic(block: Block) -> None:
    """An example decodes by the codec of its topic, names no field that is not there, and leaves none out."""
    topic = RECORD_TOPICS[topic_name(block)]
    record = topic.decode(block.text.encode())
    assert msgspec.json.decode(topic.encode(record)) == msgspec.json.decode(block.text)  # type: ignore[arg-type]


def test_the_dead_letter_shown_is_what_its_message_gives() -> None:
    """Reason, detail, source and SKU in the example follow from the message in it."""
    block = next(block for block in RECORD_BLOCKS if topic_name(block) == DEAD_LETTERS.name)
    letter: DeadLetter = DEAD_LETTERS.decode(block.text.encode())
    refusal = decode(b64decode(letter.payload_base64 or ""))
    assert refusal == (letter.reason, letter.detail, letter.source, letter.sku)


def test_every_topic_out_has_an_example() -> None:
    """The page about records shows one of each topic."""
    shown = {code_in(block.heading) for block in RECORD_BLOCKS if block.page.name == "records.md"}
    assert shown == set(RECORD_TOPICS)


@pytest.mark.parametrize("topic", RECORD_TOPICS.values(), ids=lambda topic: topic.name)
def test_the_table_of_topics_names_type_and_configuration(topic: Any) -> None:  # noqa: ANN401  # its records differ
    """The page about records says with which event type and configuration a topic is made."""
    rows = {code_in(row[0]): row for row in table_under("records.md", "Records out")}
    _, _, event_type, config = rows[topic.name]
    assert code_in(event_type) == (topic.event_type or ABSENT)
    assert re.findall(r"`([^`]+)`", config) == [f"{key}={value}" for key, value in topic.config.items()]


def parsed(block: Block) -> Document:
    """Return the document of a toml example."""
    document = read_toml(block.text)
    assert not isinstance(document, Complaint), document
    return document


@pytest.mark.parametrize("block", TOML_BLOCKS, ids=str)
def test_a_toml_example_is_valid(block: Block) -> None:
    """Rules and settings shown are read without a complaint, not even a warning."""
    document = parsed(block)
    complaints = rules_from(document)[1] if block.page.name in PAGES_OF_RULES else settings_from(document, {})[1]
    assert complaints == []


def test_every_reason_is_documented_and_no_other() -> None:
    """The table of refusals is the list of reasons."""
    documented = [code_in(row[0]) for row in table_under("movements.md", "Why a message is refused")]
    assert sorted(documented) == sorted(Reason)


def documented_effects() -> Iterator[tuple[tuple[str, str], dict[str, int]]]:
    """Yield the rows of the table of kinds: (kind, what qualifies it), and the signs of its quantities."""
    signs = {"+": 1, MINUS: -1}
    for kind, qualifier, *cells in table_under("movements.md", "Kinds and what they do"):
        with_ = "named" if qualifier.endswith("named") else "".join(CODE_SPAN.findall(qualifier)[1:])
        yield (
            (code_in(kind), with_),
            {name: signs[cell] for name, cell in zip(QUANTITIES, cells, strict=True) if cell},
        )


def test_the_table_of_kinds_is_the_sign_table() -> None:
    """Every kind and qualifier changes the quantities that the page says, by the signs that it says."""
    known = {
        (str(kind.__struct_config__.tag), qualifier): dict(effect.here) for (kind, qualifier), effect in EFFECTS.items()
    }
    assert dict(documented_effects()) == known


def fields_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the keys of a table and their defaults."""
    return {field.name: _default(field) for field in msgspec.structs.fields(type_)}


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default


def documented_defaults(page: str, heading: str) -> dict[str, Any]:
    """Return the keys of a section's table and the defaults that it shows; `none` is None."""
    rows = next(table for table in tables_under(page, heading) if table)
    return {
        code_in(row[0]): None if row[1] == ABSENT else tomllib.loads(f"value = {code_in(row[1])}")["value"]
        for row in rows
    }


@pytest.mark.parametrize("section", msgspec.structs.fields(Settings), ids=lambda field: str(field.name))
def test_every_setting_is_documented_with_its_default(section: msgspec.structs.FieldInfo) -> None:
    """Each section of onhand.toml has a table with all its keys, no other, and the defaults of the code."""
    assert documented_defaults("configuration.md", f"`[{section.name}]`") == fields_of(section.type)


@pytest.mark.parametrize(
    ("heading", "type_"),
    [
        ("`[locations.<name>]`", LocationRules),
        ("`[channels.<name>]`", ChannelRules),
        ('`[sources."<name>"]`', SourceRules),
        ("`[replenishment]`", ReplenishmentRules),
    ],
)
def test_every_key_of_a_rules_table_is_documented_with_its_default(heading: str, type_: type[msgspec.Struct]) -> None:
    """Each table of rules.toml has a table with all its keys, no other, and the defaults of the code."""
    assert documented_defaults("rules.md", heading) == fields_of(type_)


@pytest.mark.parametrize(("heading", "type_"), [("`[[rules]]`", Rule), ("`[categories]`", CategoryFile)])
def test_every_key_of_an_exception_is_documented(heading: str, type_: type[msgspec.Struct]) -> None:
    """Exceptions have no defaults; all their keys are named, and no other."""
    named = [key for row in table_under("rules.md", heading) for key in CODE_SPAN.findall(row[0])]
    assert sorted(named) == sorted(type_.__struct_fields__)


def test_environment_variables_do_what_the_page_says() -> None:
    """The variables of the page's table are read, the password as librdkafka's option."""
    names = [code_in(row[0]) for row in table_under("configuration.md", "Environment variables")]
    settings, complaints = settings_from(Document({}, {}), dict.fromkeys(names, "x"))
    assert complaints == []
    assert settings.redis.url == "x"
    assert settings.kafka.options == {"sasl.password": "x"}


def slugs_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED_PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that links name."""
    for link in LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in slugs_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_named_exists(page: Path) -> None:
    """A guarantee names tests that are there."""
    for path, name in TEST_NAME.findall(page.read_text(encoding="utf-8")):
        assert name in functions_of(CHECKOUT / path), f"{path}::{name}"


def functions_of(path: Path) -> set[str]:
    """Return the names of all functions in a file, empty where there is none."""
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    "heading",
    [
        "Stock",
        "Counts and statements",
        "Requests and commitments",
        "Rules, silence and demand",
        "Reading a log",
        "Redis",
        "Records out",
        "Operation",
    ],
)
def test_every_guarantee_names_a_test(heading: str) -> None:
    """No row of the tables of guarantees goes without proof."""
    rows = table_under("guarantees.md", heading)
    assert rows
    assert [row[0] for row in rows if not TEST_NAME.search(row[-1])] == []


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield every `onhand …` in a shell block or a code span, with where it stands."""
    for block in ALL_BLOCKS:
        if block.language in SHELLS:
            for line in block.text.splitlines():
                yield str(block), line
    for page in PAGES:
        for span in CODE_SPAN.findall(prose_of(page)):
            yield page.name, span


def words_for_onhand(line: str) -> list[str] | None:
    """Return the arguments of `onhand` in a command line, None where it is another command."""
    words = shlex.split(line, comments=True) if "onhand" in line else []
    while words and ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return words[1:] if words and Path(words[0]).name == "onhand" else None


COMMANDS = sorted({(line, where) for where, line in command_lines() if words_for_onhand(line)})


@pytest.mark.parametrize(("line", "where"), COMMANDS, ids=lambda text: text)
def test_a_command_shown_can_be_given(line: str, where: str) -> None:
    """The command exists and takes the arguments and options that the page shows; it is not run."""
    assert usage_fault(words_for_onhand(line) or []) is None, where


def usage_fault(words: list[str]) -> str | None:
    """Return what `onhand` would say against its arguments; None where nothing, or where some are only left out."""
    words = [word for word in words if word not in EVERYWHERE]
    command: Any = typer.main.get_command(application())
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return f"there is no {words[0]}"
        command = command.commands[words.pop(0)]
    try:
        command.make_context(command.name, words)
    except typer.TyperException as error:
        return None if type(error).__name__ in LEFT_OUT else error.format_message()
    return None


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("concepts.md", f"At most {IDS_PER_SKU_MAX:,} ids are kept per SKU".replace(",", " ")),
        ("concepts.md", f"names: 1 to {NAME_BYTES_MAX} bytes of UTF-8"),
        ("concepts.md", f"holds at most {HISTORY_MAX} changes"),
        ("movements.md", f"nested more than {DEPTH_MAX} deep"),
        ("rules.md", f"a `supplier` with a table that says nothing has {SUPPLIER_LOW_STOCK_AT}."),
        ("movements.md", f"at most {PAYLOAD_BYTES_MAX // 1024} KiB"),
        ("movements.md", f"more than {PAYLOAD_BYTES_MAX:,} bytes".replace(",", " ")),
        ("movements.md", f"whole number, 1 to {QUANTITY_MAX}"),
        ("movements.md", f"text, 1 to {TEXT_CHARACTERS_MAX} characters"),
        ("movements.md", f"more than {AHEAD_MS_MAX // 1000} s past the timestamp"),
        ("reading.md", f"`written_ms` is there and at most {WRITTEN_SECONDS_MAX:g} s ago"),
        ("reading.md", f"`lag_seconds` is at most {LAG_SECONDS_MAX:g}."),
        ("rules.md", f"for the latest {HOURS} hours and per day (UTC) for the latest day and the {DAYS - 1} before it"),
        ("reading.md", f"the last {KEPT} facts"),
        ("operating.md", f"waits up to {WAIT_SECONDS_MAX:g} s. After {PipelineBounds().retry_seconds_max:g} s"),
        ("operating.md", f"not acknowledged within {DELIVERY_SECONDS_MAX:g} s"),
        ("operating.md", f"ends with exit code {FAILED} after {CHECK_SECONDS_MAX:g} s"),
        ("operating.md", f"ends with exit code {FAILED} after {READING.start_seconds_max:g} s"),
    ],
)
def test_a_limit_on_a_page_is_that_of_the_code(page: str, sentence: str) -> None:
    """Bounds and waits are written as the code has them."""
    assert sentence in " ".join((DOCS / page).read_text(encoding="utf-8").split())


def test_the_exit_codes_are_those_of_the_command() -> None:
    """The table of exit codes lists what commands end with."""
    documented = [int(row[0]) for row in table_under("operating.md", "Exit codes")]
    assert documented == [DONE, FAILED, MISUSED, DIFFERENT, INTERRUPTED]


def test_options_that_belong_to_onhand_are_named() -> None:
    """The page about configuration names what [kafka.options] may not set."""
    paragraph = prose_of(DOCS / "configuration.md").partition("belong to onhand")[2].partition("\n\n")[0]
    refused, _, _ = paragraph.partition("The producer")
    assert set(CODE_SPAN.findall(refused)) == {"group.id", "bootstrap.servers", *FIXED_OPTIONS}


def test_the_worked_example_of_the_formula() -> None:
    """Rules, positions and results on the page are those that the operators compute."""
    block = next(block for block in TOML_BLOCKS if block.heading == "A worked example")
    book = RuleBook(rules_from(parsed(block))[0])
    positions, results = tables_under("rules.md", "A worked example")
    resolved = book.resolve("SKU-1", 0)
    names, spares = [], []
    for number, (name, *cells) in enumerate(positions):
        on_hand, reserved, allocated, quarantined, available = units_of(cells)
        assert available_units(on_hand, reserved, allocated, quarantined) == available
        names.append(code_in(name))
        spares.append(spare_of(number, available, resolved.at(names[-1]).safety_units))
    for rule, (channel, *cells) in zip(resolved.channels, results, strict=True):
        pool = pool_of(spares, [resolved.draws_on(rule, name) for name in names])
        offer = offer_of(rule, pool)
        computed = [pool.units, safety_units(rule, pool.units), offer.sellable, pool.shortfall, offer.promised]
        assert (code_in(channel), units_of(cells)) == (rule.name, computed)


def test_the_worked_example_of_commitments() -> None:
    """Who gets what of the contract stock, and what is left for the others, is what the operators compute."""
    block = next(block for block in TOML_BLOCKS if block.heading == "Commitments, a worked example")
    book = RuleBook(rules_from(parsed(block))[0])
    locations = ("dc-east", "dc-west")
    available = re.search(r"(\d+) available units in `dc-east` and (\d+) in `dc-west`", prose_of(DOCS / "rules.md"))
    assert available
    spares = [spare_of(number, int(units), 0) for number, units in enumerate(available.groups())]
    resolved = book.resolve("SKU-1", 0, frozenset({"b2b/acme", "b2b/beta"}))
    table = table_under("rules.md", "Commitments, a worked example")
    draws = [[resolved.draws_on(rule, name) for name in locations] for rule in resolved.channels]
    pools = [pool_of(spares, drawn) for drawn in draws]
    claims = [
        Claim(int(row[1]), pool.units, rule.priority, frozenset(n for n in (0, 1) if drawn[n]))
        for row, rule, pool, drawn in zip(table, resolved.channels, pools, draws, strict=True)
    ]
    for row, rule, pool, claim, grant in zip(table, resolved.channels, pools, claims, grants_of(claims), strict=True):
        free = max(0, pool.units - grant.committed)
        sellable = offer_of(rule, pool, grant.own, grant.committed).sellable
        computed = [claim.open, pool.units, grant.own, claim.open - grant.own, grant.committed, free, sellable]
        assert (code_in(row[0]), units_of(row[1:])) == (rule.name, computed)


def told(lane: Lane, offset: int, payload: bytes) -> LaneResult:
    """Let a lane read one message of the log."""
    return lane.apply([Batch(LOG, [offset], [-1], [None], [payload])])


def lane_with(rules: Rules) -> Lane:
    """Return a lane for all SKUs that has read nothing yet."""
    settings = Settings().input
    dedupe_ms, as_of_ms = settings.dedupe_hours * HOUR_MS, settings.as_of_hours * HOUR_MS
    return Lane(0, RuleBook(rules), LaneSettings(1, incarnation=1, dedupe_ms=dedupe_ms, as_of_ms=as_of_ms))


def test_the_worked_example_of_a_count() -> None:
    """Row by row `on_hand` on the page is what a lane says, and the end is the same in the opposite order."""
    rows = table_under("concepts.md", "A count, a worked example")
    in_order = on_hand_after_each(rows)
    assert in_order == [int(row[-1]) for row in rows]
    assert on_hand_after_each(rows[::-1])[-1] == in_order[-1]


def on_hand_after_each(rows: list[list[str]]) -> list[int]:
    """Tell a lane the rows of the table, kind, quantity and time of day; returns what is on hand after each."""
    lane = lane_with(Rules())
    return [on_hand_after(lane, number, row) for number, row in enumerate(rows)]


def on_hand_after(lane: Lane, offset: int, row: list[str]) -> int:
    """Tell one row; returns what is on hand then."""
    kind, quantity, time, _ = row
    body = {"id": f"id-{offset}", "source": "wms", "kind": code_in(kind), "sku": "SKU-1", "location": "dc-east"}
    payload = msgspec.json.encode({**body, "quantity": int(quantity), "time": f"{DAY}T{time}:00Z"})
    return told(lane, offset, payload).availability[0].locations["dc-east"].on_hand


def test_the_answers_about_reserving_are_those_of_a_lane() -> None:
    """With the page's rules, its messages in their order get exactly the answers that it shows, and no other."""
    blocks = [block for block in ALL_BLOCKS if block.page.name == "reserving.md"]
    rules = next(block for block in blocks if block.language == "toml")
    examples = [block for block in blocks if block.language == "json"]
    first = next(number for number, block in enumerate(examples) if block in RECORD_BLOCKS)
    offset = RESERVATIONS.decode(examples[first].text.encode()).version - first
    lane, shown, given = lane_with(rules_from(parsed(rules))[0]), [], []
    for block in examples:
        if block in RECORD_BLOCKS:
            shown.append(RESERVATIONS.decode(block.text.encode()))
            continue
        result = told(lane, offset + 1, block.text.encode())
        assert result.dead_letters == []
        given += result.reservations
        offset += 1
    assert shown == given
    assert {answer.outcome for answer in shown} >= {"confirmed", "refused", "conflict", "extended", "expired"}


def test_every_outcome_of_a_request_is_documented_and_no_other() -> None:
    """The table of answers is the list of outcomes."""
    documented = [code_in(row[0]) for row in table_under("reserving.md", "The answer")]
    assert sorted(documented) == sorted(get_args(RequestOutcome))


def test_every_reason_of_a_divergence_is_documented() -> None:
    """What operators can do is said for each reason that the code gives."""
    documented = {code_in(row[0]) for row in table_under("operating.md", "Divergences")}
    assert documented == {*LIKELY_CAUSES, UNKNOWN.reason, COUNT_TOO_OLD, CORRECTED, AGREES, SILENT, HEARD}


def test_every_operator_has_a_place_in_the_architecture() -> None:
    """The table of operators names each file of the folder, and no other."""
    page = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = page.partition("## Operators")[2].partition("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    files = {path.name for path in (CHECKOUT / "operators").glob("*.py")} - {"__init__.py"}
    assert {name for row in rows for name in CODE_SPAN.findall(row)} == files


def units_of(cells: list[str]) -> list[int]:
    """Return the numbers in cells."""
    return [int(cell.replace(MINUS, "-")) for cell in cells]


def test_the_worked_example_of_levels() -> None:
    """Row by row the level and the crossing on the page are those that the operators compute."""
    low_stock_at, recovered_at = 10, 12
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    assert f"With `low_stock_at` = {low_stock_at} and `recovered_at` = {recovered_at}:" in page
    standing = START
    for sellable, level, crossing in table_under("rules.md", "Levels, a worked example"):
        before, standing = standing, standing_after(standing, int(sellable), low_stock_at, recovered_at)
        assert LEVELS[standing.level] == code_in(level)
        crossed = threshold_crossed(before.level, standing.level, low_stock_at, recovered_at)
        assert crossing == (str(crossed) if standing.level != before.level else "")


def acl_lines() -> dict[str, list[str]]:
    """Return the words of each ACL line on the pages, by user."""
    lines = [block.text.split() for block in ALL_BLOCKS if block.text.startswith("ACL SETUSER")]
    return {words[2]: words for words in lines}


@contextmanager
def user_of(redis: Redis, name: str) -> Iterator[str]:
    """Make the user `name` as the page says, for as long as this is entered; yields the address that logs it in."""
    words = acl_lines()[name]
    redis.execute_command(*words)  # type: ignore[no-untyped-call]  # as redis-py has it
    server = redis.connection_pool.connection_kwargs
    password = next(word for word in words if word.startswith(">"))[1:]
    try:
        yield f"redis://{name}:{password}@{server['host']}:{server['port']}/0"
    finally:
        redis.acl_deluser(name)


def test_the_user_for_a_channel_may_read_and_nothing_else(redis: Redis) -> None:
    """The ACL line on the page lets a channel read its keys, no other keys, and write nothing."""
    redis.hset("avail:SKU-1", "web", 3)
    with user_of(redis, "shop") as url, Redis.from_url(url) as channel:
        assert channel.hget("avail:SKU-1", "web") == b"3"
        assert channel.hmget("avail:SKU-1", "b2b/acme", "b2b") == [None, None]
        for command in CHANNEL_SAYS_NO:
            with pytest.raises(NoPermissionError):
                channel.execute_command(*command.split())


def test_the_user_for_onhand_may_do_all_that_it_does(redis: Redis, tmp_path: Path) -> None:
    """With the rights on the page a run ends well, doctor finds nothing missing, and get reads."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(encode(record) for record in (RECEIVED, SHIPPED)))
    (tmp_path / "rules.toml").write_text("[channels.web]\n[channels.b2b]\n")
    (tmp_path / "onhand.toml").write_text('[input]\nkind = "jsonl"\ntopic = "in.jsonl"\n[output]\nkind = "none"\n')
    with user_of(redis, "onhand") as url:
        redis.hset("avail:SKU-1", mapping={"@incarnation": 1, "@version": 1, "gone": 1})
        for arguments in (["run", "availability"], ["get", "SKU-1"], ["doctor"]):
            done = subprocess.run(
                [str(Path(sys.executable).with_name("onhand")), *arguments],
                cwd=tmp_path,
                env={**os.environ, "ONHAND_REDIS__URL": url},
                check=False,
                capture_output=True,
                text=True,
            )
            assert "permission" not in done.stdout + done.stderr
            assert arguments == ["doctor"] or done.returncode == DONE, done.stderr
    assert redis.hget("avail:SKU-1", "web") == b"3"
