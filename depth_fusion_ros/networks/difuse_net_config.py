"""Sizes and switches of DiFuse-Net; what the paper leaves open is a field with a name here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from depth_fusion_ros.networks.evidence import WINDOWS_PX
from depth_fusion_ros.networks.parallax_attention import ParallaxAttentionConfig


@dataclass(frozen=True)
class DiFuseNetConfig:
    """Architecture and switches.

    Attributes:
        stem: channels after the strided stem convolution.
        encoder: per stage (outputs, repeats, stride, expansion, kernel) of inverted residuals.
        taps: indices of the stages whose outputs are 1/2, 1/4, 1/8, … features.
        context_channels: extra inverted residual to the next coarser scale (1/64); 0 = none.
        dual_pixel_expansion: expansion of the two dual-pixel encoder blocks.
        decoder: channels of the decoder blocks from coarse to fine, one per tap but the last.
        attention: switches of WBiPAM.
        fusion_weights: "softmax", "sigmoid" or "none" on the three fusion maps (unknown).
        output: "disparity" (signed px) or "inverse_depth" (the paper's sigmoid, affine).
        evidence: feed closed-form matching evidence (pyramid Lucas–Kanade) at 1/2.
        evidence_windows: how many of the matching windows are used, smallest first.
        condition: accept the lens condition, see `lens_condition`.
        attention_offsets: feed the attention's expected offsets to the fusion.
        fused_trunk: the fused features at 1/2 and 1/4 continue through the encoder, so that
            disparity reaches the coarse scales; False (paper) keeps the encoder's coarse scales
            monocular, and nothing can carry a measured depth across a blank wall.
        fused_stages: the first so many encoder stages and both dual-pixel blocks use fused
            inverted residuals (dense 3×3 instead of depthwise); 0 = none (paper).
        log_linear: heads regress far depth in ratios and near depth in dioptres, see
            `difuse_net.log_linear`; False = in dioptres throughout.
        aggregation: gather the evidence along surfaces with learned affinities at 1/4
            (`aggregation.py`); needs evidence.
        learned_slopes: PReLU with learned slopes (paper); False = a fixed slope of 0.1.
    """

    stem: int = 32
    encoder: tuple[tuple[int, int, int, int, int], ...] = (
        (24, 1, 1, 1, 3), (32, 3, 2, 6, 3), (48, 3, 2, 6, 5), (96, 5, 2, 6, 3),
        (136, 5, 1, 6, 5), (232, 6, 2, 6, 5), (384, 1, 1, 6, 3),
    )
    taps: tuple[int, ...] = (0, 1, 2, 4, 6)
    context_channels: int = 192
    dual_pixel_expansion: int = 6
    decoder: tuple[int, ...] = (208, 160, 112, 64, 32)
    attention: ParallaxAttentionConfig = field(default_factory=ParallaxAttentionConfig)
    fusion_weights: str = "softmax"
    fusion: str = "feature"
    output: str = "disparity"
    evidence: bool = True
    condition: bool = True
    attention_offsets: bool = True
    fused_trunk: bool = True
    fused_stages: int = 0
    learned_slopes: bool = True
    evidence_windows: int = 3
    log_linear: bool = False
    aggregation: bool = False

    def __post_init__(self) -> None:
        if self.fusion_weights not in ("softmax", "sigmoid", "none"):
            raise ValueError(f"fusion_weights = {self.fusion_weights!r}: "
                             "use 'softmax', 'sigmoid' or 'none'")
        if self.output not in ("disparity", "inverse_depth"):
            raise ValueError(f"output = {self.output!r}: use 'disparity' or 'inverse_depth'")
        if self.evidence and self.attention.axis != "x":
            raise ValueError("attention axis = 'y' with evidence: the evidence matches along x; "
                             "transpose the images (the estimator does) or set evidence=False")

        if not 1 <= self.evidence_windows <= len(WINDOWS_PX):
            raise ValueError(f"evidence_windows = {self.evidence_windows}: there are 1 to "
                             f"{len(WINDOWS_PX)} windows")
        if self.aggregation and not self.evidence:
            raise ValueError("aggregation = True with evidence = False: there is no evidence to "
                             "gather; set aggregation=False too")

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 1 << (len(self.taps) + (1 if self.context_channels else 0))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DiFuseNetConfig:
        """Rebuild from `dataclasses.asdict` (as stored in a model card)."""
        data = dict(values)
        data["attention"] = ParallaxAttentionConfig(**data.get("attention", {}))
        for name in ("taps", "decoder"):
            data[name] = tuple(data[name])
        data["encoder"] = tuple(tuple(row) for row in data["encoder"])
        return DiFuseNetConfig(**data)


def difuse_net_config(*, paper: bool = False) -> DiFuseNetConfig:
    """Configuration of the 9.9 M network; `paper` switches everything of ours off."""
    config = DiFuseNetConfig()
    if not paper:
        # Fused stages weigh more than depthwise ones; the decoder gives that back.
        return replace(config, fused_stages=3, learned_slopes=False, log_linear=True,
                       aggregation=True, evidence_windows=5, dual_pixel_expansion=3,
                       context_channels=128, decoder=(176, 128, 96, 64, 32),
                       attention=ParallaxAttentionConfig(
                           value_view="other", reverse_map="softmax", scale_scores=True))
    return replace(config, evidence=False, condition=False, attention_offsets=False,
                   fused_trunk=False, output="inverse_depth")


def difuse_net_s_config() -> DiFuseNetConfig:
    """Configuration of the small sibling (≤ 1.5 M) for CPUs and small robots."""
    return DiFuseNetConfig(
        stem=16,
        encoder=((16, 1, 1, 1, 3), (32, 2, 2, 3, 3), (48, 2, 2, 3, 3), (80, 3, 2, 4, 3),
                 (128, 2, 2, 4, 3)),
        taps=(0, 1, 2, 3, 4),
        context_channels=0,
        dual_pixel_expansion=2,
        decoder=(96, 64, 48, 32),
        fused_stages=3,
        learned_slopes=False,
        log_linear=True,
        aggregation=True,
        evidence_windows=5,
        attention=ParallaxAttentionConfig(
            value_view="other", reverse_map="softmax", scale_scores=True),
    )


CONFIGS = {"difuse_net": difuse_net_config, "difuse_net_s": difuse_net_s_config}
