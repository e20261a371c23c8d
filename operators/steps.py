"""Steps: how a channel's number comes about, one addition after the other, each with the rule that it follows."""

from collections.abc import Iterator, Sequence
from typing import Final

from operators.columns import Names
from operators.offers import View
from operators.pools import Spare
from operators.rules import SkuRules, concerns_channel
from operators.sellable import PERCENT, safety_units
from schemas.outputs import Step
from schemas.rules import ChannelRules, LocationRules, Rule

_CHANNEL_DEFAULTS: Final = ChannelRules()
_LOCATION_DEFAULTS: Final = LocationRules()


def steps_of(
    view: View,
    spares: Sequence[Spare],
    draws: Sequence[bool],
    names: Names,
    rules: SkuRules,
    *,
    contracts: bool,
) -> list[Step]:
    """The steps whose units add up to what the channel of `view` may promise.

    `spares` are the SKU's positions, `draws` tells by location row which of them the channel sells from, `names` what
    they are called; `contracts`: whether the SKU has contract stock at all.
    """
    channel = view.rule.name
    steps = [
        Step("location", spare.units, f"channels.{channel}.locations", names[spare.location])
        for spare in spares
        if draws[spare.location]
    ]
    steps.extend(_after_pool(view, rules, contracts=contracts))
    return steps


def _after_pool(view: View, rules: SkuRules, *, contracts: bool) -> Iterator[Step]:
    """What becomes of the pool: the formula of `sellable.offer_of`, step by step."""
    rule, pool, grant, offer = view.rule, view.pool, view.grant, view.offer
    if not rule.sell:
        yield Step("not_for_sale", -pool.units, rule_of(rules, rule.name, "sell"), value=False)
        return
    if rule.commitment_only:
        label = rule_of(rules, rule.name, "commitment_only")
        yield Step("contract_only", grant.own - pool.units, label, value=True)
    else:
        free = max(0, pool.units - grant.committed)
        shared = free * rule.share_percent // PERCENT
        kept = safety_units(rule, free)
        if contracts:
            yield Step("contracts", free - pool.units, None, grant.committed)
        yield Step("share", shared - free, rule_of(rules, rule.name, "share_percent"), rule.share_percent)
        field = "safety_units" if kept == rule.safety_units else "safety_percent"
        yield Step("safety", max(0, shared - kept) - shared, rule_of(rules, rule.name, field), kept)
        if contracts:
            yield Step("own_contract", grant.own, None, grant.own)
        if rule.backorder_units:
            room = max(0, rule.backorder_units - _owed(view))
            yield Step("backorder", room, rule_of(rules, rule.name, "backorder_units"), rule.backorder_units)
    if rule.cap_units is not None:
        before = _uncapped(view)
        yield Step("cap", offer.promised - before, rule_of(rules, rule.name, "cap_units"), rule.cap_units)


def rule_of(rules: SkuRules, channel: str, field: str) -> str:
    """What gives the channel's number `field`: an exception, the channel's table, or nothing but the default."""
    for rule in reversed(rules.in_force):
        if concerns_channel(rule, channel) and getattr(rule, field) is not None:
            return _named(rules, rule, field)
    table = rules.table_of(channel)
    is_default = getattr(table, field) == getattr(_CHANNEL_DEFAULTS, field)
    return "default" if is_default else f"channels.{channel}.{field}"


def safety_rule_of(rules: SkuRules, location: str) -> str:
    """What gives the location's safety stock of the SKU."""
    for rule in reversed(rules.in_force):
        if rule.location == location and rule.safety_units is not None:
            return _named(rules, rule, "safety_units")
    table = rules.location_table_of(location)
    is_default = table is None or table.safety_units == _LOCATION_DEFAULTS.safety_units
    return "default" if is_default else f"locations.{location}.safety_units"


def _named(rules: SkuRules, rule: Rule, field: str) -> str:
    """`rules[2].safety_units (category fireworks)`, as `onhand check` counts them."""
    concerns = [
        f"{name} {value}" for name in ("sku", "category", "location") if (value := getattr(rule, name)) is not None
    ]
    return f"rules[{rules.place_of(rule)}].{field} ({', '.join(concerns)})"


def _owed(view: View) -> int:
    """What the channel owes already, as far as the offer tells."""
    return view.backordered + view.pool.shortfall


def _uncapped(view: View) -> int:
    """What the channel might promise without its cap."""
    if view.rule.commitment_only:
        return view.grant.own
    return view.offer.sellable + (max(0, view.rule.backorder_units - _owed(view)) if view.rule.backorder_units else 0)
