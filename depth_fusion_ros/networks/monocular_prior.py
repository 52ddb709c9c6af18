"""A compact monocular network of ours: relative inverse depth of one RGB image.

It is DiFuse-Net's RGB encoder and decoder (`baselines.MonocularNet`) without a lens: shape, edges
and order of depth, up to scale and shift. Priors that users bring are in `estimation/priors.py`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.baselines import MonocularNet, monocular_config
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS, DiFuseNetOutput
from depth_fusion_ros.networks.difuse_net_config import DiFuseNetConfig, difuse_net_s_config


def prior_config() -> DiFuseNetConfig:
    """Sizes of the shipped prior."""
    return replace(monocular_config(difuse_net_s_config()), output="inverse_depth",
                   condition=False)


class MonocularPrior(nn.Module):
    """RGB (B, 3, H, W), sRGB-encoded 0..1, to relative inverse depth (B, 1, H, W), 0..1."""

    def __init__(self, config: DiFuseNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or prior_config()
        self.network = MonocularNet(self.config)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; height and width are multiples of `config.stride`."""
        return self.forward_full(rgb).disparity_px

    def forward_full(self, rgb: Tensor) -> DiFuseNetOutput:
        """The same with the coarser outputs that training wants; "disparity" is inverse depth."""
        nothing = torch.zeros(len(rgb), CONDITION_CHANNELS, device=rgb.device)
        return self.network.forward_full(rgb[:, :1], rgb[:, :1], rgb, nothing)
