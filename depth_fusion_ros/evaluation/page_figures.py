"""Figures of pages that open offline: drawn without a display, equal runs give equal bytes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width_in: float, height_in: float, *, dpi: int = 110) -> Figure:
    """An empty figure, inches; not known to pyplot, so that nothing has to close it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def inline_png(png: bytes) -> str:
    """A PNG as the `src` of an image in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, without the name and version of what drew it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def inline_figure(figure: Figure) -> str:
    """A figure as the `src` of an image in a page."""
    return inline_png(figure_png(figure))
