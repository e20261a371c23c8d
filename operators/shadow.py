"""Shadow: what would be shown under a second set of rules, and where that differs."""

from typing import Any

from operators.rules import RuleBook, SkuRules
from operators.stock import Stock
from schemas.outputs import ShadowDifference, ShadowOffer, shadow_id
from schemas.rules import ACCOUNT_SEPARATOR
from schemas.times import format_ms

Differences = dict[str, tuple[int, int]]  # by channel: promised, and promised under the shadow rules


class Shadow:
    """Compares the SKUs of a lane with what `book` would make of them; nothing is ever sold from it."""

    def __init__(self, stock: Stock, book: RuleBook) -> None:
        self._stock = stock
        self._book = book
        self._told: dict[int, Differences] = {}  # by SKU, where there is any

    def difference(self, sku: int) -> ShadowDifference | None:
        """What to tell about `sku`, which shows something new; None where it was told already."""
        now = self._differences(sku)
        if now == self._told.get(sku, {}):
            return None
        if now:
            self._told[sku] = now
        else:
            del self._told[sku]
        cells, name = self._stock.skus.cells, self._stock.names[sku]
        version = cells["version"][sku]
        return ShadowDifference(
            id=shadow_id(name, version),
            sku=name,
            version=version,
            as_of=format_ms(cells["as_of_ms"][sku]),
            rules=cells["generation"][sku],
            channels={channel: ShadowOffer(*promised) for channel, promised in now.items()},
        )

    def dump(self) -> list[Any]:
        """Which rules were compared with, and what was told of them."""
        return [self._book.digest, list(self._told.items())]

    def load(self, dumped: list[Any]) -> None:
        """Replaces everything; what was told of other rules does not count."""
        digest, told = dumped
        if digest == self._book.digest:
            self._told = {
                sku: {channel: (promised, shadow) for channel, (promised, shadow) in differences.items()}
                for sku, differences in told
            }

    def _differences(self, sku: int) -> Differences:
        stock = self._stock
        live = stock.channels_of(sku, stock.rules_of(sku))
        rules = stock.shadow_of(sku, self._book)
        _, views = stock.views(sku, rules, stock.skus.cells["seen_ms"][sku])
        shadow = {view.rule.name: view.offer.promised for view in views if self._has_field(sku, view.rule.name, rules)}
        pairs = {
            channel: (live[channel].promised if channel in live else 0, shadow.get(channel, 0))
            for channel in (*live, *(channel for channel in shadow if channel not in live))
        }
        return {channel: pair for channel, pair in pairs.items() if pair[0] != pair[1]}

    def _has_field(self, sku: int, channel: str, rules: SkuRules) -> bool:
        """An account has one where a rule names it or it has a contract, as in `Stock.channels_of`."""
        if ACCOUNT_SEPARATOR not in channel or channel in rules.named:
            return True
        ledger = self._stock.ledger(sku, channel)
        return ledger is not None and ledger.committed > 0
