"""Plots: the same bytes for the same figures, and nothing of the day or the machine in them."""

import re
from xml.etree import ElementTree as ET

from bench.figures import Spread
from bench.plots import Panel, bars

RATE = Panel("movements/s", [Spread(21_000, 20_000, 22_500), None, Spread(3, 3, 3)])
CPU = Panel("CPU seconds", [Spread(50.25, 49, 51), Spread(1, 1, 1), Spread(3, 3, 3)], digits=1)
LABELS = ["uniform", "zipf 1.1", "retail"]
SVG = "{http://www.w3.org/2000/svg}"


def test_a_plot_is_the_same_whenever_it_is_drawn() -> None:
    """So a changed file means changed figures."""
    drawn = bars(LABELS, [RATE, CPU])
    assert drawn == bars(LABELS, [RATE, CPU])
    assert drawn != bars(LABELS, [CPU, RATE])


def test_a_plot_says_its_labels_and_medians_as_text() -> None:
    """They can be searched for, and one that was not measured is no zero."""
    root = ET.fromstring(bars(LABELS, [RATE, CPU]))  # noqa: S314  # our own drawing
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert set(texts) >= {*LABELS, "movements/s", "CPU seconds", "21,000", "–", "3", "50.2", "1.0", "3.0"}


def test_a_plot_holds_neither_date_nor_program() -> None:
    """What changes from day to day, or from release to release, would look like a change of figures."""
    drawn = bars(LABELS, [RATE], logarithmic=True)
    assert "movements/s (logarithmic)" in drawn
    assert re.findall(r"<metadata|Matplotlib|20\d\d-", drawn) == []
