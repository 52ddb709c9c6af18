"""Inputs for networks, and networks that are cheap to look at or loud enough to compare."""

from __future__ import annotations

import torch
from torch import nn

from depth_fusion_ros.networks.convention import lens_condition
from depth_fusion_ros.networks.registry import Network, build


def inputs(height: int = 64, width: int = 64, batch: int = 1) -> list[torch.Tensor]:
    """Left, right, RGB and the condition of a lens with k = 10 px·m focused at 0.5 m."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(batch, c, height, width, generator=generator) for c in (1, 1, 3)]
    ones = torch.ones(batch)
    return [*images, lens_condition(0.4 * ones, 10 * ones, 2 * ones)]


def skeleton(name: str) -> Network:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(name)


def loud(network: Network) -> Network:
    """Fresh heads are nearly silent; make what they see audible."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "head" in name and parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()
