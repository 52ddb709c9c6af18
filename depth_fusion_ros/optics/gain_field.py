"""How a quantity of a lens varies over the image: a low-order polynomial of the field.

Real dual-pixel sensors do not obey one k: the microlenses' split turns with the angle of the
light, so the gain falls from the centre to the sides (by 45 % on a 50 mm lens, measured), and
field curvature moves the focus by hundredths of a dioptre. Both are smooth:

    d(u, v) = k·r(u, v) · (F + s(u, v) − 1/Z)

with u, v in −1 … 1 from the left to the right and from the top to the bottom *edge* of the image,
so the same numbers hold at every resolution of the same field of view. r is 1 and s is 0 at the
image centre: k and F are the values there.

A polynomial is written by its terms, ``{"x2": -0.62, "y1": 0.01}`` for −0.62·u² + 0.01·v.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MAX_POWER = 6
CHECK_POINTS = 65
Term = tuple[int, int]


@dataclass(frozen=True)
class FieldPolynomial:
    """Σ c·u^i·v^j over the image, without a constant term: 0 at the centre.

    Attributes:
        terms: (i, j, c) per monomial, 0 < i + j ≤ 6, each pair of powers once.

    Raises:
        ValueError: a power is out of range or occurs twice, or a coefficient is not finite.
    """

    terms: tuple[tuple[int, int, float], ...]

    def __post_init__(self) -> None:
        seen = set()
        for i, j, value in self.terms:
            if i < 0 or j < 0 or not 0 < i + j <= MAX_POWER or (i, j) in seen:
                raise ValueError(
                    f"field term x{i}y{j}: powers must be >= 0, their sum 1 to {MAX_POWER}, and "
                    "each pair may occur once; the value at the centre is kept elsewhere"
                )
            if not math.isfinite(value):
                raise ValueError(
                    f"field term x{i}y{j} = {value!r}: must be finite; calibrate again"
                )
            seen.add((i, j))

    def on_grid(self, width_px: int, height_px: int) -> NDArray[np.float32]:
        """Values at the pixel centres, (H, W) float32; a shared, read-only array."""
        return _on_grid(self, width_px, height_px)

    def at(self, u: NDArray[np.floating], v: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values at normalised coordinates u, v (−1 … 1 at the image edges) of one shape."""
        total = np.zeros(np.broadcast_shapes(np.shape(u), np.shape(v)))
        for i, j, value in self.terms:
            total += value * np.asarray(u, np.float64) ** i * np.asarray(v, np.float64) ** j
        return total

    @property
    def mean(self) -> float:
        """Mean over the image area: odd powers vanish, u^i of an even i has the mean 1/(i + 1)."""
        return float(sum(c / ((i + 1) * (j + 1)) for i, j, c in self.terms
                         if i % 2 == 0 and j % 2 == 0))

    def extremes(self) -> tuple[float, float]:
        """Return (smallest, largest) value on a grid that includes the image's edges and 0."""
        line = np.linspace(-1, 1, CHECK_POINTS)
        values = self.at(line[None], line[:, None])
        return float(values.min()), float(values.max())

    def to_dict(self) -> dict[str, float]:
        """Return the terms by name, e.g. ``{"x2": -0.62, "x1y1": 0.01}``."""
        return {term_name(i, j): float(value) for i, j, value in self.terms}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> FieldPolynomial:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a name is not x<i>, y<j> or x<i>y<j>, or a value is not a number.
        """
        terms = []
        for name, value in values.items():
            match = re.fullmatch(r"(?:x(\d))?(?:y(\d))?", str(name))
            if not name or match is None:
                raise ValueError(
                    f"field term {name!r}: must be named by its powers, such as x2, y1 or x1y2")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"field term {name} = {value!r}: must be a number")
            terms.append((int(match.group(1) or 0), int(match.group(2) or 0), float(value)))
        return cls(tuple(terms))


def check_gain_field(field: FieldPolynomial) -> None:
    """Refuse a relative gain 1 + field that is not positive everywhere in the image.

    Raises:
        ValueError: with the smallest value.
    """
    lowest = 1.0 + field.extremes()[0]
    if not lowest > 0:
        raise ValueError(
            f"gain field falls to {lowest:.3g} of the centre's k: must be > 0 everywhere in the "
            "image; calibrate with targets that cover the corners, or with fewer terms"
        )


def term_name(i: int, j: int) -> str:
    """Name of u^i·v^j, e.g. "x2", "y1", "x1y2"."""
    return (f"x{i}" if i else "") + (f"y{j}" if j else "")


def even_terms(order_x: int, order_y: int) -> tuple[Term, ...]:
    """Powers of a field that is symmetric about both axes: u², u⁴ … and v², v⁴ …, no products."""
    along_x = tuple((i, 0) for i in range(2, order_x + 1, 2))
    return along_x + tuple((0, j) for j in range(2, order_y + 1, 2))


def all_terms(order: int) -> tuple[Term, ...]:
    """All powers with 0 < i + j ≤ order, by rising total power."""
    return tuple((total - j, j) for total in range(1, order + 1) for j in range(total + 1))


def monomials(terms: Sequence[Term], u: NDArray[np.float64], v: NDArray[np.float64]
              ) -> NDArray[np.float64]:
    """Design matrix (N, len(terms)) of the powers at (N,) coordinates."""
    columns = [u**i * v**j for i, j in terms]
    return np.stack(columns, -1) if columns else np.zeros((u.size, 0))


def normalised_grid(width_px: int, height_px: int
                    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(u, v) of the pixel centres: (1, W) and (H, 1), ±1 at the image's edges."""
    u = (2 * np.arange(width_px) + 1) / width_px - 1
    v = (2 * np.arange(height_px) + 1) / height_px - 1
    return u[None], v[:, None]


@lru_cache(maxsize=8)
def _on_grid(field: FieldPolynomial, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Cached: a camera asks for the same grid with every frame."""
    values = field.at(*normalised_grid(width_px, height_px)).astype(np.float32)
    values.flags.writeable = False
    return values
