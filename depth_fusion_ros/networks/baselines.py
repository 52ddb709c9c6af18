"""Learned baselines with DiFuse-Net's calling convention, outputs and losses.

| network | input | what it is |
|---|---|---|
| DPNet | left, right (and RGB) | U-Net on the stacked views; small as published, or deeper |
| MonocularNet | RGB | DiFuse-Net's RGB encoder and decoder alone |

The stereo-correlation baseline is DiFuse-Net itself with attention kind "correlation". All take
(left, right, rgb, condition) and leave unused what they do not see; none of them matches in closed
form. Sources: Garg et al., ICCV 2019 (DPNet; shapes after the MIT-licensed re-implementation in
DualPixelFace, written anew from them); Swami et al., IROS 2025.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from depth_fusion_ros.networks.blocks import (
    ConvNormAct,
    replace_prelu,
)
from depth_fusion_ros.networks.convention import CONDITION_CHANNELS, DepthNetwork, DiFuseNetOutput
from depth_fusion_ros.networks.difuse_net import DecoderBlock, DiFuseNetConfig, rgb_encoder
from depth_fusion_ros.networks.heads import (
    OUTPUTS,
    OutputFrame,
    PyramidHeads,
    condition_planes,
    output_head,
    starting_value,
)
from depth_fusion_ros.networks.parallax_attention import ParallaxAttentionConfig

PRELU_START = 0.05
WITHOUT_VIEWS = ParallaxAttentionConfig(kind="none")


@dataclass(frozen=True)
class DPNetConfig:
    """Sizes of a DPNet; the defaults are those of the published network.

    Attributes:
        rgb: also see the RGB image (the original has none; RGB is then ignored).
        stem: channels of the 7×7 stem, to which the max-pooled images are added.
        encoder: channels at 1/4, 1/8, …, one level each.
        blocks: residual blocks per level, the first one strided.
        decoder: channels from 1/16 (for four levels) to 1/1, one more than `encoder`.
        output: "disparity" or "inverse_depth", see `heads.py`.
        condition: see the lens, as constant planes beside the images and as frame of the output.
        learned_slopes: PReLU with learned slopes (published); False = a fixed slope of 0.05.
    """

    rgb: bool = False
    stem: int = 8
    encoder: tuple[int, ...] = (32, 64, 128, 128)
    blocks: int = 3
    decoder: tuple[int, ...] = (128, 64, 32, 32, 8)
    output: str = "disparity"
    condition: bool = True
    learned_slopes: bool = True

    def __post_init__(self) -> None:
        if len(self.decoder) != len(self.encoder) + 1:
            raise ValueError(f"decoder = {self.decoder!r}: needs {len(self.encoder) + 1} widths, "
                             f"one more than encoder = {self.encoder!r}")
        if self.output not in OUTPUTS:
            raise ValueError(f"output = {self.output!r}: use one of {OUTPUTS}")

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 2 << len(self.encoder)

    @property
    def attention(self) -> ParallaxAttentionConfig:
        """There is none: kind "none", with nothing to supervise."""
        return WITHOUT_VIEWS

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DPNetConfig:
        """Rebuild from `dataclasses.asdict` (as stored in a model card)."""
        data = dict(values)
        for name in ("encoder", "decoder"):
            data[name] = tuple(data[name])
        return DPNetConfig(**data)


def dpnet_config() -> DPNetConfig:
    """Configuration of the published DPNet, left and right view only, with fixed slopes.

    Fixed as in DiFuse-Net as shipped: learned ones make a training step on a CPU slower.
    """
    return DPNetConfig(learned_slopes=False)


def deeper_config() -> DPNetConfig:
    """Configuration of the deeper baseline at DiFuse-Net's size (about 9.9 M)."""
    return DPNetConfig(rgb=True, stem=24, encoder=(64, 128, 224, 272), blocks=5,
                       decoder=(240, 128, 64, 32, 16), learned_slopes=False)


def deeper_s_config() -> DPNetConfig:
    """Configuration of the deeper baseline at the size of DiFuse-Net's small sibling."""
    return DPNetConfig(rgb=True, stem=8, encoder=(32, 56, 72, 88), blocks=4,
                       decoder=(72, 48, 40, 32, 8), learned_slopes=False)


def monocular_config(config: DiFuseNetConfig) -> DiFuseNetConfig:
    """The monocular part of a DiFuse-Net: its encoder and decoder, without the views."""
    return replace(config, evidence=False, aggregation=False, attention=WITHOUT_VIEWS,
                   attention_offsets=False)


def _separable(inputs: int, outputs: int) -> list[nn.Module]:
    """Depthwise 3×3, then 1×1 with batch norm."""
    return [nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            ConvNormAct(inputs, outputs, 1, activation="none")]


def _prelu(channels: int) -> nn.PReLU:
    return nn.PReLU(channels, init=PRELU_START)


