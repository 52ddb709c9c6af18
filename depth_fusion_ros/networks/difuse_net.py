"""DiFuse-Net: depth from a dual-pixel pair and RGB, and its small sibling.

Siamese dual-pixel encoder at 1/2 and 1/4, WBiPAM at both scales, RGB encoder, three-map fusion
at the two scales, U-Net decoder with PReLU and an output at every scale. Source: Swami et al.,
IROS 2025 (arXiv 2506.14709); implemented from its published equations. What we add, each behind a
switch of `DiFuseNetConfig`: closed-form evidence, the lens as a condition, log-uncertainty, and
an output in pixels of signed disparity. The paper's network is `difuse_net(paper=True)`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.aggregation import GROUPS, EdgeAwareAggregation
from depth_fusion_ros.networks.blocks import (
    ConvNormAct,
    HeadConv,
    InvertedResidual,
    replace_prelu,
    stage,
)
from depth_fusion_ros.networks.convention import (
    CONDITION_CHANNELS,
    LOG_SIGMA_RANGE,
    UNKNOWN_FRAME_PX,
    DepthNetwork,
    DiFuseNetOutput,
    inverse_log_linear,
    log_linear,
    regression_frame,
)
from depth_fusion_ros.networks.difuse_net_config import (
    CONFIGS,
    DiFuseNetConfig,
    difuse_net_config,
    difuse_net_s_config,
)
from depth_fusion_ros.networks.evidence import channel_count, dual_pixel_evidence
from depth_fusion_ros.networks.fusion import ThreeMapFusion
from depth_fusion_ros.networks.matchers import parallax_matcher

__all__ = ["CONFIGS", "DiFuseNet", "DiFuseNetConfig", "build", "difuse_net_config",
           "difuse_net_s_config", "rgb_encoder"]


class DecoderBlock(nn.Module):
    """Upsample ×2, concatenate the skip, two convolutions with PReLU."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(inputs, outputs, 1, activation="prelu")
        self.mix = nn.Sequential(
            ConvNormAct(outputs + skip, outputs, 3, activation="prelu"),
            ConvNormAct(outputs, outputs, 3, activation="prelu"))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, skip, 2H, 2W) to (B, outputs, 2H, 2W)."""
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        y: Tensor = self.mix(torch.cat([x, skip], 1))
        return y


def rgb_encoder(config: DiFuseNetConfig
                ) -> tuple[nn.Module, nn.ModuleList, InvertedResidual | None]:
    """Stem (B, 3, H, W) → 1/2, the stages after it, and the context at half of the last tap."""
    stem = ConvNormAct(3, config.stem, 3, 2)
    stages, channels = [], config.stem
    for index, (outputs, repeats, stride, expansion, kernel) in enumerate(config.encoder):
        stages.append(stage(channels, outputs, repeats, stride, expansion, kernel,
                            index < config.fused_stages))
        channels = outputs
    context = (InvertedResidual(config.encoder[config.taps[-1]][0], config.context_channels, 2, 2)
               if config.context_channels else None)
    return stem, nn.ModuleList(stages), context


class DiFuseNet(DepthNetwork):
    """See the module docstring; `forward` is for deployment, `forward_full` for training."""

    def __init__(self, config: DiFuseNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem, self.stages, self.context = rgb_encoder(config)
        taps = [config.encoder[t][0] for t in config.taps]
        expansion = config.dual_pixel_expansion
        fused = config.fused_stages > 0
        self.dual_half = InvertedResidual(1, taps[0], 2, (8 if fused else 4) * expansion,
                                          fused=fused)
        self.dual_quarter = InvertedResidual(taps[0], taps[1], 2, expansion, fused=fused)
        self.attention_half = parallax_matcher(taps[0], config.attention)
        self.attention_quarter = parallax_matcher(taps[1], config.attention)
        votes = config.evidence_windows if config.evidence else 0
        hint = (channel_count(votes) if config.evidence else 0) + (
            CONDITION_CHANNELS + votes if config.condition else 0) + int(config.attention_offsets)
        self.fusion_half = ThreeMapFusion(taps[0], hint, config.fusion_weights, config.fusion)
        self.fusion_quarter = ThreeMapFusion(taps[1], hint, config.fusion_weights, config.fusion)
        skips = taps if config.context_channels else taps[:-1]
        channels = config.context_channels or taps[-1]
        blocks, heads = [], []
        for outputs, skip in zip(config.decoder, reversed(skips), strict=True):
            blocks.append(DecoderBlock(channels, skip, outputs))
            heads.append(HeadConv(outputs, 2, 1))
            channels = outputs
        self.decoder = nn.ModuleList(blocks)
        self.heads = nn.ModuleList(heads[:-1])
        self.aggregation = EdgeAwareAggregation(config.decoder[-2]) if config.aggregation else None
        if config.aggregation:
            votes += GROUPS
            hint += (3 if config.condition else 2) * GROUPS
        self.refine = ConvNormAct(channels + hint, channels, 3, activation="prelu")
        self.head_half = HeadConv(channels, 3 + votes, 3, padding=1)
        self.head_full = HeadConv(channels, 8, 3, padding=1)
        for head in [*self.heads, self.head_half, self.head_full]:
            assert isinstance(head, nn.Conv2d)
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        if not config.learned_slopes:
            replace_prelu(self)
        if config.output == "disparity" and config.condition:
            for head in [*self.heads, self.head_half]:
                head.bias.data[0] = 0.0 if config.log_linear else 1.0  # start at 1 dioptre

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """See `DepthNetwork.forward_full`."""
        config = self.config
        votes: Tensor | None = None
        hints: list[Tensor] = []
        if config.evidence:
            matched = dual_pixel_evidence(left, right).smallest(config.evidence_windows)
            votes, moments = matched.disparity_px, matched.moments
            hints.append(matched.channels())
        half_shape = (-1, -1, left.shape[2] // 2, left.shape[3] // 2)
        if config.condition:
            origin, scale = regression_frame(condition)
            if config.log_linear:
                known = condition[:, :1, None, None] > 0
                origin, scale = (torch.where(known, value, torch.full_like(value, default))
                                 for value, default in zip((origin, scale), UNKNOWN_FRAME_PX,
                                                           strict=True))
            hints.append(condition[:, :, None, None].expand(half_shape))
            if votes is not None:
                hints.append(((origin - votes) / scale).clamp(-2, 8) / 3)
        else:
            origin, scale = left.new_zeros(1), left.new_ones(1)

        views = torch.cat([left, right], 0) * 4 - 2
        dual_half = self.dual_half(views)
        dual = (dual_half, self.dual_quarter(dual_half))
        offsets: list[Tensor] = []
        skips: list[Tensor] = []
        x = self.stem(rgb * 4 - 2)
        for index, block in enumerate(self.stages):
            x = block(x)
            if index not in config.taps:
                continue
            if len(skips) < 2:
                extra = [F.avg_pool2d(h, 2) for h in hints] if skips else list(hints)
                fused, offset = self._fuse(len(skips), dual[len(skips)], x, extra)
                if config.attention.kind != "none":
                    offsets.append(offset)
                skips.append(fused)
                x = fused if config.fused_trunk else x
            else:
                skips.append(x)
        late_hints: list[Tensor] = []
        x = skips.pop() if self.context is None else self.context(x)
        intermediate = []
        for index, block in enumerate(self.decoder):
            x = block(x, skips[-1 - index])
            if self.aggregation is not None and index == len(self.decoder) - 2:
                assert votes is not None
                gathered, energy, mean, s = self.aggregation(
                    x, F.avg_pool2d(moments, 2), F.avg_pool2d(votes[:, -1:], 2))
                intermediate.append(self._finish(mean, s, scale))
                fields = [gathered / 4, energy]
                if config.condition:
                    fields.append(((origin - gathered) / scale).clamp(-2, 8) / 3)
                gathered, *fields = (F.interpolate(
                    f, scale_factor=2.0, mode="bilinear", align_corners=False)
                    for f in (gathered, *fields))
                votes = torch.cat([votes, gathered], 1)
                late_hints = fields
            if index < len(self.heads):
                h, s = self.heads[index](x).split(1, 1)
                intermediate.append(self._finish(origin - scale * self._inverse_depth(h), s,
                                                 scale))
        x = self.refine(torch.cat(
            [x, *hints, *late_hints, *([offsets[0] / 4] if config.attention_offsets else [])], 1))
        half = self.head_half(x)
        s, blend = half[:, 1:2], half[:, 2:]
        d = origin - scale * self._inverse_depth(half[:, :1])
        if votes is not None:
            # A convex vote between the matched disparities and the regressed one, which is
            # supervised on its own as well: a vote alone starves it of gradient.
            intermediate.append(self._finish(d, s, scale))
            share = torch.softmax(blend, 1)
            d = share[:, :1] * d + (share[:, 1:] * votes).sum(1, keepdim=True)
        intermediate.append(self._finish(d, s, scale))
        h = (origin - d) / scale
        coarse = torch.cat([inverse_log_linear(h) if config.log_linear else h, s], 1)
        h, s = (F.pixel_shuffle(self.head_full(x), 2) + F.interpolate(
            coarse, scale_factor=2.0, mode="bilinear", align_corners=False)).split(1, 1)
        finest = self._finish(origin - scale * self._inverse_depth(h), s, scale)
        return DiFuseNetOutput(*finest, intermediate, offsets)

    def _fuse(self, scale: int, dual: Tensor, rgb: Tensor, extra: list[Tensor]
              ) -> tuple[Tensor, Tensor]:
        """WBiPAM and three-map fusion at 1/2 (scale 0) or 1/4 (scale 1).

        Returns:
            fused features and the attention's offset in full-resolution px.
        """
        attention, fusion = ((self.attention_half, self.fusion_half) if scale == 0 else
                             (self.attention_quarter, self.fusion_quarter))
        left, right, offset = attention(*dual.chunk(2))
        offset_px = offset * 2 ** (scale + 1)
        if self.config.attention_offsets:
            extra = [*extra, offset_px / 4]
        return fusion(left, right, rgb, extra), offset_px

    def _inverse_depth(self, x: Tensor) -> Tensor:
        """What a head's first number means: h of the regression frame."""
        return log_linear(x) if self.config.log_linear else x

    def _finish(self, d: Tensor, log_sigma: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.output == "inverse_depth":
            d = torch.sigmoid(-d)  # d falls with inverse depth
        return d, (log_sigma + torch.log(scale)).clamp(*LOG_SIGMA_RANGE)


def build(name: str) -> DiFuseNet:
    """Build "difuse_net" or "difuse_net_s" with fresh weights.

    Raises:
        ValueError: unknown name; the text lists the known ones.
    """
    if name not in CONFIGS:
        raise ValueError(f"network {name!r}: no such network; use one of {sorted(CONFIGS)}")
    return DiFuseNet(CONFIGS[name]())
