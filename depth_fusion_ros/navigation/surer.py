"""Vague points just behind a surer one: very likely the same surface, which is marked already.

A surface whose pixels differ in σ is drawn thick: its vague pixels scatter by a tenth of the
distance and mark what is open behind it. Leaving them out is safe, as what is nearer still marks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.navigation.squares import LOW_32, least_per_square, ranked

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
    behind = np.zeros(len(pixels), np.bool_)
    if not square_px or not len(pixels):
        return behind
    inverse = np.reciprocal(depth_m)
    sigma: NDArray[np.float32] = sigma_m * inverse * inverse
    surest = _Spokesmen.of(pixels, inverse, sigma, shape, square_px)
    v, u = np.divmod(pixels, shape[1])
    square = v // square_px * surest.sigma.shape[1] + u // square_px
    # Most points have nobody surer beside them, and need no second look.
    least = np.min([near.sigma for near in surest.beside()], axis=0).ravel()
    vague = np.flatnonzero(least[square] <= VAGUER * sigma)
    inverse, sigma, square = inverse[vague], sigma[vague], square[vague]
    found = np.zeros(len(vague), np.bool_)
    for near in surest.beside():
        found |= _is_behind(inverse, sigma, near.inverse.ravel()[square],
                            near.sigma.ravel()[square])
    behind[vague] = found
    return behind


@dataclass(frozen=True)
class _Spokesmen:
    """Inverse depth and its σ of the surest point of each square, (rows, columns) float32; NaN and
    +Inf where there is none."""

    inverse: NDArray[np.float32]
    sigma: NDArray[np.float32]

    @classmethod
    def of(cls, pixels: NDArray[np.intp], inverse: NDArray[np.float32],
           sigma: NDArray[np.float32], shape: tuple[int, int], square_px: int) -> _Spokesmen:
        """Those of all squares, without the ones that are behind another one.

        One that is left out itself speaks for none: each point left out has a mark beside it.
        """
        points = np.zeros(shape, np.intp)
        points.flat[pixels] = np.arange(len(pixels))
        sigmas = np.full(shape, np.inf, np.float32)
        sigmas.flat[pixels] = sigma
        keys = least_per_square(ranked(sigmas, points), square_px)
        chosen = (keys & LOW_32).astype(np.intp)
        is_there = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32) < np.inf
        every = cls(np.where(is_there, inverse[chosen], np.float32(np.nan)),
                    np.where(is_there, sigma[chosen], np.float32(np.inf)))
        out = np.zeros(every.sigma.shape, np.bool_)
        for near in every.beside():
            out |= _is_behind(every.inverse, every.sigma, near.inverse, near.sigma)
        return cls(np.where(out, np.float32(np.nan), every.inverse),
                   np.where(out, np.float32(np.inf), every.sigma))

    def beside(self) -> Iterator[_Spokesmen]:
        """Those of the square itself and of the eight around it, nine times for all squares."""
        rows, columns = self.sigma.shape
        inverse = np.pad(self.inverse, 1, constant_values=np.nan)
        sigma = np.pad(self.sigma, 1, constant_values=np.inf)
        for top in range(3):
            for left in range(3):
                part = slice(top, top + rows), slice(left, left + columns)
                yield _Spokesmen(inverse[part], sigma[part])


def _is_behind(inverse: NDArray[np.float32], sigma: NDArray[np.float32],
               near_inverse: NDArray[np.float32], near_sigma: NDArray[np.float32]
               ) -> NDArray[np.bool_]:
    gap = near_inverse - inverse  # NaN, where nobody is, is never behind
    with np.errstate(invalid="ignore"):
        return np.asarray((near_sigma <= VAGUER * sigma) & (gap >= 0) & (gap <= SIGMAS * sigma),
                          np.bool_)
