"""What every kind of movement does to stock, told as short stories."""

import pytest

from tests.stories import after

# story · quantities at east · available there · the web may sell (it keeps 2)
PLAIN = [
    ("expected 5", "incoming 5", 0, 0),
    ("expected 5, expectation_cancelled 2", "incoming 3", 0, 0),
    ("received 10", "on_hand 10", 10, 8),
    ("expected 10, received 4", "on_hand 4, incoming 10", 4, 2),
    ("expected 10, received 4 order PO-1", "on_hand 4, incoming 6", 4, 2),
    ("received 10, reserved 3", "on_hand 10, reserved 3", 7, 5),
    ("received 10, reserved 3, released 2", "on_hand 10, reserved 1", 9, 7),
    ("received 10, allocated 3", "on_hand 10, allocated 3", 7, 5),
    ("received 10, reserved 3, allocated 3 from reserved", "on_hand 10, allocated 3", 7, 5),
    ("received 10, reserved 3, allocated 3 from on_hand", "on_hand 10, reserved 3, allocated 3", 4, 2),
    ("received 10, allocated 3, deallocated 2", "on_hand 10, allocated 1", 9, 7),
    ("received 10, allocated 3, deallocated 3 to reserved", "on_hand 10, reserved 3", 7, 5),
    ("received 10, allocated 3, picked 2", "on_hand 10, allocated 3, picked 2", 7, 5),
    ("received 10, shipped 4", "on_hand 6", 6, 4),
    ("received 10, reserved 4, shipped 4 from reserved", "on_hand 6", 6, 4),
    ("received 10, allocated 4, picked 4, shipped 4 from allocated", "on_hand 6", 6, 4),
    ("received 10, quarantined 4, shipped 4 from quarantined", "on_hand 6", 6, 4),
    ("received 10, returned 1", "on_hand 11", 11, 9),
    ("received 10, returned 1 to quarantined", "on_hand 11, quarantined 1", 10, 8),
    ("received 10, quarantined 3", "on_hand 10, quarantined 3", 7, 5),
    ("received 10, quarantined 3, cleared 2", "on_hand 10, quarantined 1", 9, 7),
    ("received 10, scrapped 3", "on_hand 7", 7, 5),
    ("received 10, quarantined 3, scrapped 3 from quarantined", "on_hand 7", 7, 5),
    ("received 10, adjusted 2", "on_hand 12", 12, 10),
    ("received 10, adjusted -2", "on_hand 8", 8, 6),
    ("received 10, transfer_shipped 4 destination west", "on_hand 6", 6, 4),
    ("received 10, reserved 4, transfer_shipped 4 from reserved destination west", "on_hand 6", 6, 4),
    ("received 10, allocated 4, picked 4, transfer_shipped 4 from allocated destination west", "on_hand 6", 6, 4),
    ("received 10, quarantined 4, transfer_shipped 4 from quarantined destination west", "on_hand 6", 6, 4),
    ("transfer_received 4", "on_hand 4", 4, 2),
    ("transfer_shipped 4 at west destination east, transfer_received 3 transfer T-1", "on_hand 3, in_transit 1", 3, 1),
    ("transfer_shipped 4 at west destination east, transfer_lost 1", "in_transit 4", 0, 0),
    ("transfer_shipped 4 at west destination east, transfer_lost 1 transfer T-1", "in_transit 3", 0, 0),
]

