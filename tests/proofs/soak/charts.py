"""Lines over time as an SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#1f6feb", "#d95f02", "#1a7f37")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure over time."""

    label: str
    times: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures of one kind."""

    title: str
    unit: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel], time: str, path: Path) -> None:
    """Draw the panels side by side. Each begins at zero, so that what is flat looks flat."""
    with mpl.rc_context({"svg.hashsalt": "poller", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(3.8 * len(panels), 2.8), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for line, colour in zip(panel.lines, COLOURS, strict=False):
                axes.plot(line.times, line.values, color=colour, linewidth=1.2, label=line.label)
            axes.set_title(panel.title, fontsize=10, loc="left")
            axes.set(xlabel=time, ylabel=panel.unit, ylim=(0, None))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.25)
            axes.legend(fontsize=8, frameon=False, loc="lower right")
        figure.savefig(path, metadata={"Date": None})
