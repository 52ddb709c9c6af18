"""After training: hold sigma to its word on held-out scenes, and draw the curve."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration, fit_sigma
from depth_fusion_ros.networks.registry import Network
from depth_fusion_ros.networks.sweep_depth import SweepDepth
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig, make_batch
from depth_fusion_ros.training.sources import held_out_sweep_cache
from depth_fusion_ros.training.sweep_exposure import MIN_SLICES, make_sweep_batch

EXPOSURES = 2
BATCH, SWEEP_BATCH = 16, 4
_Case: TypeAlias = tuple[tuple[Tensor, ...], Tensor, Tensor]
"""Inputs of a network, the truth of its first output, and where there is truth."""
EVERY_PX = 5
"""Of the pixels, one in so many is used: neighbours tell the same."""


def calibrate_sigma(network: Network, config: TrainingConfig, cache_root: Path
                    ) -> SigmaCalibration:
    """Map from the network's scale to one standard deviation, fitted on held-out scenes.

    Fitted over the pixels with truth of the validation scenes (simulated; never trained on), each
    exposed twice: of dual pixels on two sensors, of focus sweeps with the fewest and with all of
    the slices, evenly spread as lenses are driven. Px for dual pixels, dioptres for focus sweeps.

    Raises:
        ValueError: the run has no simulated held-out scenes, or a loss that leaves nothing metric
            to calibrate.
    """
    sweeps = isinstance(network, SweepDepth)
    data = "simulated_sweep" if sweeps else "simulated"
    losses = ("metric", "silog") if sweeps else ("metric",)
    if config.data.kind != data or config.loss.kind not in losses:
        raise ValueError(
            f"sigma of a run with data kind = {config.data.kind!r}, loss kind = "
            f"{config.loss.kind!r}: it is calibrated on simulated held-out scenes with a metric "
            f"loss; train (or fine-tune) with data: {{kind: {data}}} and loss: "
            f"{{kind: {' or '.join(losses)}}}")
    held_out = _held_out_sweeps if sweeps else _held_out_views
    network = network.eval()
    errors, scales = [], []
    with torch.inference_mode():
        for inputs, truth, valid in held_out(config, cache_root):
            d, log_scale, *_ = network(*inputs)
            errors.append((d - truth)[valid][::EVERY_PX])
            scales.append(log_scale.exp()[valid][::EVERY_PX])
    return fit_sigma(torch.cat(errors).numpy(), torch.cat(scales).numpy())


def _held_out_views(config: TrainingConfig, cache_root: Path) -> Iterator[_Case]:
    data, held_out = config.data, config.validation
    cache = SceneCache(SceneCacheConfig(held_out.scenes, data.width_px, data.height_px,
                                        data.aperture_samples, held_out.seed), cache_root)
    cache.render()
    for start in range(0, held_out.scenes, BATCH):
        for exposure in range(EXPOSURES):
            generator = torch.Generator().manual_seed(50_000 + 100 * start + exposure)
            batch = make_batch(cache, torch.arange(start, start + BATCH), generator,
                               unknown_lens_share=0.0)
            yield ((batch.left, batch.right, batch.rgb, batch.condition), batch.disparity_px,
                   batch.valid)


def _held_out_sweeps(config: TrainingConfig, cache_root: Path) -> Iterator[_Case]:
    cache = held_out_sweep_cache(config.data, config.validation, cache_root)
    cache.render()
    for start in range(0, cache.config.scenes, SWEEP_BATCH):
        for slices in (MIN_SLICES, cache.config.slices):
            generator = torch.Generator().manual_seed(50_000 + 100 * start + slices)
            batch = make_sweep_batch(cache, torch.arange(start, start + SWEEP_BATCH), generator,
                                     slices=slices, even=True)
            yield (batch.inputs, batch.inverse_depth_diopters, batch.valid)


def draw_curve(run: Path, picture: Path) -> None:
    """Training and held-out curves of a run as a PNG: of its last stage, where it has stages."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in csv.DictReader((run / "curve.csv").open()) if r["mae_px"]]
    sweeps = '"sweep_depth"' in (run / "run.json").read_text()
    panels = [("log_depth", "val_abs_log_depth", "|ln depth ratio|"),
              ("mae_px", "val_mae_px", "inverse depth error, dioptres" if sweeps
               else "disparity error, px"),
              ("offset_px", "", "attention offset error, px")][:2 if sweeps else 3]
    steps = [int(r["step"]) for r in rows]
    held = [r for r in rows if r["val_mae_px"]]
    held_steps = [int(r["step"]) for r in held]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.3 * len(panels), 3.6),
                                constrained_layout=True)
    for axis, (train_key, held_key, label) in zip(axes, panels, strict=True):
        axis.plot(steps, [float(r[train_key]) for r in rows], color="0.7", lw=0.8,
                  label="training batch")
        if held_key:
            axis.plot(held_steps, [float(r[held_key]) for r in held], "o-", ms=3,
                      label="held-out scenes, EMA weights")
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    figure.suptitle("Training on simulated scenes; held-out: same statistics, other seed")
    figure.savefig(picture, dpi=110)
    plt.close(figure)
