"""One picture that shows at first sight what an estimator did: the contact sheet.

    write_contact_sheet(path, samples, title="...")

One row for each sample. First what the estimator saw: RGB and left − right of a dual-pixel set
(`ContactSample`); nearest and farthest slice and the all-in-focus picture of a focus sweep
(`SweepContactSample`). Then truth, depth, sigma, depth − truth. Truth and depth share one
logarithmic colour range, all rows share the ranges of their column, titles carry units, and pixels
without a value are a flat grey that no colour map here contains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

INVALID_COLOUR = "#8c8c8c"
DEPTH_COLUMNS = ("truth [m]", "depth [m]", "sigma [m]", "depth − truth [m]")


class ContactRow(Protocol):
    """What a row of any sheet has; see `ContactSample` for the attributes."""

    @property
    def label(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def truth_m(self) -> NDArray[np.float32]: ...
    @property
    def depth_m(self) -> NDArray[np.float32]: ...
    @property
    def sigma_m(self) -> NDArray[np.float32]: ...

    def seen(self) -> dict[str, NDArray[Any]]:
        """Return title -> picture of what the estimator saw.

        A picture is (H, W, 3) uint8 colour, or (H, W) signed values around 0.
        """
        ...


@dataclass(frozen=True)
class PictureRow:
    """A row of which the pictures of what was seen are given; the rest as of `ContactSample`."""

    label: str
    note: str
    truth_m: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    pictures: Mapping[str, NDArray[Any]]

    def seen(self) -> dict[str, NDArray[Any]]:
        """See `ContactRow.seen`."""
        return dict(self.pictures)


@dataclass(frozen=True)
class ContactSample:
    """What one row shows; all arrays of one sample may differ in size.

    Attributes:
        label: at the left of the row, e.g. "set 3".
        rgb: (H, W, 3) uint8.
        left, right: (H, W) counts of one dtype.
        truth_m, depth_m, sigma_m: (H, W) metres; NaN is drawn as invalid, +Inf as the far end of
            the range and −Inf as its near end. truth and depth must have one shape.
        note: small text under the label, e.g. the row's AbsRel.
    """

    label: str
    rgb: NDArray[np.uint8]
    left: NDArray[Any]
    right: NDArray[Any]
    truth_m: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    note: str = ""

    def seen(self) -> dict[str, NDArray[Any]]:
        """Return the first columns; see `ContactRow.seen`."""
        difference = self.left.astype(np.float32) - self.right.astype(np.float32)
        return {"RGB": self.rgb, "left − right [counts]": difference}


@dataclass(frozen=True)
class SweepContactSample:
    """The same for a focus sweep.

    Attributes:
        nearest, farthest: (H, W, 3) uint8 slices focused nearest and farthest.
        all_in_focus: (H, W, 3) uint8 picture made of the sharpest parts.
    """

    label: str
    nearest: NDArray[np.uint8]
    farthest: NDArray[np.uint8]
    all_in_focus: NDArray[np.uint8]
    truth_m: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    note: str = ""

    def seen(self) -> dict[str, NDArray[Any]]:
        """Return the first columns; see `ContactRow.seen`."""
        return {"nearest slice": self.nearest, "farthest slice": self.farthest,
                "all in focus": self.all_in_focus}


@dataclass(frozen=True)
class _Range:
    """Colour map and limits of one column."""

    colours: Colormap
    low: float
    high: float
    logarithmic: bool = False

    def norm(self) -> Normalize:
        """Return the map from values to 0..1."""
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)


def write_contact_sheet(path: Path, samples: Sequence[ContactRow], *, title: str) -> Path:
    """Draw the samples to a PNG and return its path.

    Raises:
        ValueError: there are no samples, or truth and depth of one differ in shape.
    """
    if not samples:
        raise ValueError("contact sheet without samples: nothing was estimated, nothing to draw")
    for sample in samples:
        if sample.truth_m.shape != sample.depth_m.shape:
            raise ValueError(
                f"{sample.label}: truth {sample.truth_m.shape} and depth {sample.depth_m.shape} "
                "must have one shape"
            )
    columns = (*samples[0].seen(), *DEPTH_COLUMNS)
    height, width = samples[0].depth_m.shape
    cell_in = 2.9
    row_in = cell_in * height / width
    size = (cell_in * len(columns) + 1.1, row_in * len(samples) + 1.75)
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(samples), len(columns), squeeze=False)
    figure.subplots_adjust(
        left=0.85 / size[0],
        right=1 - 0.1 / size[0],
        top=1 - 0.85 / size[1],
        bottom=0.85 / size[1],
        wspace=0.03,
        hspace=0.05,
    )
    figure.suptitle(title, fontsize=15, y=1 - 0.12 / size[1], va="top")
    ranges = _colour_ranges(samples)
    for cells, sample in zip(axes, samples, strict=True):
        _draw_row(cells, sample, ranges)
    for cell, name in zip(axes[0], columns, strict=True):
        cell.set_title(name, fontsize=13)
    _draw_colour_bars(figure, axes[-1], ranges)
    figure.legend(
        handles=[Patch(facecolor=INVALID_COLOUR, edgecolor="black", label="no value (NaN)")],
        loc="lower left",
        bbox_to_anchor=(0.85 / size[0], 0.2 / size[1]),
        fontsize=11,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _colour_ranges(samples: Sequence[ContactRow]) -> list[_Range | None]:
    """Return one range for each column, shared by all rows; None for colour pictures."""
    seen = [_range_of_signs(column) for column in zip(*(s.seen().values() for s in samples))]
    truths = [s.truth_m for s in samples]
    sigmas = [s.sigma_m for s in samples]
    error = _percentile([_error(s) for s in samples], 90, absolute=True)
    depth = _logarithmic("turbo_r", _percentile(truths, 1), _percentile(truths, 99))
    return [
        *seen,
        depth,
        depth,
        _logarithmic("magma", _percentile(sigmas, 2), _percentile(sigmas, 98)),
        _Range(_with_invalid("RdBu"), -error, error),
    ]


def _draw_row(cells: Sequence[Axes], sample: ContactRow, ranges: list[_Range | None]) -> None:
    pictures: tuple[NDArray[Any], ...] = (
        *sample.seen().values(),
        sample.truth_m,
        sample.depth_m,
        sample.sigma_m,
        _error(sample),
    )
    for cell, picture, scale in zip(cells, pictures, ranges, strict=True):
        cell.set_xticks([])
        cell.set_yticks([])
        if scale is None:
            cell.imshow(picture, interpolation="nearest")
            continue
        limited = np.clip(picture, scale.low, scale.high)  # ±Inf go to the ends, NaN stays
        shown = np.ma.masked_invalid(limited)
        cell.imshow(shown, cmap=scale.colours, norm=scale.norm(), interpolation="nearest")
    cells[0].set_ylabel(
        f"{sample.label}\n{sample.note}".strip(), fontsize=11, rotation=90, labelpad=6
    )


def _draw_colour_bars(
    figure: Figure, bottom_cells: Sequence[Axes], ranges: list[_Range | None]
) -> None:
    """Draw a horizontal colour bar under each column that has a range."""
    height_in = figure.get_size_inches()[1]
    for cell, scale in zip(bottom_cells, ranges, strict=True):
        if scale is None:
            continue
        box = cell.get_position()
        where = (box.x0 + 0.04 * box.width, 0.5 / height_in, 0.92 * box.width, 0.16 / height_in)
        bar_axes = figure.add_axes(where)
        mappable = ScalarMappable(scale.norm(), scale.colours)
        bar = figure.colorbar(mappable, cax=bar_axes, orientation="horizontal")
        bar.ax.tick_params(labelsize=10)
        if scale.logarithmic:
            ticks = [float(t) for t in np.geomspace(scale.low, scale.high, 6)[1:-1]]
            bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
            bar.ax.minorticks_off()
        else:
            bar.ax.locator_params(nbins=4)


def _error(sample: ContactRow) -> NDArray[np.float32]:
    """Return depth − truth in metres, (H, W); ±Inf of the depth stay, so they show as extremes."""
    with np.errstate(invalid="ignore"):
        error = sample.depth_m - sample.truth_m
    return np.where(np.isfinite(sample.truth_m), error, np.nan).astype(np.float32)


def _range_of_signs(column: Sequence[NDArray[Any]]) -> _Range | None:
    """Return a range symmetrical about 0 for the pictures of a column; None for colour."""
    if column[0].ndim == 3:
        return None
    most = _percentile(column, 99, absolute=True)
    return _Range(_with_invalid("PuOr"), -most, most)


def _percentile(arrays: Sequence[NDArray[Any]], percent: float, *, absolute: bool = False) -> float:
    """Return a percentile of the finite values of all arrays; 1.0 if there is none or it is 0."""
    values = np.concatenate([a[np.isfinite(a)].ravel() for a in arrays])
    if values.size == 0:
        return 1.0
    found = float(np.percentile(np.abs(values) if absolute else values, percent))
    return found if found != 0.0 else 1.0


def _logarithmic(colours: str, low: float, high: float) -> _Range:
    """Return a logarithmic range for positive values; a degenerate one is widened."""
    low = max(low, 1e-6)
    return _Range(_with_invalid(colours), low, max(high, 1.5 * low), logarithmic=True)


def _with_invalid(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad=INVALID_COLOUR)
