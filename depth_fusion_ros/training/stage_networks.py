"""Networks of the first two stages of cross-modal transfer learning: one encoder, one decoder.

Each holds the encoder modules of a `DiFuseNet` under the names they have there, so that
`stages.transfer` can copy them by name, and a small U-Net decoder that is thrown away after the
stage. Source of the scheme: DiFuse-Net, IROS 2025; the decoders are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import ConvNormAct, InvertedResidual
from depth_fusion_ros.networks.convention import (
    CONDITION_CHANNELS,
    LOG_SIGMA_RANGE,
    DepthNetwork,
    DiFuseNetOutput,
    regression_frame,
)
from depth_fusion_ros.networks.difuse_net import DiFuseNet

DECODER_CHANNELS = 48
CONTEXT_CHANNELS = (64, 96)


class StageDecoder(nn.Module):
    """U-Net decoder over features at 1/2, 1/4, …, with two numbers per pixel at every scale."""

    def __init__(self, skips: Sequence[int]) -> None:
        super().__init__()
        width = DECODER_CHANNELS
        self.sides = nn.ModuleList(ConvNormAct(c, width, 1, activation="prelu") for c in skips)
        self.mixes = nn.ModuleList(
            ConvNormAct(2 * width, width, 3, activation="prelu") for _ in skips[1:])
        self.heads = nn.ModuleList(nn.Conv2d(width, 2, 3, padding=1) for _ in skips[1:])
        for head in self.heads:
            assert isinstance(head, nn.Conv2d) and head.bias is not None
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features fine to coarse; returns (B, 2, ·, ·) maps coarse to fine, the last at 1/2."""
        maps = []
        x = self.sides[-1](features[-1])
        for index in range(len(features) - 2, -1, -1):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.mixes[index](torch.cat([x, self.sides[index](features[index])], 1))
            maps.append(self.heads[index](x))
        return maps


class _StageNetwork(DepthNetwork):
    """What both stages share: raw maps to the output that the losses take."""

    def __init__(self, network: DiFuseNet) -> None:
        super().__init__()
        self.config = network.config

    def _output(self, maps: list[Tensor], origin: Tensor, scale: Tensor, offsets: list[Tensor]
                ) -> DiFuseNetOutput:
        full = F.interpolate(maps[-1], scale_factor=2.0, mode="bilinear", align_corners=False)
        pairs = []
        for raw in (*maps, full):
            d = origin - scale * raw[:, :1]
            if self.config.output == "inverse_depth":
                d = torch.sigmoid(-d)
            pairs.append((d, (raw[:, 1:] + torch.log(scale)).clamp(*LOG_SIGMA_RANGE)))
        return DiFuseNetOutput(*pairs[-1], pairs[:-1], offsets)


class DualPixelStage(_StageNetwork):
    """Stage 1: dual-pixel encoder (blocks and attention at 1/2 and 1/4) and a decoder.

    The decoder's context, two more scales, belongs to the decoder: DiFuse-Net's dual-pixel
    encoder ends at 1/4. RGB is not looked at.
    """

    encoder = ("dual_half", "dual_quarter", "attention_half", "attention_quarter")

    def __init__(self, network: DiFuseNet) -> None:
        super().__init__(network)
        self.dual_half, self.dual_quarter = network.dual_half, network.dual_quarter
        self.attention_half = network.attention_half
        self.attention_quarter = network.attention_quarter
        half, quarter = (network.config.encoder[tap][0] for tap in network.config.taps[:2])
        extra = CONDITION_CHANNELS if network.config.condition else 0
        self.deeper = nn.ModuleList([
            InvertedResidual(2 * quarter + extra, CONTEXT_CHANNELS[0], 2, 2),
            InvertedResidual(CONTEXT_CHANNELS[0], CONTEXT_CHANNELS[1], 2, 2)])
        self.decoder = StageDecoder([2 * half, 2 * quarter + extra, *CONTEXT_CHANNELS])

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """As `DiFuseNet.forward_full`; `rgb` is not used."""
        dual_half = self.dual_half(torch.cat([left, right], 0) * 4 - 2)
        dual_quarter = self.dual_quarter(dual_half)
        half_left, half_right, half_offset = self.attention_half(*dual_half.chunk(2))
        left4, right4, quarter_offset = self.attention_quarter(*dual_quarter.chunk(2))
        quarter = [left4, right4]
        origin, scale = left.new_zeros(1), left.new_ones(1)
        if self.config.condition:
            origin, scale = regression_frame(condition)
            quarter.append(condition[:, :, None, None].expand(-1, -1, *left4.shape[2:]))
        features = [torch.cat([half_left, half_right], 1), torch.cat(quarter, 1)]
        for block in self.deeper:
            features.append(block(features[-1]))
        return self._output(self.decoder(features), origin, scale,
                            [2 * half_offset, 4 * quarter_offset])


class RgbStage(_StageNetwork):
    """Stage 2: RGB encoder and a decoder; one image has no lens, so the output is relative.

    `disparity_px` is minus a relative inverse depth (or the sigmoid's 0..1): for `affine_loss`.
    """

    encoder = ("stem", "stages", "context")

    def __init__(self, network: DiFuseNet) -> None:
        super().__init__(network)
        self.stem, self.stages, self.context = network.stem, network.stages, network.context
        skips = [network.config.encoder[tap][0] for tap in network.config.taps]
        if network.context is not None:
            skips.append(network.config.context_channels)
        self.decoder = StageDecoder(skips)

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """As `DiFuseNet.forward_full`; only `rgb` is used."""
        x = self.stem(rgb * 4 - 2)
        features = []
        for index, block in enumerate(self.stages):
            x = block(x)
            if index in self.config.taps:
                features.append(x)
        if self.context is not None:
            features.append(self.context(x))
        return self._output(self.decoder(features), rgb.new_zeros(1), rgb.new_ones(1), [])


STAGE_NETWORKS: dict[str, type[DualPixelStage] | type[RgbStage]] = {
    "dual_pixel": DualPixelStage, "rgb": RgbStage}
