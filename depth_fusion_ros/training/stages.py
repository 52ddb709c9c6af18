"""Cross-modal transfer learning (CmTL): encoders learn alone first, then the whole network.

| stage | trained | data | begins from |
|---|---|---|---|
| dual_pixel | dual-pixel encoder + a decoder | RGB-DP-D | fresh weights |
| rgb | RGB encoder + a decoder | RGB-D | fresh weights |
| whole | everything | RGB-DP-D | both encoders; fusion and decoder fresh |

Source: DiFuse-Net, IROS 2025, whose RGB encoder also begins from ImageNet; ours does not. A
configuration lists the stages it wants, so each can be left out and its effect measured.

A focus-sweep network is trained in parts as well: volume, prior, then the fusion on both, frozen;
each begins from the weights of the part before.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from depth_fusion_ros.networks.difuse_net import DiFuseNet
from depth_fusion_ros.networks.registry import build
from depth_fusion_ros.networks.sweep_depth import PARTS
from depth_fusion_ros.training.config import (
    ConfigError,
    StageSection,
    TrainingConfig,
    save_config,
    stage_config,
)
from depth_fusion_ros.training.stage_networks import STAGE_NETWORKS
from depth_fusion_ros.training.trainer import Progress, Trainer


def train(config: TrainingConfig, out: Path, cache_root: Path, fabric: Fabric, *,
          progress: Progress | None = None) -> Path:
    """Run a configuration, with its stages if it has any; returns the path of the weights.

    The last stage's run is `out` itself, those before it are folders in it. Called again on the
    same folder it resumes in the stage where it was.
    """
    weights = out
    for index in range(len(config.stages)) if config.stages else (None,):
        weights = stage_trainer(config, index, out, cache_root, fabric, progress=progress).run()
    return weights


def prepare_folder(config: TrainingConfig, out: Path, fabric: Fabric, *, restart: bool) -> None:
    """Write the configuration into the run folder; `restart` forgets what was trained there."""
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        if restart:
            for folder in (out, *(out / name for name in (*STAGE_NETWORKS, *PARTS))):
                (folder / "checkpoint.pt").unlink(missing_ok=True)
                (folder / "curve.csv").unlink(missing_ok=True)
        save_config(config, out / "config.yaml")
    fabric.barrier()


def stage_trainer(config: TrainingConfig, index: int | None, out: Path, cache_root: Path,
                  fabric: Fabric, *, progress: Progress | None = None) -> Trainer:
    """The trainer of stage `index`, or of a configuration without stages (None).

    Raises:
        FileNotFoundError: an earlier stage has no weights yet.
    """
    if index is None:
        return Trainer(config, out, cache_root, fabric=fabric, progress=progress)
    if config.stages[index].name in PARTS:
        return _part_trainer(config, index, out, cache_root, fabric, progress)
    stage = config.stages[index]
    network = fresh_network(config)
    settings = stage_config(config, stage)
    if stage.name != "whole":
        return Trainer(settings, out / stage.name, cache_root, fabric=fabric,
                       network=STAGE_NETWORKS[stage.name](network), name=stage.name,
                       need_views=stage.name != "rgb", progress=progress)
    for earlier in config.stages[:index]:
        transfer(network, earlier.name, load_file(weights_of(earlier, out)))
    return Trainer(settings, out, cache_root, fabric=fabric, network=network, progress=progress)


def _part_trainer(config: TrainingConfig, index: int, out: Path, cache_root: Path,
                  fabric: Fabric, progress: Progress | None) -> Trainer:
    """The trainer of a part of a focus-sweep network, which begins from the part before."""
    stage = config.stages[index]
    torch.manual_seed(config.seed)
    network = build(config.network)
    if index:
        copy_common(network, load_file(weights_of(config.stages[index - 1], out)))
    elif config.start_from:
        try:
            copy_common(network, load_file(config.start_from))
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(f"start_from = {config.start_from!r}: cannot be used ({error}); give "
                              "the safetensors of a focus-sweep run") from error
    last = index == len(config.stages) - 1
    return Trainer(stage_config(config, stage), out if last else out / stage.name, cache_root,
                   fabric=fabric, network=network, name=None if last else stage.name,
                   part=stage.name, progress=progress)


def copy_common(network: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Copy the weights that the network has too, by name and shape; returns their names.

    Raises:
        ValueError: nothing fits.
    """
    own = network.state_dict()
    common = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    if not common:
        raise ValueError("not one of its weights has name and shape of the network's")
    network.load_state_dict(common, strict=False)
    return sorted(common)


def fresh_network(config: TrainingConfig) -> DiFuseNet:
    """The configuration's network with fresh weights, the same for every stage of a seed.

    Raises:
        TypeError: the network is no DiFuse-Net.
    """
    torch.manual_seed(config.seed)
    network = build(config.network)
    if not isinstance(network, DiFuseNet):
        raise TypeError(f"network {config.network!r}: stages need a DiFuse-Net; remove stages")
    return network


def weights_of(stage: StageSection, out: Path) -> Path:
    """Where an earlier stage of the run in `out` puts its weights."""
    return out / stage.name / f"{stage.name}.safetensors"


def transfer(network: nn.Module, stage: str, weights: dict[str, Tensor]) -> list[str]:
    """Copy the encoder that a stage trained into the whole network, and nothing else.

    Args:
        network: a DiFuse-Net; changed in place. stage: "dual_pixel" or "rgb".
        weights: state dict of the stage's network; its decoder is left behind.

    Returns:
        names of the parameters and buffers that were copied.

    Raises:
        ValueError: the encoders differ.
    """
    modules = STAGE_NETWORKS[stage].encoder
    encoder = {k: v for k, v in weights.items() if k.split(".")[0] in modules}
    target = {k: v for k, v in network.state_dict().items() if k.split(".")[0] in modules}
    wrong = sorted(k for k in encoder.keys() | target.keys()
                   if k not in encoder or k not in target or encoder[k].shape != target[k].shape)
    if wrong:
        raise ValueError(f"stage {stage!r}: its encoder does not fit the network at {wrong[0]} and "
                         f"{len(wrong) - 1} more places; train the stage with the same network")
    network.load_state_dict(encoder, strict=False)
    return sorted(encoder)
