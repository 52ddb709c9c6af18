"""Our fusion of a focus sweep's depth with a monocular prior: align first, then attend.

The published network (`crossdepth.py`) loses to an explicit scale and shift with refinement; its
authors name why. Here: the prior is normalised and aligned in closed form with weights 1/σ², and
judged by what it then still misses (`alignment.py`); attention runs in windows, in memory linear
in the image, four layers deep, with learned relative positions; a decoder with skips brings it back
to full resolution along the edges of the image; and what comes out is a correction of two metric
maps, with its own uncertainty.

    D_p = D_m + β·(D_P − D_m)                                  D_P: the plane around the pixel
    D = α·D_p + (1 − α)·D_g + σ·r,    D_g = scale·D_r + shift,    1/σ² = 1/σ_m² + 1/σ_g²

Before that what focus says may go over to the plane that fits its surroundings
(`local_planes.py`): a wall that is measured at its poster is known where it is blank. α, β, r and
the logarithm of the result's scale over σ are predicted per pixel. They begin at the shares that
independent measurements deserve: β at σ_m²/(σ_m² + σ_P²), α at 1/(1 + σ_f²/σ_g²) with the smaller
of σ_m and σ_P for σ_f: focus where it is sure, or its surroundings are, the prior where focus is
blank and the prior is right elsewhere. So a strong prior that a user
brings counts, and a weak one does not; and a correction that is small beside what is known does
not spoil a far surface, where a hundredth of a dioptre is metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_fusion_ros.networks.alignment import (
    align,
    inverse_variance,
    normalise_prior,
    prior_deviation,
)
from depth_fusion_ros.networks.attention_layers import WindowAttention
from depth_fusion_ros.networks.blocks import ConvNormAct, HeadConv, enlarge
from depth_fusion_ros.networks.local_planes import local_planes

LOG_SIGMA_RANGE = (-7.0, 3.0)
SIGMA_FLOOR_DIOPTERS = 0.01
LARGEST_START_LOGIT = 4.0
"""Of the shares before anything is learned: 0.018 to 0.982, so that gradients pass."""
LARGEST_PLANE_STEP = 2.0
"""A plane moves a measurement by so many of its σ at most."""


@dataclass(frozen=True)
class AttentionFusionConfig:
    """Sizes of the fusion.

    Attributes:
        channels: of tokens at 1/4; fine: of the features at 1/2 and 1/1. heads, window: of
            attention, cells at 1/4. blocks: pairs of a plain and a shifted window.
        align_first: False leaves the prior unaligned (ablation). judge_prior: False begins α by a
            fixed limit of σ_m, however good the prior, and corrects in dioptres (ablation, and
            weights before 0.4.0). planes: False leaves what focus says as it is (ablation, and
            weights before 0.7.0).
    """

    channels: int = 48
    fine: tuple[int, int] = (24, 12)
    heads: int = 4
    window: int = 8
    blocks: int = 2
    align_first: bool = True
    judge_prior: bool = True
    planes: bool = True

    @property
    def stride(self) -> int:
        """Height and width must be multiples of it."""
        return 4


@dataclass(frozen=True)
class FusedDepth:
    """Result of a fusion, (B, 1, H, W) each.

    Attributes:
        diopters: inverse depth. log_sigma: natural logarithm of its Laplace scale, dioptres.
        measured_share: α, 0 = prior alone, 1 = focus alone.
        aligned: D_g, the prior in dioptres.
        plane_share: β, 1 = the plane around the pixel stands for its own measurement; zeros
            without planes.
    """

    diopters: Tensor
    log_sigma: Tensor
    measured_share: Tensor
    aligned: Tensor
    plane_share: Tensor


class _Layer(nn.Module):
    """Both branches attend to themselves, then the prior's branch asks the measured one."""

    def __init__(self, config: AttentionFusionConfig, shifted: bool) -> None:
        super().__init__()
        c = config.channels
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for _ in range(6))
        self.of_measured, self.of_prior, self.across = (
            WindowAttention(c, config.heads, config.window, shifted) for _ in range(3))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1), nn.GELU(), nn.Conv2d(2 * c, c, 1))
            for _ in range(2))

    def forward(self, measured: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        m = self.norms[0](measured)
        measured = measured + self.of_measured(m, m)
        p = self.norms[1](prior)
        prior = prior + self.of_prior(p, p)
        prior = prior + self.across(self.norms[2](prior), self.norms[3](measured))
        measured = measured + self.mlps[0](self.norms[4](measured))
        prior = prior + self.mlps[1](self.norms[5](prior))
        return measured, prior


class AttentionFusion(nn.Module):
    """See the module docstring."""

    def __init__(self, config: AttentionFusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AttentionFusionConfig()
        half, full = config.fine
        facts = 10 if config.planes else 8
        self.full_features = ConvNormAct(facts, full, 3, activation="prelu")
        self.half_features = ConvNormAct(full, half, 3, 2, activation="prelu")
        self.embed_measured = nn.Conv2d(half + 2, config.channels, 3, 2, 1)
        self.embed_prior = nn.Conv2d(half + 2, config.channels, 3, 2, 1)
        self.layers = nn.ModuleList(
            _Layer(config, shifted) for _ in range(config.blocks) for shifted in (False, True))
        self.up_half = ConvNormAct(2 * config.channels + half, half, 3, activation="prelu")
        self.up_full = ConvNormAct(half + full, full, 3, activation="prelu")
        outputs = 4 if config.planes else 3
        self.heads = nn.ModuleList((HeadConv(2 * config.channels, outputs, 1),
                                    HeadConv(half, outputs, 1),
                                    HeadConv(full, outputs, 3, padding=1)))
        for head in self.heads:
            assert isinstance(head, nn.Conv2d) and head.bias is not None
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)
            if not config.judge_prior:
                head.bias.data[2] = -2.0

    def forward(self, measured: Tensor, sigma: Tensor, prior: Tensor, rgb: Tensor) -> FusedDepth:
        """Fuse; see `forward_full`."""
        return self.forward_full(measured, sigma, prior, rgb)[-1]

    def forward_full(self, measured: Tensor, sigma: Tensor, prior: Tensor, rgb: Tensor
                     ) -> list[FusedDepth]:
        """Fuse, with the coarser results a training step wants.

        Args:
            measured: (B, 1, H, W) inverse depth from focus, dioptres, NaN = nothing measured;
                H and W multiples of 4.
            sigma: its standard deviation, same shape, dioptres.
            prior: (B, 1, H, W) relative inverse depth in any unit, larger = nearer.
            rgb: (B, 3, H, W) sRGB-encoded, 0..1, as sharp as there is (all in focus).

        Returns:
            results at 1/4, 1/2 and 1/1, all enlarged to (H, W); the last is the answer.
        """
        known = torch.isfinite(measured) & torch.isfinite(sigma)
        sigma = torch.where(known, sigma, torch.full_like(sigma, 2.0)).clamp_min(0.0)
        prior = normalise_prior(prior)
        weight = inverse_variance(sigma) * known
        measured = torch.where(known, measured, torch.zeros_like(measured))
        if self.config.align_first:
            scale, shift = align(prior, measured, weight)
            aligned = scale * prior + shift
        else:
            aligned = prior
        measured = torch.where(known, measured, aligned)
        confidence = torch.log(sigma + SIGMA_FLOOR_DIOPTERS) / 3
        gap = (measured - aligned).clamp(-2, 2)
        surest = confidence
        plane_start = plane_step = torch.zeros_like(measured)
        of_planes: list[Tensor] = []
        if self.config.planes:
            planes = local_planes(measured, sigma, rgb)
            most = LARGEST_PLANE_STEP * sigma
            plane_step = (planes.diopters - measured).maximum(-most).minimum(most)
            of_plane = torch.log(planes.sigma + SIGMA_FLOOR_DIOPTERS) / 3
            plane_start = (6 * (confidence - of_plane)).clamp(-LARGEST_START_LOGIT,
                                                              LARGEST_START_LOGIT)
            surest = torch.minimum(confidence, of_plane)
            of_planes = [4 * plane_step.clamp(-0.5, 0.5), of_plane]
        if self.config.judge_prior:
            of_prior = prior_deviation(aligned, measured, sigma, weight)
            trust = (torch.log(of_prior + SIGMA_FLOOR_DIOPTERS) / 3).expand_as(confidence)
            start = (6 * (trust - surest)).clamp(-LARGEST_START_LOGIT, LARGEST_START_LOGIT)
            unit = ((sigma + SIGMA_FLOOR_DIOPTERS) ** -2 + of_prior**-2) ** -0.5
        else:
            trust = (confidence < -0.6).float()  # σ below about 0.15 dioptre
            start, unit = 2 * (2 * trust - 1), torch.ones_like(confidence)
        full = self.full_features(torch.cat(
            [rgb * 4 - 2, measured / 2 - 1, aligned.clamp(-1, 8) / 2 - 1, gap, confidence, trust,
             *of_planes], 1))
        half = self.half_features(full)
        small = [F.avg_pool2d(t, 2) for t in (measured / 2 - 1, aligned.clamp(-1, 8) / 2 - 1,
                                              confidence)]
        m = self.embed_measured(torch.cat([half, small[0], small[2]], 1))
        p = self.embed_prior(torch.cat([half, small[1], small[2]], 1))
        for layer in self.layers:
            m, p = layer(m, p)
        x = torch.cat([m, p], 1)
        raw = [self.heads[0](x)]
        x = self.up_half(torch.cat([enlarge(x, 2), half], 1))
        raw.append(self.heads[1](x))
        x = self.up_full(torch.cat([enlarge(x, 2), full], 1))
        raw.append(self.heads[2](x))
        results, total = [], torch.zeros((), device=x.device)
        for index, head in enumerate(raw):
            total = total + enlarge(head, 4 >> index)
            share = torch.sigmoid(total[:, :1] + start)
            of_focus, plane_share = measured, torch.zeros_like(share)
            if self.config.planes:
                plane_share = torch.sigmoid(total[:, 3:] + plane_start)
                of_focus = measured + plane_share * plane_step
            d = share * of_focus + (1 - share) * aligned + unit * total[:, 1:2]
            log_sigma = (total[:, 2:3] + torch.log(unit)).clamp(*LOG_SIGMA_RANGE)
            results.append(FusedDepth(d, log_sigma, share, aligned, plane_share))
        return results
