"""The benchmark's peers: their arithmetic is the oracle's, and on real servers they leave what it says."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.comparison import (
    Backlog,
    Crossings,
    Results,
    Stage,
    await_crossings,
    by_channel,
    differences,
    expected_results,
    generated_backlog,
    in_turn,
    peer_running,
    read_results,
    read_shown,
    renew,
    retail_backlog,
    stage,
)
from bench.drain import Raw, Running, expectation, produce, wait_until
from bench.generate import RULES_PATH, LoadConfig, partition_of
from bench.peers.bytewax_flow import ArticleLogic
from bench.peers.codecs import decode_article, decode_movements, encode_article
from bench.peers.loop import Checkpoint, read_checkpoint, write_checkpoint
from bench.peers.stock import SIGNS, Article, Crossing, is_usable, new_article, read_rules, take
from schemas.times import format_ms

TINY = LoadConfig(movements=3000, skus=100, partitions=2)
ONE_MONTH = Path(__file__).parents[2] / "examples" / "movements" / "online_retail_2010-12.csv.gz"
SECONDS_MAX = 60.0
WILD_WEIGHTS = [1.5 if "shipped" in kind else 1.0 for kind in SIGNS]  # as much goes as comes

# in the project's own environment, which has these engines in the versions of their own locks
PYTHONS = {"loop": Path(sys.executable), "bytewax": Path(sys.executable)}


def wild_messages(seed: int, count: int = 4000, source: str = "wild") -> list[Raw]:
    """Movements without any sense: of every kind, into debt, at a location that no rule names."""
    random = Random(seed)
    messages = []
    for number in range(count):
        sku = f"SKU-{random.randrange(20)}"
        kind = random.choices(list(SIGNS), WILD_WEIGHTS)[0]
        body: dict[str, object] = {
            "id": f"{seed}-{number}",
            "source": source,
            "kind": kind,
            "sku": sku,
            "location": random.choice(["dc-1", "dc-2", "dc-3", "dc-9"]),
            "quantity": random.randrange(1, 9) * (random.choice([1, -1]) if kind == "adjusted" else 1),
            "time": format_ms(1_750_000_000_000 + number),
        }
        if kind == "adjusted":
            body["reason"] = "wild"
        if kind in {"shipped", "transfer_shipped"} and random.random() < 0.5:
            body["from"] = "reserved"
        if kind == "transfer_shipped":
            body["destination"] = "dc-1"
        messages.append((partition_of(sku.encode(), TINY.partitions), sku.encode(), json.dumps(body).encode()))
    return messages


def in_memory(messages: Iterable[Raw]) -> tuple[Results, list[Crossing]]:
    """What the peers' arithmetic makes of the messages, its state put into bytes and back each time."""
    rules = read_rules(RULES_PATH)
    articles: dict[str, bytes] = {}
    numbers: dict[str, dict[str, int]] = {}
    crossings: list[Crossing] = []
    offsets: dict[int, int] = {}
    for partition, _, payload in messages:
        offset = offsets[partition] = offsets.get(partition, -1) + 1
        (movement,) = decode_movements([payload])
        if not is_usable(movement):
            continue
        sku = movement.sku
        article = decode_article(articles[sku]) if sku in articles else new_article(rules)
        taken = take(article, movement, offset, rules)
        articles[sku] = encode_article(article)
        names = [channel.name for channel in rules.channels]
        numbers[sku] = {**dict(zip(names, taken.sellable, strict=True)), "@version": offset}
        crossings += taken.crossings
    return Results(numbers, by_channel(crossings)), crossings


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(generated_backlog(TINY, 1).messages, id="uniform"),
        pytest.param(generated_backlog(replace(TINY, zipf_exponent=1.1), 2).messages, id="zipf"),
        pytest.param(retail_backlog(ONE_MONTH, 5000).messages, id="retail"),
        *[pytest.param(wild_messages(seed), id=f"wild {seed}") for seed in range(5)],
    ],
)
def test_the_peers_arithmetic_is_the_oracles(messages: list[Raw]) -> None:
    """The same numbers under the same versions, and the same crossings under the same ids."""
    oracle = expectation(messages)
    expected = expected_results(oracle)
    found, crossings = in_memory(messages)
    assert found == expected
    assert {crossing.id for crossing in crossings} == {crossing.id for crossing in oracle.crossings}
    assert len(crossings) > 200


def test_a_rule_that_the_peers_do_not_know_is_no_rule_of_the_benchmark(tmp_path: Path) -> None:
    """Better no figure than one for less work."""
    changed = tmp_path / "rules.toml"
    changed.write_text(RULES_PATH.read_text() + "cap_units = 3\n")
    with pytest.raises(TypeError, match="cap_units"):
        read_rules(changed)


OUT, LOW, IN = ("out_of_stock", "low_stock", 5), ("low_stock", "in_stock", 12), ("in_stock", "out_of_stock", 0)


