"""What if: the numbers that a SKU would show under other rules, from what is explained about it."""

from operators.commitments import Ledger
from operators.offers import views_of
from operators.pools import spare_of
from operators.reorder import Demand, dynamic_safety_units
from operators.rules import DYNAMIC, RuleBook
from operators.trust import trusted_units
from schemas.outputs import Explanation
from schemas.rules import ACCOUNT_SEPARATOR
from schemas.times import parse_ms


def promised_under(book: RuleBook, explanation: Explanation) -> dict[str, int]:
    """What every channel with a field would promise of the explained SKU if its home went by `book`."""
    channels, places = explanation.channels, list(explanation.locations.items())
    contracts = {
        name: Ledger(channel.contract_units, channel.committed)
        for name, channel in channels.items()
        if channel.contract_units or channel.committed
    }
    accounts = frozenset(name for name in contracts if ACCOUNT_SEPARATOR in name)
    clock_ms = 0 if explanation.clock is None else parse_ms(explanation.clock)
    resolved = book.resolve(explanation.sku, clock_ms, accounts)
    spares, dynamic = [], []
    for row, (name, place) in enumerate(places):
        rules = resolved.at(name)
        demand = Demand(place.observed_days, place.observed_units, place.observed_squares)
        units = dynamic_safety_units(demand, rules.planning)
        dynamic.append((row, units))
        safety = units if rules.safety_units == DYNAMIC else rules.safety_units
        spares.append(spare_of(row, trusted_units(place.available, place.trust_percent), safety))
    views = views_of(
        resolved.channels,
        spares,
        lambda rule: [resolved.draws_on(rule, name) for name, _ in places],
        contracts,
        lambda channel: channels[channel].backordered if channel in channels else 0,
        dynamic,
    )
    return {
        view.rule.name: view.offer.promised
        for view in views
        if ACCOUNT_SEPARATOR not in view.rule.name
        or view.rule.name in resolved.named
        or (view.rule.name in contracts and contracts[view.rule.name].committed > 0)
    }
