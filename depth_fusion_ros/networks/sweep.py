"""The recursion F_i = x_i + a_i·F_{i−1} along rows: in logarithmically many tensor operations
anywhere, and as a compiled loop with its own gradient for training on a CPU.

The loop is exact for any width. The tensor form, which is what gets exported, reaches 2^`STEPS` − 1
cells; what is farther has been multiplied with more than 60 affinities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 6
"""A sweep of tensor operations reaches 2^6 − 1 cells to either side."""


def sweep(x: Tensor, affinity: Tensor) -> Tensor:
    """Sum along the last axis, weighted by the product of the affinities in between.

    Args:
        x: (N, C, H, W) what is summed. affinity: (N, 1, H, W), 0..1, between a cell and the one
            before it.

    Returns:
        (N, C, H, W): Σ_j x_j · Π affinity between i and j.
    """
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    trained = torch.is_grad_enabled() and (x.requires_grad or affinity.requires_grad)
    if (trained and not traced and x.device.type == "cpu" and x.dtype == torch.float32
            and compiled_available()):
        result: Tensor = _CompiledSweep.apply(x, affinity)  # type: ignore[no-untyped-call]
        return result
    return tensor_sweep(x, affinity)


def tensor_sweep(x: Tensor, affinity: Tensor) -> Tensor:
    """`sweep` in operations that run, trace and export everywhere; |i − j| < 2^`STEPS`."""
    backward = F.pad(affinity, (0, 1))[..., 1:].flip(-1)
    return _one_way(x, affinity) + _one_way(x.flip(-1), backward).flip(-1) - x


def _one_way(x: Tensor, a: Tensor) -> Tensor:
    """F_i = x_i + a_i·F_{i−1} by doubling: after step k, F_i covers 2^(k+1) cells."""
    for step in range(STEPS):
        reach = 1 << step
        x = x + a * F.pad(x, (reach, 0))[..., :-reach]
        if step < STEPS - 1:
            a = a * F.pad(a, (reach, 0))[..., :-reach]
    return x


def compiled_available() -> bool:
    """Whether numba is installed, which only training needs."""
    return _loops() is not None


@functools.cache
def _loops() -> tuple[Callable[..., None], Callable[..., None]] | None:
    """The compiled forward and backward loops over (N, C, H, W), or None without numba."""
    try:
        import numba
    except ImportError:
        return None
    compile_loop: Any = numba.njit(fastmath=True)

    @compile_loop
    def forward(x, a, right, left, out):  # type: ignore[no-untyped-def]
        samples, channels, height, width = x.shape
        for row in range(samples * height):
            n, y = row // height, row % height
            for c in range(channels):
                carried = numba.float32(0)
                for i in range(width):
                    carried = x[n, c, y, i] + a[n, 0, y, i] * carried
                    right[n, c, y, i] = carried
                carried = numba.float32(0)
                for i in range(width - 1, -1, -1):
                    affinity = a[n, 0, y, i + 1] if i + 1 < width else numba.float32(0)
                    carried = x[n, c, y, i] + affinity * carried
                    left[n, c, y, i] = carried
                    out[n, c, y, i] = right[n, c, y, i] + carried - x[n, c, y, i]

    @compile_loop
    def backward(a, right, left, grad, grad_x, grad_a):  # type: ignore[no-untyped-def]
        samples, channels, height, width = right.shape
        for row in range(samples * height):
            n, y = row // height, row % height
            for i in range(width):
                grad_a[n, 0, y, i] = 0
            for c in range(channels):
                # What F_i is worth: its own gradient, and a_{i+1} of what F_{i+1} is worth.
                worth = numba.float32(0)
                for i in range(width - 1, -1, -1):
                    affinity = a[n, 0, y, i + 1] if i + 1 < width else numba.float32(0)
                    worth = grad[n, c, y, i] + affinity * worth
                    grad_x[n, c, y, i] = worth - grad[n, c, y, i]
                    if i > 0:
                        grad_a[n, 0, y, i] += worth * right[n, c, y, i - 1]
                worth = numba.float32(0)
                for i in range(width):
                    worth = grad[n, c, y, i] + a[n, 0, y, i] * worth
                    grad_x[n, c, y, i] += worth
                    if i + 1 < width:
                        grad_a[n, 0, y, i + 1] += worth * left[n, c, y, i + 1]

    return forward, backward


class _CompiledSweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, affinity: Tensor) -> Tensor:
        x, affinity = x.detach().contiguous(), affinity.detach().float().contiguous()
        right, left, out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        loops = _loops()
        assert loops is not None
        loops[0](*(t.numpy() for t in (x, affinity, right, left, out)))
        ctx.save_for_backward(affinity, right, left)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        affinity, right, left = ctx.saved_tensors
        grad = grads[0].detach().float().contiguous()
        grad_x, grad_a = torch.empty_like(grad), torch.empty_like(affinity)
        loops = _loops()
        assert loops is not None
        loops[1](*(t.numpy() for t in (affinity, right, left, grad, grad_x, grad_a)))
        return grad_x, grad_a