@pytest.mark.parametrize(
    ("told", "missing", "extra"),
    [
        ([OUT, LOW, IN], 0, 0),
        ([OUT, LOW, LOW, IN, IN, OUT, LOW, IN], 0, 5),
        ([OUT, IN], 1, 0),
        ([OUT, OUT, LOW, IN], 0, 1),
        ([LOW, OUT, IN], 1, 1),
        ([OUT, ("low_stock", "in_stock", 11), IN], 1, 1),
        ([], 3, 0),
    ],
)
def test_crossings_are_compared_in_their_order(told: list[tuple[str, str, int]], missing: int, extra: int) -> None:
    """Of each SKU and channel: one that is lost, told twice, out of turn, or with another number."""
    crossings: Crossings = {("SKU-1", "web"): [OUT, LOW, IN]}
    found = Results({}, {("SKU-1", "web"): told} if told else {})
    assert differences(Results({}, crossings), found) == (0, missing, extra)


@pytest.mark.parametrize("numbers", [{}, {"A": {"web": 2, "@version": 4}}, {"A": {"web": 1}, "B": {"web": 1}}])
def test_a_sku_with_another_number_none_or_none_expected_is_wrong(numbers: dict[str, dict[str, int]]) -> None:
    """Each counts once."""
    expected = Results({"A": {"web": 1, "@version": 4}}, {})
    assert differences(expected, Results(numbers, {})).wrong_skus == len(numbers.keys() | {"A"})


def test_a_bytewax_sku_goes_on_from_its_snapshot() -> None:
    """Resumed, it makes of the next movements what it would have made of them."""
    rules = read_rules(RULES_PATH)
    payloads = [payload for _, key, payload in wild_messages(7) if key == b"SKU-3"]
    values = list(enumerate(decode_movements(payloads)))
    logic = ArticleLogic(rules, None)
    logic.on_batch(values[:50])
    resumed = ArticleLogic(rules, logic.snapshot())
    (expected,), _ = logic.on_batch(values[50:])
    assert resumed.on_batch(values[50:]) == ([expected], ArticleLogic.RETAIN)
    assert expected.version == len(values) - 1
    assert expected.crossings


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The file of the plain loop: nothing without one, and the last one written."""
    path = tmp_path / "checkpoint.msgpack"
    assert read_checkpoint(path) == Checkpoint({}, {})
    article = Article({"dc-1": [4, 1]}, [1, 0, 2], [True, False, False])
    write_checkpoint(path, Checkpoint({5: 3}, {}))
    write_checkpoint(path, Checkpoint({5: 7}, {"SKU-1": article}))
    assert read_checkpoint(path) == Checkpoint({5: 7}, {"SKU-1": article})


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Stage, Backlog]]:
    """Servers for this file, for fixed topic names need a broker of their own, and the backlog that they hold."""
    backlog = generated_backlog(TINY, 1)
    with stage(backlog) as where:
        yield where, backlog


def test_engines_work_in_turn_and_leave_what_the_oracle_says(scene: tuple[Stage, Backlog]) -> None:
    """A real Kafka and a real Redis: no SKU and no crossing differs, and the lines have the fields of the benchmark."""
    where, backlog = scene
    runs = list(in_turn(where, backlog, PYTHONS, ["loop", "bytewax"], runs=1))
    assert [run.engine for run in runs] == ["loop", "bytewax"]
    assert [run for run in runs if run.differs] == []
    for run in runs:
        assert (run.dataset, run.movements, run.processes) == ("uniform", len(backlog.messages), 1)
        assert min(run.movements_per_second, run.cpu_seconds_per_million, run.memory_mib_max) > 0
        assert run.versions["confluent-kafka"]
        about = {"movements": "3000", "skus": "100", "zipf": "0.0", "hot_share": "0.0", "seed": "1"}
        assert run.provenance.settings == about | {"partitions": "2", "runs": "1"}


@pytest.mark.parametrize(("engine", "extra_max"), [("loop", 0), ("bytewax", 10_000)])
def test_a_peer_goes_on_from_what_it_kept(
    engine: str, extra_max: int, scene: tuple[Stage, Backlog], tmp_path: Path
) -> None:
    """Ended in order and started again, nothing is wrong or missing; the loop then repeats nothing either."""
    where, backlog = scene
    renew(where)
    for seed in range(2):
        expected = expected_results(expectation(backlog.messages))
        with peer_running(engine, PYTHONS[engine], where, engine, tmp_path) as running:
            await_numbers(expected, where, running)
            await_crossings(engine, where, sum(map(len, expected.crossings.values())))
            running.drain()
        found = differences(expected, read_results(engine, where))
        assert found[:2] == (0, 0)
        assert found.extra_crossings <= extra_max
        more = wild_messages(seed, 300, engine)
        produce(where.bootstrap_servers, more)
        backlog.messages.extend(more)


def await_numbers(expected: Results, where: Stage, running: Running) -> None:
    """Until Redis holds every number that is expected."""

    def shown() -> bool:
        running.check_alive()
        return differences(expected, Results(read_shown(where), expected.crossings)).wrong_skus == 0

    wait_until(shown, SECONDS_MAX, "the expected numbers")
