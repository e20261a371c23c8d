"""The generator: what BENCHMARK says of its movements, and the same ones for the same seed."""

import json
from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from random import Random

import pytest

from bench.generate import LoadConfig, Message, benchmark_rules, end_markers, movements, murmur2, partition_of
from bench.oracle import Message as Record
from bench.oracle import Oracle, fold
from schemas.batches import Origin
from schemas.movements import Decoded, decode
from schemas.rules import ChannelRules

SMALL = LoadConfig(movements=20_000, skus=400)
ORIGINS = [Origin("cluster", "topic-id", partition, "load") for partition in range(8)]


def generated(config: LoadConfig, seed: int = 1) -> list[Message]:
    """All messages of `config`."""
    return list(movements(config, Random(seed)))


def folded(messages: list[Message]) -> Oracle:
    """The oracle after `messages` under the benchmark's rules."""
    numbered = enumerate(messages)
    records = [Record(ORIGINS[partition], offset, -1, key, payload) for offset, (partition, key, payload) in numbered]
    return fold(records, benchmark_rules(), dedupe_ms=72 * 3_600_000)


@pytest.mark.parametrize(("zipf_exponent", "hot_share"), [(0.0, 0.0), (1.1, 0.0), (0.0, 0.5)])
def test_every_message_is_used_and_nothing_goes_below_zero(zipf_exponent: float, hot_share: float) -> None:
    """A life that could be: no dead letter, no movement outside its SKU's partition, no debt."""
    oracle = folded(generated(replace(SMALL, zipf_exponent=zipf_exponent, hot_share=hot_share)))
    assert (oracle.applied, oracle.duplicates, oracle.misplaced, oracle.dead_letters) == (20_008, 0, 0, {})
    assert all(units >= 0 for position in oracle.positions.values() for units in position.values())


def test_about_seven_per_cent_of_the_benchmark_cross_a_level() -> None:
    """As many crossings as the benchmark names, at a twentieth of its size."""
    config = LoadConfig(movements=50_000, skus=1000)
    oracle = folded(generated(config))
    assert 0.06 < len(oracle.crossings) / config.movements < 0.09


def test_kinds_come_in_their_shares_and_messages_in_their_size() -> None:
    """Mostly reservations and shipments, some 170 bytes each."""
    payloads = [payload for _, _, payload in generated(SMALL)[1600:-8]]  # after the opening stock
    shares = Counter(json.loads(payload)["kind"] for payload in payloads)
    assert set(shares) == {
        "received", "reserved", "released", "shipped", "returned", "adjusted", "transfer_shipped", "transfer_received",
    }  # fmt: skip
    assert 0.36 < shares["reserved"] / len(payloads) < 0.41
    assert 0.32 < shares["shipped"] / len(payloads) < 0.37
    assert 160 < sum(map(len, payloads)) / len(payloads) < 180


def test_a_stream_begins_with_the_opening_stock_of_every_position() -> None:
    """1 to 80 units each, counted among the movements."""
    messages = generated(SMALL)
    opening = [json.loads(payload) for _, _, payload in messages[:1600]]
    assert len({(body["sku"], body["location"]) for body in opening}) == 1600
    assert {body["kind"] for body in opening} == {"received"}
    assert (min(body["quantity"] for body in opening), max(body["quantity"] for body in opening)) == (1, 80)
    assert len(messages) == SMALL.movements + SMALL.partitions


def test_a_seed_gives_the_same_movements_and_another_seed_others() -> None:
    """Byte for byte."""
    assert generated(SMALL) == generated(SMALL)
    assert generated(SMALL) != generated(SMALL, seed=2)


def test_zipf_makes_few_skus_busy() -> None:
    """With an exponent of 1.1 the busiest of 400 SKUs has more than a tenth of everything."""
    keys = Counter(key for _, key, _ in generated(replace(SMALL, zipf_exponent=1.1)))
    busiest = keys.most_common(1)[0]
    assert busiest[0] == b"SKU-000001"
    assert busiest[1] > 2000


