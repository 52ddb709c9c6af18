"""Vague points just behind a surer one: very likely the same surface, which is marked already.

A surface whose pixels differ in σ is drawn thick: its vague pixels scatter by a tenth of the
distance and mark what is open behind it. Leaving them out is safe, as what is nearer still marks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VAGUER = 0.8
"""A point is surer than another when its σ of inverse depth is at most this share of the other's.

Above what slant alone brings to neighbours on one surface, where σ grows with Z².
"""
SIGMAS = 2.0


def behind_surer(pixels: NDArray[np.intp], depth_m: NDArray[np.float32],
                 sigma_m: NDArray[np.float32], shape: tuple[int, int],
                 square_px: int) -> NDArray[np.bool_]:
    """(N,) points that are at most `SIGMAS` of their own σ behind a surer one beside them.

    Beside a point are its square of the image and the eight around it; of each square its surest
    point is asked, unless it is left out itself. σ and distances are of inverse depth, where both
    are nearly Gaussian.

    Args:
        pixels: (N,) flat indices of the points that would mark. depth_m, sigma_m: (N,) float32 m,
            finite, depth > 0. shape: (H, W) of the image.
        square_px: side of the squares; 0 = no point is left out.
    """
    if not square_px or not len(pixels):
        return np.zeros(len(pixels), np.bool_)
    inverse = np.reciprocal(depth_m)
    sigma: NDArray[np.float32] = sigma_m * inverse * inverse
    rows, columns = (-(-side // square_px) + 2 for side in shape)  # with a rim of empty squares
    v, u = np.divmod(pixels, shape[1])
    square = (v // square_px + 1) * columns + u // square_px + 1

    by_sigma = np.argsort(-sigma, kind="stable")  # the surest of a square is written last
    surest = np.full(rows * columns, -1, np.intp)
    surest[square[by_sigma]] = by_sigma
    spokesmen = surest[surest >= 0]
    # One that is left out itself speaks for none: each point left out has a mark beside it.
    disputed = _behind_any(spokesmen, square, inverse, sigma, surest, columns)
    surest[square[spokesmen[disputed]]] = -1
    return _behind_any(np.arange(len(pixels)), square, inverse, sigma, surest, columns)


def _behind_any(points: NDArray[np.intp], square: NDArray[np.intp], inverse: NDArray[np.float32],
                sigma: NDArray[np.float32], surest: NDArray[np.intp],
                columns: int) -> NDArray[np.bool_]:
    """Which of these points are just behind the surest of a square in or around their own."""
    spoken_inverse = np.where(surest >= 0, inverse[surest], np.float32(np.nan))
    spoken_sigma = np.where(surest >= 0, sigma[surest], np.float32(np.inf))
    own_inverse, own_sigma, own_square = inverse[points], sigma[points], square[points]
    behind = np.zeros(len(points), np.bool_)
    for row in (-columns, 0, columns):
        for step in (row - 1, row, row + 1):
            beside = own_square + step
            gap = spoken_inverse[beside] - own_inverse  # NaN of an empty square is never behind
            behind |= ((spoken_sigma[beside] <= VAGUER * own_sigma) & (gap >= 0)
                       & (gap <= SIGMAS * own_sigma))
    return behind
