"""Positions: what each kind of movement does to the quantities of one SKU at one location."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from schemas.movements import (
    Adjusted,
    Allocated,
    Cleared,
    Deallocated,
    ExpectationCancelled,
    Expected,
    Movement,
    Picked,
    Quarantined,
    Received,
    Released,
    Reserved,
    Returned,
    Scrapped,
    Shipped,
    TransferLost,
    TransferReceived,
    TransferShipped,
)

QUANTITIES: Final = ("on_hand", "reserved", "allocated", "picked", "quarantined", "in_transit", "incoming")

Signs = Mapping[str, int]


class Effect(NamedTuple):
    """Signs of one unit of a movement: at its location, and at its destination."""

    here: Signs
    there: Signs = MappingProxyType({})


# The one sign table: (kind, what qualifies it) → effect of one unit. `reversal` flips the row.
EFFECTS: Final[Mapping[tuple[type[Movement], str], Effect]] = {
    (Expected, ""): Effect({"incoming": +1}),
    (ExpectationCancelled, ""): Effect({"incoming": -1}),
    (Received, ""): Effect({"on_hand": +1}),
    (Received, "named"): Effect({"on_hand": +1, "incoming": -1}),
    (Reserved, ""): Effect({"reserved": +1}),
    (Released, ""): Effect({"reserved": -1}),
    (Allocated, "on_hand"): Effect({"allocated": +1}),
    (Allocated, "reserved"): Effect({"allocated": +1, "reserved": -1}),
    (Deallocated, "on_hand"): Effect({"allocated": -1}),
    (Deallocated, "reserved"): Effect({"allocated": -1, "reserved": +1}),
    (Picked, ""): Effect({"picked": +1}),
    (Shipped, "on_hand"): Effect({"on_hand": -1}),
    (Shipped, "reserved"): Effect({"on_hand": -1, "reserved": -1}),
    (Shipped, "allocated"): Effect({"on_hand": -1, "allocated": -1, "picked": -1}),
    (Shipped, "quarantined"): Effect({"on_hand": -1, "quarantined": -1}),
    (Returned, "on_hand"): Effect({"on_hand": +1}),
    (Returned, "quarantined"): Effect({"on_hand": +1, "quarantined": +1}),
    (Quarantined, ""): Effect({"quarantined": +1}),
    (Cleared, ""): Effect({"quarantined": -1}),
    (Scrapped, "on_hand"): Effect({"on_hand": -1}),
    (Scrapped, "quarantined"): Effect({"on_hand": -1, "quarantined": -1}),
    (Adjusted, ""): Effect({"on_hand": +1}),
    (TransferShipped, "on_hand"): Effect({"on_hand": -1}, {"in_transit": +1}),
    (TransferShipped, "reserved"): Effect({"on_hand": -1, "reserved": -1}, {"in_transit": +1}),
    (TransferShipped, "allocated"): Effect({"on_hand": -1, "allocated": -1, "picked": -1}, {"in_transit": +1}),
    (TransferShipped, "quarantined"): Effect({"on_hand": -1, "quarantined": -1}, {"in_transit": +1}),
    (TransferReceived, ""): Effect({"on_hand": +1}),
    (TransferReceived, "named"): Effect({"on_hand": +1, "in_transit": -1}),
    (TransferLost, ""): Effect({}),
    (TransferLost, "named"): Effect({"in_transit": -1}),
}
# The field that qualifies a kind, where one does. Of an order or a transfer only counts whether it is named.
_QUALIFIERS: Final[Mapping[type[Movement], str]] = {
    Allocated: "from_",
    Deallocated: "to",
    Shipped: "from_",
    Returned: "to",
    Scrapped: "from_",
    TransferShipped: "from_",
}
_NAMED: Final[Mapping[type[Movement], str]] = {
    Received: "order",
    TransferReceived: "transfer",
    TransferLost: "transfer",
}


def effect_of(movement: Movement) -> Effect:
    """The row of signs that holds for one unit of `movement`, before `reversal`."""
    kind = type(movement)
    if (field := _QUALIFIERS.get(kind)) is not None:
        return EFFECTS[kind, getattr(movement, field)]
    if (field := _NAMED.get(kind)) is not None:
        return EFFECTS[kind, "named" if getattr(movement, field) is not None else ""]
    return EFFECTS[kind, ""]


def signed_units(movement: Movement) -> int:
    """The quantity that the signs multiply: turned round by a reversal, negative for an adjustment downwards."""
    return -movement.quantity if movement.reversal else movement.quantity


def available_units(on_hand: int, reserved: int, allocated: int, quarantined: int) -> int:
    """What is there and free; a quantity below zero means a missed fact and never makes anything available."""
    return on_hand - max(0, reserved) - max(0, allocated) - max(0, quarantined)
