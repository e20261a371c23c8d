"""The schedule: fixed in advance, so that whatever is held up is late against it."""

from itertools import pairwise
from random import Random

import pytest

from bench.sending import BURST_MAX, NAP_NS_MIN, NS, Schedule, keep

MS = NS // 1000
START_NS = 5 * NS


class FakeTime:
    """A clock that only sleeping and sending move on; a message sent takes `cost_ns`."""

    def __init__(self, cost_ns: int = 0) -> None:
        self.now_ns = 0
        self.stalls: dict[int, int] = {}  # message to the nanoseconds that sending it takes
        self.sent_ns: list[int] = []
        self._cost_ns = cost_ns

    def clock(self) -> int:
        """The instant."""
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now_ns += round(seconds * NS)

    def send(self, first: int, end: int) -> None:
        """Messages leave one after the other."""
        assert first == len(self.sent_ns)
        for number in range(first, end):
            self.now_ns += self.stalls.get(number, 0) + self._cost_ns
            self.sent_ns.append(self.now_ns)


@pytest.mark.parametrize("rate", [1, 3, 1000, 99_991, 1_000_000])
def test_as_many_messages_are_due_as_the_schedule_says(rate: int) -> None:
    """A message is due from its instant on, and not a nanosecond before."""
    schedule, random = Schedule(START_NS, rate), Random(rate)
    for number in (0, 1, 2, *(random.randrange(10**7) for _ in range(200))):
        due_ns = schedule.due_ns(number)
        assert schedule.due_by(due_ns) >= number + 1 > schedule.due_by(due_ns - 1)
    assert schedule.due_by(START_NS - 1) == 0
    assert schedule.due_ns(rate) == START_NS + NS


@pytest.mark.parametrize("rate", [10, 1000, 100_000])
def test_a_sender_that_is_not_held_up_is_late_by_a_nap_at_most(rate: int) -> None:
    """Nothing goes before it is due."""
    time, schedule = FakeTime(), Schedule(START_NS, rate)
    sent, late_ns_max = keep(schedule, rate, time.send, time.clock, time.sleep)
    lates = [sent_ns - schedule.due_ns(number) for number, sent_ns in enumerate(time.sent_ns)]
    assert len(lates) == sent == rate
    assert 0 <= min(lates) <= max(lates) <= late_ns_max <= NAP_NS_MIN + 1


def test_a_stall_counts_for_every_message_that_it_delays() -> None:
    """No coordinated omission: 100 messages fell due in a stall of 100 ms, and are late by 100, 99, 98 … ms."""
    time, schedule = FakeTime(), Schedule(START_NS, 1000)
    time.stalls[50] = 100 * MS
    _, late_ns_max = keep(schedule, 300, time.send, time.clock, time.sleep)
    lates_ms = [(sent_ns - schedule.due_ns(number)) / MS for number, sent_ns in enumerate(time.sent_ns)]
    assert max(lates_ms[:50]) < 1
    assert lates_ms[50:150] == pytest.approx(range(100, 0, -1), abs=1)
    assert max(lates_ms[151:]) < 1
    assert late_ns_max == pytest.approx(100 * MS, abs=MS)


def test_a_sender_that_is_too_slow_gets_later_and_later() -> None:
    """It sends without a rest and never drops what is due, and its schedule does not move."""
    time, schedule = FakeTime(cost_ns=2 * MS), Schedule(START_NS, 1000)
    keep(schedule, 2000, time.send, time.clock, time.sleep)
    lates = [sent_ns - schedule.due_ns(number) for number, sent_ns in enumerate(time.sent_ns)]
    assert all(before < after for before, after in pairwise(lates))
    assert lates[-1] == pytest.approx(2 * NS, rel=0.01)


def test_a_sender_that_does_not_come_to_the_end_gives_up() -> None:
    """It tells how many it has sent until then."""
    time, schedule = FakeTime(cost_ns=2 * MS), Schedule(START_NS, 1000)
    sent, _ = keep(schedule, 2000, time.send, time.clock, time.sleep, give_up_ns=START_NS + 3 * NS)
    assert sent == len(time.sent_ns) < 2000
    assert time.now_ns < START_NS + 3 * NS + BURST_MAX * 2 * MS


def test_a_burst_is_bounded() -> None:
    """After a long stall acknowledgements are taken in between."""
    bursts: list[int] = []
    keep(Schedule(0, 1000), 10_000, lambda first, end: bursts.append(end - first), lambda: NS * 20, lambda _: None)
    assert max(bursts) == BURST_MAX
    assert sum(bursts) == 10_000