REVERSED = [
    ("expected 5, expected 2 reversed", "incoming 3"),
    ("expected 5, expectation_cancelled 2, expectation_cancelled 2 reversed", "incoming 5"),
    ("received 10, received 4 reversed", "on_hand 6"),
    ("expected 9, received 4 order PO-1, received 4 order PO-1 reversed", "incoming 9"),
    ("received 10, reserved 3, reserved 3 reversed", "on_hand 10"),
    ("received 10, reserved 3, released 3, released 1 reversed", "on_hand 10, reserved 1"),
    ("reserved 3, allocated 3 from reserved, allocated 3 from reserved reversed", "reserved 3"),
    ("allocated 3, deallocated 3 to reserved, deallocated 3 to reserved reversed", "allocated 3"),
    ("picked 3, picked 1 reversed", "picked 2"),
    ("allocated 4, picked 4, shipped 4 from allocated, shipped 4 from allocated reversed", "allocated 4, picked 4"),
    ("returned 2 to quarantined, returned 1 to quarantined reversed", "on_hand 1, quarantined 1"),
    ("quarantined 3, quarantined 1 reversed", "quarantined 2"),
    ("quarantined 3, cleared 3, cleared 1 reversed", "quarantined 1"),
    ("received 5, quarantined 2, scrapped 2 from quarantined, scrapped 2 from quarantined reversed",
     "on_hand 5, quarantined 2"),
    ("received 5, adjusted -2, adjusted -2 reversed", "on_hand 5"),
    ("received 5, transfer_received 2 transfer T-1, transfer_received 2 transfer T-1 reversed", "on_hand 5"),
    ("transfer_lost 2 transfer T-1, transfer_lost 2 transfer T-1 reversed, received 1", "on_hand 1"),
]  # fmt: skip

BELOW_ZERO = [
    ("released 3, received 5", "on_hand 5, reserved -3", 5, 3),
    ("deallocated 3, received 5", "on_hand 5, allocated -3", 5, 3),
    ("cleared 3, received 5", "on_hand 5, quarantined -3", 5, 3),
    ("expectation_cancelled 3, received 5", "on_hand 5, incoming -3", 5, 3),
    ("shipped 3", "on_hand -3", -3, 0),
    ("shipped 3, received 10", "on_hand 7", 7, 5),
    ("released 3, reserved 5, received 10", "on_hand 10, reserved 2", 8, 6),
]


@pytest.mark.parametrize(("story", "quantities", "available", "sellable"), PLAIN)
def test_each_kind_changes_the_quantities_that_it_says(
    story: str, quantities: str, available: int, sellable: int
) -> None:
    """A movement changes what its kind says, and what may be sold follows."""
    told = after(story)
    assert (told.quantities(), told.available, told.sellable) == (quantities, available, sellable)


@pytest.mark.parametrize(("story", "quantities"), REVERSED)
def test_a_reversal_undoes_its_movement(story: str, quantities: str) -> None:
    """The same movement with `reversal` takes back all that it did."""
    assert after(story).quantities() == quantities


@pytest.mark.parametrize(("story", "quantities", "available", "sellable"), BELOW_ZERO)
def test_a_quantity_below_zero_never_makes_stock_appear(
    story: str, quantities: str, available: int, sellable: int
) -> None:
    """What was released or cleared too often is written down, but sells nothing."""
    told = after(story)
    assert (told.quantities(), told.available, told.sellable) == (quantities, available, sellable)


@pytest.mark.parametrize(
    ("story", "west"),
    [
        ("received 10, transfer_shipped 4 destination west", "in_transit 4"),
        ("received 10, transfer_shipped 4 destination west, transfer_shipped 4 destination west reversed", ""),
        ("received 10, transfer_shipped 4 destination west, transfer_received 4 at west transfer T-1", "on_hand 4"),
        ("received 10, reserved 4, transfer_shipped 4 from reserved destination west", "in_transit 4"),
    ],
)
def test_a_transfer_travels_to_its_destination(story: str, west: str) -> None:
    """What leaves one location is in transit to the other until it arrives."""
    assert after(story).quantities("west") == west


@pytest.mark.parametrize(
    ("story", "applied", "duplicates"),
    [
        ("received 10, received 10 id 0", 1, 1),
        ("received 10, shipped 4 id 0", 1, 1),
        ("received 10, received 10 id 0, received 10 id 0", 1, 2),
        ("received 10, received 10 id 0 at west", 1, 1),
        ("received 10, received 10 id 0 sku B", 2, 0),
    ],
)
def test_an_id_counts_once_for_each_sku(story: str, applied: int, duplicates: int) -> None:
    """Whatever a repeated id says, it is not applied again; another SKU's line under the same id is."""
    told = after(story)
    counts = [(result.applied, result.duplicates) for result in told.results]
    assert counts == [(applied, duplicates)]


def test_a_debt_at_one_location_takes_nothing_from_another() -> None:
    """West owes 5, and east still sells its own 10 but for the safety stock."""
    told = after("received 10, shipped 5 at west")
    assert (told.sellable, told.quantities("west")) == (8, "on_hand -5")
