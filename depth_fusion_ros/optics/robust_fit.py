"""Small fits: a line whose outliers are forgotten, and damped least squares for a few parameters.

Sources: Huber 1981 (weights); Levenberg 1944, Marquardt 1963 (damping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HUBER = 1.345
MAD_TO_SIGMA = 1.4826
ROUNDS = 30
STEP = 1e-6

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Parameters (P,), their standard errors (P,), NaN where undetermined, and residuals (N,)."""

    parameters: Numbers
    errors: Numbers
    residuals: Numbers


def huber_linear(design: Numbers, values: Numbers) -> Fit:
    """Solve values ≈ design @ p, large residuals counting less.

    Args:
        design: (N, P). values: (N,), N ≥ P.

    Raises:
        ValueError: the rows do not determine the parameters.
    """
    count, size = design.shape
    if count < size or np.linalg.matrix_rank(design) < size:
        raise ValueError(f"{count} equations of rank {np.linalg.matrix_rank(design)} for {size} "
                         "unknowns: need as many independent ones; record more distances")
    weight: Numbers = np.ones(count)
    solution: Numbers = np.zeros(size)
    for _ in range(ROUNDS):
        root = np.sqrt(weight)
        solution = np.asarray(np.linalg.lstsq(design * root[:, None], values * root,
                                              rcond=None)[0], np.float64)
        residual = values - design @ solution
        scale = MAD_TO_SIGMA * float(np.median(np.abs(residual)))
        if scale < 1e-12:
            break
        weight = np.minimum(1, HUBER * scale / np.maximum(np.abs(residual), 1e-300))
    residual = values - design @ solution
    free = count - size
    errors = np.full(size, np.nan)
    if free > 0:
        inverse = np.linalg.pinv(design.T @ (weight[:, None] * design))
        variance = float((weight * residual**2).sum()) / free
        errors = np.sqrt(np.maximum(variance * np.diag(inverse), 0))
    return Fit(solution, errors, residual)


def damped_least_squares(residuals_of: Callable[[Numbers], Numbers], start: Numbers) -> Fit:
    """Minimise Σ residuals² by Levenberg and Marquardt with a numeric Jacobian.

    Args:
        residuals_of: parameters (P,) → residuals (N,), finite near the solution.
        start: (P,), near enough to fall into the right minimum.
    """
    p = np.asarray(start, np.float64).copy()
    residual = residuals_of(p)
    damping = 1e-3
    jacobian = _jacobian(residuals_of, p, residual)
    for _ in range(100):
        normal = jacobian.T @ jacobian
        slope = jacobian.T @ residual
        step = -np.linalg.lstsq(normal + damping * np.diag(np.diag(normal) + 1e-12), slope,
                                rcond=None)[0]
        trial = residuals_of(p + step)
        if np.isfinite(trial).all() and trial @ trial < residual @ residual:
            done = residual @ residual - trial @ trial < 1e-12 * (residual @ residual)
            p, residual, damping = p + step, trial, max(damping / 5, 1e-12)
            jacobian = _jacobian(residuals_of, p, residual)
            if done:
                break
        else:
            damping *= 5
            if damping > 1e8:
                break
    free = residual.size - p.size
    errors = np.full(p.size, np.nan)
    if free > 0:
        covariance = np.linalg.pinv(jacobian.T @ jacobian) * float(residual @ residual) / free
        errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return Fit(p, errors, residual)


def _jacobian(residuals_of: Callable[[Numbers], Numbers], p: Numbers, residual: Numbers
              ) -> Numbers:
    columns = []
    for index in range(p.size):
        step = np.zeros_like(p)
        step[index] = STEP * max(abs(p[index]), 1e-3)
        columns.append((residuals_of(p + step) - residual) / step[index])
    return np.stack(columns, -1)


__all__ = ["Fit", "Numbers", "damped_least_squares", "huber_linear"]
