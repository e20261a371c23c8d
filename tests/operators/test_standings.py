"""Standings: contracts and debts stand beside them, for few; nobody who asks can tell."""

from random import Random

import pytest

from operators.columns import FIRST_CAPACITY, Columns, Pairs
from operators.commitments import Ledger
from operators.generations import Generations
from operators.rules import RuleBook
from operators.snapshots import pack, unpack
from operators.standings import Standings
from operators.stock import Stock
from operators.ticks import Clocks
from operators.trust import Trust
from schemas.rules import ChannelRules, Rules

SKUS, CHANNELS = 40, 7
BYTES_MAX = 32  # of a standing: there are three for each SKU, and a million SKUs


class Known:
    """What was said of one channel of a SKU."""

    ledger: Ledger | None = None
    overcommitted = backordered = 0


def stored(standings: Standings) -> Standings:
    """What is left of them after a snapshot."""
    again = Standings()
    again.load(unpack(pack({"standings": standings.dump()}))["standings"])
    return again


def test_a_standing_without_contract_or_debt_takes_few_bytes() -> None:
    """And nothing beside them, whatever it is asked or told."""
    standings = Standings()
    standings.add_rows(3)
    for row in range(3):
        standings.set_overcommitted(row, 0)
        assert (standings.ledger(row), standings.overcommitted(row), standings.backordered(row)) == (None, 0, 0)
    assert standings.table.dtype.itemsize <= BYTES_MAX
    assert standings.obligations == 0


@pytest.mark.parametrize("seed", range(4))
def test_obligations_of_many_standings_are_what_was_said_of_each(seed: int) -> None:
    """Said in any order while standings are added, and asked across snapshots; what never was is nothing."""
    chance, standings = Random(seed), Standings()
    pairs, known = Pairs(standings, "sku", "channel"), dict[tuple[int, int], Known]()
    for _ in range(1500):
        pair = chance.randrange(SKUS), chance.randrange(CHANNELS)
        row, one = pairs.add(*pair), known.setdefault(pair, Known())
        said, units = chance.choice(("contract", "short", "owed", "seen", "seen", "seen")), chance.randint(-3, 2**40)
        if said == "contract":
            one.ledger = Ledger(units, units - 3, 3) if chance.random() < 0.8 else Ledger()
            standings.set_ledger(row, one.ledger)
        elif said == "short" and one.ledger is not None:
            one.overcommitted = chance.choice((0, units))
            standings.set_overcommitted(row, one.overcommitted)
        elif said == "owed":
            more = chance.choice((-one.backordered, units))
            standings.owe(row, more)
            one.backordered += more
        else:
            standings["promised"][row] += 1
        if chance.random() < 0.01:
            standings = stored(standings)
            pairs = Pairs(standings, "sku", "channel")
            pairs.rebuild()
    for again in (standings, stored(standings)):
        pairs = Pairs(again, "sku", "channel")
        pairs.rebuild()
        assert again.rows == len(known) > 10 * FIRST_CAPACITY
        assert again["promised"].tolist() == standings["promised"].tolist()
        for pair, one in known.items():
            row = pairs.row(*pair)
            found = again.ledger(row), again.overcommitted(row), again.backordered(row)
            assert found == (one.ledger, one.overcommitted, one.backordered)


def test_a_contract_outlives_a_snapshot_though_nothing_is_left_of_it_and_a_paid_debt_does_not() -> None:
    """An account that had a commitment once is looked at for good."""
    standings = Standings()
    standings.add_rows(3)
    standings.set_ledger(2, Ledger())
    standings.owe(0, 5)
    standings.owe(0, -5)
    assert standings.obligations == 2
    again = stored(standings)
    assert [again.ledger(row) for row in range(3)] == [None, None, Ledger()]
    assert again.obligations == 1


def test_a_snapshot_has_the_columns_that_it_always_had() -> None:
    """A release in whose memory they all stood side by side finds each where it was, with zeros where there is none."""
    standings = Standings()
    standings.add_rows(3)
    standings["channel"][:], standings["level"][:] = [7, 8, 9], [0, 1, 2]
    standings.set_ledger(1, Ledger(5, 4, 1))
    standings.set_overcommitted(1, 2)
    standings.owe(2, 2**40)
    before = Columns({name: column.dtype.type for name, column in standings.with_obligations().items()})
    before.load(unpack(pack({"standings": standings.dump()}))["standings"])
    assert {name: before[name].tolist() for name in before.table.dtype.names or () if before[name].any()} == {
        "channel": [7, 8, 9],
        "level": [0, 1, 2],
        "contract": [0, 1, 0],
        "committed": [0, 5, 0],
        "open": [0, 4, 0],
        "drawn": [0, 1, 0],
        "overcommitted": [0, 2, 0],
        "backordered": [0, 0, 2**40],
    }


def test_stock_finds_each_contract_and_debt_by_sku_and_channel() -> None:
    """Of many SKUs with several channels, some with either, across a snapshot."""
    book = RuleBook(Rules(channels={name: ChannelRules() for name in ("web", "b2b", "b2b/acme")}))
    stock = stock_of(book)
    stock.add_skus([f"SKU-{number}" for number in range(200)], 0, 0)
    for sku in range(200):
        stock.evaluate(sku)
        if sku % 3 == 0:
            stock.set_ledger(sku, "b2b/acme", Ledger(sku, sku + 1, 1), 0)
        if sku % 5 == 0:
            stock.owe(sku, "web", sku)
        if sku % 7 == 0:
            stock.set_ledger(sku, "b2b", Ledger(), 0)
    again = stock_of(book)
    again.load(unpack(pack(stock.dump())))
    for one in (stock, again):
        for sku in range(200):
            acme = {"b2b/acme": Ledger(sku, sku + 1, 1)} if sku % 3 == 0 else {}
            b2b = {"b2b": Ledger()} if sku % 7 == 0 else {}
            assert one.ledgers(sku) == acme | b2b
            assert [one.ledger(sku, channel) for channel in ("b2b", "b2b/acme", "web")] == [
                b2b.get("b2b"), acme.get("b2b/acme"), None,
            ]  # fmt: skip
            assert one.backordered(sku, "web") == (sku if sku % 5 == 0 else 0)
            assert one.backordered(sku, "b2b") == 0


def stock_of(book: RuleBook) -> Stock:
    """Without any SKUs, of one origin."""
    generations, clocks = Generations(book), Clocks()
    generations.add_origin()
    clocks.add_origin()
    return Stock(generations, clocks, Trust(), as_of_ms=1, history_max=100)
