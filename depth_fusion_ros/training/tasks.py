"""What a network is trained for: dual pixels to disparity, or a part of the focus-sweep path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.training.config import LossSection
from depth_fusion_ros.training.objective import Objective, held_out_errors
from depth_fusion_ros.training.sweep_objective import SweepObjective, held_out_sweep_errors


def make_objective(network: nn.Module, part: str, loss: LossSection) -> nn.Module:
    """Network and loss as one module; what is frozen in it has no gradients.

    Args:
        network: what is trained. part: of a focus-sweep network, else "". loss: weights.
    """
    if isinstance(network, SweepDepth):
        return SweepObjective(network, part, loss)
    return Objective(network, loss)


def measure_held_out(network: nn.Module, part: str, loss: LossSection, batches: Iterator[Any]
                     ) -> dict[str, float]:
    """Columns of the curve for a network in evaluation mode, see the two it chooses from."""
    if isinstance(network, SweepDepth):
        return held_out_sweep_errors(network, part, batches)
    return held_out_errors(network, batches, loss)
