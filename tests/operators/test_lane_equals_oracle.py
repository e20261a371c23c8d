"""Whatever the batches, the interleaving, the number of lanes and the restarts: lanes and oracle say the same."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle import Message, fold
from schemas.rules import ChannelRules, Rule, Rules
from schemas.times import format_ms
from tests.lane_runs import Feed, Run, Save, Step, assert_equal, steps
from tests.movement_strategies import (
    AS_OF_MS,
    BASE_MS,
    DEDUPE_MS,
    MINUTE_MS,
    Logs,
    all_rules,
    logs,
    long_logs,
    origin,
)

pytestmark = pytest.mark.timeout(3600)  # finding the smallest counterexample takes its time
LANES = st.integers(1, 7)
TRUST = b'{"kind":"location","location":"dc-1","trust_percent":50}'
TICK = f'{{"kind":"tick","time":"{format_ms(BASE_MS + 200 * MINUTE_MS)}"}}'.encode()


@given(logs(), all_rules(), steps(), LANES)
def test_lanes_equal_the_oracle_in_any_run(logs: Logs, rules: Rules, steps: list[Step], lanes: int) -> None:
    """A run in pieces, with snapshots and restarts, ends as if each log had been read once from end to end."""
    run = Run(logs, rules, lanes).take(steps)
    assert_equal(run, fold((message for log in logs for message in log), rules, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS))


@given(long_logs(), all_rules(), steps(), LANES)
def test_lanes_equal_the_oracle_in_full_batches(logs: Logs, rules: Rules, steps: list[Step], lanes: int) -> None:
    """Hundreds of movements a batch are no different from a few."""
    run = Run(logs, rules, lanes).take(steps)
    assert_equal(run, fold((message for log in logs for message in log), rules, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS))


@given(logs(misplaced=True), all_rules(), steps(restarts=False), LANES)
def test_misplaced_movements_count_at_once_and_show_when_the_home_speaks(
    logs: Logs, rules: Rules, steps: list[Step], lanes: int
) -> None:
    """With movements of a SKU in several logs the interleaving matters, and the same one gives the same outcome."""
    run = Run(logs, rules, lanes).take(steps).go_on(ticks_after(logs))
    assert_equal(run, fold(run.order, rules, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS))


@pytest.mark.parametrize("key", [None, b"", b"A", b"C", b"fire-1", b"\xff"])
@pytest.mark.parametrize("lanes", [1, 2, 7])
@pytest.mark.parametrize("payload", [TICK, TRUST, b'{"kind":"tick"}', b"{", None])
def test_what_is_unusable_becomes_one_dead_letter(payload: bytes | None, lanes: int, key: bytes | None) -> None:
    """Control records concern every lane, and whichever lane a key leads to, one of them reports what is unusable."""
    log = (Message(origin(0), 0, -1, key, payload),)
    is_used = payload in (TICK, TRUST) and not key
    assert Run((log,), Rules(), lanes).take([]).counts["dead_letters"] == (0 if is_used else 1)


def test_a_restored_lane_knows_its_clock() -> None:
    """A SKU met after the restart is sold by the rules that the last tick before it brought into force."""
    begun = datetime.fromtimestamp(BASE_MS / 1000, UTC)
    rules = Rules(channels={"web": ChannelRules()}, rules=(Rule(sku="A", sell=False, valid_from=begun),))
    received = (
        b'{"id":"1","source":"wms","kind":"received","sku":"A","location":"east","quantity":9,'
        b'"time":"2026-11-21T00:00:00Z"}'
    )
    logs = ((Message(origin(0), 0, -1, None, TICK), Message(origin(0), 1, -1, b"A", received)),)
    run = Run(logs, rules).take([Feed(0, 1), Save()])
    assert_equal(run, fold(logs[0], rules, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS))
    assert run.availability["A"].channels["web"].promised == 0


def ticks_after(logs: Logs) -> Logs:
    """A tick at the end of each log: every home speaks."""
    return tuple(
        (Message(origin(number), log[-1].offset + 1 if log else 0, -1, None, TICK),) for number, log in enumerate(logs)
    )