class EncoderBlock(nn.Module):
    """Convolution 3×3, separable 3×3, 1×1, beside a max-pooled 1×1 skip where strided."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormAct(inputs, outputs, 3, stride, activation="none"), _prelu(outputs),
            *_separable(outputs, outputs), _prelu(outputs),
            ConvNormAct(outputs, outputs, 1, activation="none"))
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.MaxPool2d(stride), ConvNormAct(inputs, outputs, 1, activation="none"))
        self.activation = _prelu(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.activation(self.body(x) + self.skip(x))
        return y


class DeconvolutionBlock(nn.Module):
    """Deconvolution 4×4, separable 3×3, 1×1, separable 3×3, plus a separable 3×3 of the skip."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs),
            _prelu(outputs), *_separable(outputs, outputs), _prelu(outputs),
            ConvNormAct(outputs, outputs, 1, activation="none"), _prelu(outputs),
            *_separable(outputs, outputs))
        self.skip = nn.Sequential(*_separable(skip, outputs))
        self.mix = nn.Sequential(
            _prelu(outputs), ConvNormAct(outputs, outputs, 1, activation="none"), _prelu(outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, skip, 2H, 2W) to (B, outputs, 2H, 2W)."""
        y: Tensor = self.mix(self.up(x) + self.skip(skip))
        return y


class DPNet(DepthNetwork):
    """U-Net on the stacked views with an output at every scale from 1/16 to 1/1."""

    def __init__(self, config: DPNetConfig) -> None:
        super().__init__()
        self.config = config
        images = 2 + (3 if config.rgb else 0)
        planes = CONDITION_CHANNELS if config.condition else 0
        self.stem = nn.Sequential(
            ConvNormAct(images + planes, config.stem, 7, 2, activation="none"),
            _prelu(config.stem))
        self.pool = nn.MaxPool2d(7, 2, 3)
        widths = [images + planes, config.stem + images]
        levels: list[nn.Module] = []
        for outputs in config.encoder:
            strides = [2] + [1] * (config.blocks - 1)
            inputs = [widths[-1]] + [outputs] * (config.blocks - 1)
            levels.append(nn.Sequential(*(
                EncoderBlock(i, outputs, s) for i, s in zip(inputs, strides, strict=True))))
            widths.append(outputs)
        self.levels = nn.ModuleList(levels)
        start = starting_value(config.output, config.condition)
        blocks, heads, channels = [], [], widths.pop()
        for outputs, skip in zip(config.decoder, reversed(widths), strict=True):
            blocks.append(DeconvolutionBlock(channels, skip, outputs))
            heads.append(output_head(outputs, 2, 7, start))
            channels = outputs
        self.decoder, self.heads = nn.ModuleList(blocks), nn.ModuleList(heads)
        if not config.learned_slopes:
            replace_prelu(self, PRELU_START)

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """See `DepthNetwork.forward_full`; no offsets in the result."""
        config = self.config
        images = torch.cat([left, right, rgb] if config.rgb else [left, right], 1) * 4 - 2
        x = images
        if config.condition:
            x = torch.cat([images, condition_planes(condition, images)], 1)
        skips = [x]
        x = torch.cat([self.stem(x), self.pool(images)], 1)
        for level in self.levels:
            skips.append(x)
            x = level(x)
        frame = OutputFrame.of(condition, output=config.output, condition_used=config.condition)
        outputs = []
        for block, head in zip(self.decoder, self.heads, strict=True):
            x = block(x, skips.pop())
            outputs.append(frame.finish(*head(x).split(1, 1)))
        return DiFuseNetOutput(*outputs[-1], outputs[:-1], [])


class MonocularNet(DepthNetwork):
    """DiFuse-Net's RGB encoder and decoder; the views are ignored.

    The lens condition is the frame of the output and an input of its refinement: a monocular
    network estimates inverse depth, and only the lens says which disparity that is.

    Raises:
        ValueError: the configuration asks for matching; see `monocular_config`.
    """

    def __init__(self, config: DiFuseNetConfig) -> None:
        super().__init__()
        if config.evidence or config.attention.kind != "none":
            raise ValueError(
                f"monocular network with evidence = {config.evidence}, attention kind = "
                f"{config.attention.kind!r}: it sees no views to match; pass the configuration "
                "through monocular_config")
        self.config = config
        self.stem, self.stages, self.context = rgb_encoder(config)
        skips = [config.encoder[t][0] for t in config.taps]
        channels = config.context_channels or skips.pop()
        blocks = []
        for outputs, skip in zip(config.decoder, reversed(skips), strict=True):
            blocks.append(DecoderBlock(channels, skip, outputs))
            channels = outputs
        self.decoder = nn.ModuleList(blocks)
        self.heads = PyramidHeads(config.decoder, output=config.output, condition=config.condition)
        if not config.learned_slopes:
            replace_prelu(self)

    def forward_full(self, left: Tensor, right: Tensor, rgb: Tensor, condition: Tensor
                     ) -> DiFuseNetOutput:
        """See `DepthNetwork.forward_full`; no offsets in the result."""
        del left, right
        skips: list[Tensor] = []
        x = self.stem(rgb * 4 - 2)
        for index, block in enumerate(self.stages):
            x = block(x)
            if index in self.config.taps:
                skips.append(x)
        x = skips.pop() if self.context is None else self.context(x)
        features = []
        for block in self.decoder:
            x = block(x, skips.pop())
            features.append(x)
        output: DiFuseNetOutput = self.heads(features, condition)
        return output
