"""The whole focus-sweep path as one network: volume, all-in-focus image, prior, fusion.

    output = SweepDepth(config)(stack, focus_diopters)

One set of weights, trained in stages (`training/sweep_objective.py`): the volume, the prior, and
the fusion on both frozen, as in the source paper. `method` chooses what joins them, so that every
method of the comparison has the same inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.attention_fusion import (
    LOG_SIGMA_RANGE,
    AttentionFusion,
    AttentionFusionConfig,
)
from depth_fusion_ros.networks.crossdepth import CrossDepth, CrossDepthConfig
from depth_fusion_ros.networks.difuse_net_config import DiFuseNetConfig
from depth_fusion_ros.networks.focus_volume import (
    FocusVolume,
    FocusVolumeConfig,
    FocusVolumeOutput,
    ring_difference,
)
from depth_fusion_ros.networks.hybrid import HybridConfig, HybridRefinement
from depth_fusion_ros.networks.monocular_prior import MonocularPrior, prior_config

FUSIONS = ("attention", "crossdepth_code", "crossdepth_paper", "hybrid", "none")
PARTS = ("volume", "prior", "fusion")
SHARPNESS = 1.5
"""How strongly the all-in-focus image prefers the sharpest slice."""


@dataclass(frozen=True)
class SweepDepthConfig:
    """Configuration of the parts.

    Attributes:
        method: of the fusion, one of `FUSIONS`; "none" = the volume alone.
        volume, prior, attention: of the parts.
    """

    method: str = "attention"
    volume: FocusVolumeConfig = field(default_factory=FocusVolumeConfig)
    prior: DiFuseNetConfig = field(default_factory=prior_config)
    attention: AttentionFusionConfig = field(default_factory=AttentionFusionConfig)

    def __post_init__(self) -> None:
        if self.method not in FUSIONS:
            raise ValueError(f"fusion method = {self.method!r}: use one of {FUSIONS}")

    @property
    def stride(self) -> int:
        """Height and width must be multiples of it."""
        return max(self.volume.stride, self.prior.stride, self.attention.stride)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> SweepDepthConfig:
        """Configuration from plain values, lists for tuples allowed.

        A volume that does not mention `defocus` is from before there was any, likewise a fusion
        and `judge_prior` or `planes`.
        """
        def tuples(part: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()}

        return SweepDepthConfig(
            str(values["method"]),
            FocusVolumeConfig(**{"defocus": False, **tuples(values["volume"])}),
            DiFuseNetConfig.from_dict(dict(values["prior"])),
            AttentionFusionConfig(**{"judge_prior": False, "planes": False,
                                     **tuples(values["attention"])}))


@dataclass(frozen=True)
class SweepDepthOutput:
    """Result, (B, 1, H, W) unless noted.

    Attributes:
        diopters: inverse depth. log_sigma: logarithm of its Laplace scale, dioptres.
        measured_share: 1 = from focus alone, 0 = from the prior alone; NaN where the fusion does
            not say.
        intermediate: coarser (diopters, log_sigma), all of full size.
        volume: what focus alone says. prior: relative inverse depth. all_in_focus: (B, 3, H, W).
    """

    diopters: Tensor
    log_sigma: Tensor
    measured_share: Tensor
    intermediate: list[tuple[Tensor, Tensor]]
    volume: FocusVolumeOutput
    prior: Tensor
    all_in_focus: Tensor


class SweepDepth(nn.Module):
    """See the module docstring."""

    def __init__(self, config: SweepDepthConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SweepDepthConfig()
        self.volume = FocusVolume(config.volume)
        self.prior = MonocularPrior(config.prior)
        self.fusion: nn.Module
        if config.method == "attention":
            self.fusion = AttentionFusion(config.attention)
        elif config.method == "hybrid":
            self.fusion = HybridRefinement(HybridConfig())
        elif config.method == "none":
            self.fusion = nn.Identity()
        else:
            variant: Any = config.method.removeprefix("crossdepth_")
            self.fusion = CrossDepth(CrossDepthConfig(variant))

    def forward(self, stack: Tensor, focus_diopters: Tensor,
                blur_gain_px_m: Tensor | None = None) -> tuple[Tensor, ...]:
        """Deployment: inverse depth, its log scale, the share of focus in it, what focus alone
        says and its σ, all (B, 1, H, W), the all-in-focus image (B, 3, H, W), and what was
        measured without learning, (B, 1, H, W), NaN where nothing was."""
        return _deployed(self.forward_full(stack, focus_diopters, blur_gain_px_m))

    def forward_with_prior(self, stack: Tensor, focus_diopters: Tensor, prior: Tensor,
                           blur_gain_px_m: Tensor | None = None) -> tuple[Tensor, ...]:
        """`forward` with a prior from elsewhere; the network's own is not run.

        Args:
            stack, focus_diopters, blur_gain_px_m: as in `forward_full`.
            prior: (B, 1, H, W) relative inverse depth, larger = nearer, finite. Scale and shift
                are free where the fusion aligns it (`estimation/priors.py` says which does).

        Returns:
            as `forward`.

        Raises:
            ValueError: a prior of another shape, or as `FocusVolume.forward_full`.
        """
        expected = (stack.shape[0], 1, *stack.shape[-2:])
        if tuple(prior.shape) != expected:
            raise ValueError(f"prior of shape {tuple(prior.shape)} for a stack of shape "
                             f"{tuple(stack.shape)}: must be {expected}; resize it to the slices")
        volume = self.volume.forward_full(stack, focus_diopters, blur_gain_px_m)
        return _deployed(self.fuse(volume, all_in_focus(stack), prior))

    def forward_full(self, stack: Tensor, focus_diopters: Tensor,
                     blur_gain_px_m: Tensor | None = None) -> SweepDepthOutput:
        """Run everything.

        Args:
            stack: (B, N, 3, H, W) sRGB-encoded slices 0..1, aligned, in rising order of focus; H
                and W multiples of `config.stride`.
            focus_diopters: (B, N), rising.
            blur_gain_px_m: (B,) of the lens, None = not known; see `FocusVolume.forward_full`.

        Raises:
            ValueError: as `FocusVolume.forward_full`.
        """
        volume = self.volume.forward_full(stack, focus_diopters, blur_gain_px_m)
        image = all_in_focus(stack)
        prior = self.prior(image)
        return self.fuse(volume, image, prior)

    def fuse(self, volume: FocusVolumeOutput, image: Tensor, prior: Tensor) -> SweepDepthOutput:
        """The last part alone, on what the others gave; arguments as in `SweepDepthOutput`."""
        d, sigma = volume.diopters, volume.sigma_diopters
        if isinstance(self.fusion, AttentionFusion):
            *coarse, fused = self.fusion.forward_full(d, sigma, prior, image)
            pairs = [(c.diopters, c.log_sigma) for c in coarse]
            return SweepDepthOutput(fused.diopters, fused.log_sigma, fused.measured_share, pairs,
                                    volume, prior, image)
        own = d if self.config.method == "none" else self.fusion(d, sigma, prior)
        log_sigma = torch.log(sigma).clamp(*LOG_SIGMA_RANGE)
        share = torch.full_like(d, 1.0 if self.config.method == "none" else float("nan"))
        return SweepDepthOutput(own, log_sigma, share, [], volume, prior, image)


def _deployed(output: SweepDepthOutput) -> tuple[Tensor, ...]:
    return (output.diopters, output.log_sigma, output.measured_share, output.volume.diopters,
            output.volume.sigma_diopters, output.all_in_focus, output.volume.measured)


def all_in_focus(stack: Tensor) -> Tensor:
    """Every pixel mostly from its sharpest slice: (B, N, 3, H, W) to (B, 3, H, W).

    Weights are a softmax of the logarithm of the focus measure, so slices of equal sharpness
    (blank surfaces) are averaged, which also averages their noise.
    """
    batch, count = stack.shape[:2]
    grey = stack.flatten(0, 1).mean(1, keepdim=True)
    sharpness = torch.log(ring_difference(grey) + 1e-6).unflatten(0, (batch, count))
    weight = torch.softmax(SHARPNESS * sharpness, 1)
    return (weight * stack).sum(1)
