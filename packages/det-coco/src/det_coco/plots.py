"""Plots of a page: matplotlib's, as SVG within the page, legible on light and on dark.

matplotlib comes with `det-coco[report]`.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from det_coco.page import Html, caption_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Legible on light and on dark.
COLOURS = ("#3d8bd9", "#e0781a", "#2fa36b", "#d6504c", "#9a72cf", "#a8824a", "#d069a8", "#7f8c99", "#a3a21d", "#1fa5b3")
# Stands for the page's own colour of text, which SVG calls currentColor.
_INK = "#010203"
_STYLE: dict[str, Any] = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.family": "sans-serif",
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "legend.fontsize": "small",
    "legend.framealpha": 0.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "det-coco",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def axes(title: str = "", x: str = "", y: str = "", *, width: float = 5.2, height: float = 3.4) -> "Axes":
    """Empty axes to draw on.

    Args:
        title: what is written above.
        x: name of what goes to the right.
        y: name of what goes up.
        width: inches of 72 pixels.
        height: inches of 72 pixels.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        # Importing it takes a second that who draws nothing need not wait for.
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'det-coco[report]'.") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        # Margins that fit; to have them computed is to draw twice.
        figure.subplots_adjust(left=0.14, right=0.97, bottom=0.15, top=0.91)
        made = figure.subplots()
        made.set_prop_cycle(color=COLOURS)
        made.set(title=title, xlabel=x, ylabel=y)
    return made


def logarithmic(axes: "Axes") -> None:
    """Make the axis that goes up logarithmic, with plain numbers on it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot(axes: "Axes", caption: str = "") -> Html:
    """A plot within a page, as SVG.

    Args:
        axes: what was drawn; with a legend where its lines have labels.
        caption: what is written below, text or HTML.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        # Of characters that matplotlib has no font for; the browser has one.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    # Ids of groups would occur once for each plot of the page; the others stand for what they hold.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return Html(f'<figure class="plot">{svg}{caption_of(caption)}</figure>\n')
