"""Plots: medians as bars with their smallest and largest, drawn as SVG that is the same whenever it is drawn."""

import io
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import NOT_MEASURED, Spread

WIDTH_INCHES: Final = 8.0
BAR_INCHES: Final = 0.32
HEAD_INCHES: Final = 0.7
COLOUR: Final = "#3b6ea5"
LINE_COLOUR: Final = "#1b1b1b"
STYLE: Final[Any] = {  # matplotlib types its keys one by one
    "svg.hashsalt": "onhand",  # ids follow from the content alone
    "svg.fonttype": "none",  # letters stay letters
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
TOLD: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # nothing that changes with the day or a release


class Panel(NamedTuple):
    """One figure for all rows; None where a row has none."""

    title: str
    spreads: Sequence[Spread | None]
    digits: int = 0


def bars(labels: Sequence[str], panels: Sequence[Panel], *, logarithmic: bool = False) -> str:
    """Panels beside each other with a bar for each label, the first one on top; returns the text of an SVG file."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEAD_INCHES + BAR_INCHES * len(labels)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for place, panel in zip(axes, panels, strict=True):
            _draw(place, labels, panel, logarithmic=logarithmic)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=TOLD)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _draw(axes: Axes, labels: Sequence[str], panel: Panel, *, logarithmic: bool) -> None:
    places = list(range(len(labels)))
    medians = [0.0 if spread is None else spread.median for spread in panel.spreads]
    below = [0.0 if spread is None else spread.median - spread.smallest for spread in panel.spreads]
    above = [0.0 if spread is None else spread.largest - spread.median for spread in panel.spreads]
    drawn = axes.barh(places, medians, xerr=[below, above], color=COLOUR, ecolor=LINE_COLOUR, capsize=2)
    axes.bar_label(drawn, [_median_text(spread, panel.digits) for spread in panel.spreads], padding=6)
    axes.set_title(f"{panel.title} (logarithmic)" if logarithmic else panel.title, loc="left", fontsize="medium")
    axes.set_yticks(places, labels)
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def _median_text(spread: Spread | None, digits: int) -> str:
    return NOT_MEASURED if spread is None else f"{spread.median:,.{digits}f}"