@pytest.mark.parametrize("zipf_exponent", [0.0, 1.1])
def test_a_hot_sku_has_its_share_of_the_movements(zipf_exponent: float) -> None:
    """With a share of a half the first SKU has half of what follows the opening stock; the rest is as before."""
    messages = generated(replace(SMALL, zipf_exponent=zipf_exponent, hot_share=0.5))[SMALL.opening_count : -8]
    keys = Counter(key for _, key, _ in messages)
    unmoved = Counter(key for _, key, _ in generated(replace(SMALL, zipf_exponent=zipf_exponent))[1600:-8])
    cold = unmoved[b"SKU-000001"] / len(messages)
    assert 0.48 < keys[b"SKU-000001"] / len(messages) - 0.5 * cold < 0.52
    assert len(keys) > 0.9 * len(unmoved)


def test_without_a_hot_sku_the_movements_of_a_seed_stay_what_they_were() -> None:
    """Figures of earlier releases can be measured again: the bytes of seed 1 have not changed."""
    digest = blake2b(b"".join(payload for _, _, payload in generated(SMALL)), digest_size=8)
    assert digest.hexdigest() == "b1e61fd37b9d6525"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SMALL, "uniform"),
        (replace(SMALL, zipf_exponent=1.1), "zipf 1.1"),
        (replace(SMALL, hot_share=0.5), "uniform, hot 0.5"),
    ],
)
def test_a_dataset_is_named_by_its_skew(config: LoadConfig, name: str) -> None:
    """Figures of the same name can stand side by side."""
    assert config.dataset == name


def test_end_markers_close_each_partition() -> None:
    """The last message of partition p is for the SKU `zz-end-p`."""
    last = {partition: key for partition, key, _ in generated(SMALL)}
    assert last == {partition: f"zz-end-{partition}".encode() for partition in range(8)}
    assert [partition for partition, _, _ in end_markers(SMALL)] == list(range(8))


def test_times_grow_and_late_ones_are_as_late_as_allowed() -> None:
    """Without lateness the stream is in order; with it a share is dated back."""
    assert all(before <= after for before, after in pairwise(_times(SMALL)))
    late = _times(replace(SMALL, late_share=0.1, late_ms_max=60_000))
    behind = [moved - time for moved, time in zip(_times(SMALL), late, strict=True)]
    assert 0 < max(behind) <= 60_000 + 20_000  # other draws, so another place in the stream
    assert 1000 < sum(lag > 100 for lag in behind) < 3000


def _times(config: LoadConfig) -> list[int]:
    decoded = [decode(payload) for _, _, payload in generated(replace(config, end_markers=False))]
    return [record.time_ms for record in decoded if isinstance(record, Decoded)]


def test_duplicates_and_ticks_come_on_top() -> None:
    """Every duplicate is counted as one, and every partition hears each tick."""
    config = replace(SMALL, duplicate_share=0.1, tick_ms=1000)
    oracle = folded(generated(config))
    assert oracle.applied == 20_008
    assert 1800 < oracle.duplicates < 2200
    assert oracle.controls == 20 * 8


@pytest.mark.parametrize(
    ("key", "hash_"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_kafkas_java_clients(key: bytes, hash_: int) -> None:
    """Kafka's own test values (UtilsTest.testMurmur2)."""
    assert murmur2(key) == hash_ & 0xFFFFFFFF
    assert partition_of(key, 8) == (hash_ & 0x7FFFFFFF) % 8


def test_the_rules_of_the_benchmark_are_those_of_its_description() -> None:
    """Read from bench/rules.toml without an error."""
    rules = benchmark_rules()
    assert {name: location.safety_units for name, location in rules.locations.items()} == {
        "dc-1": 1, "dc-2": 1, "dc-3": 1, "dc-4": 1,
    }  # fmt: skip
    assert rules.channels == {
        "web": ChannelRules(safety_units=2, low_stock_at=10, recovered_at=11),
        "b2b": ChannelRules(share_percent=80, low_stock_at=10, recovered_at=11),
        "marketplace": ChannelRules(share_percent=50, safety_units=5, low_stock_at=10, recovered_at=11),
    }
