"""After training: hold sigma to its word on held-out scenes, and draw the curve."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration, fit_sigma
from depth_fusion_ros.networks.registry import Network
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig, make_batch

EXPOSURES = 2
EVERY_PX = 5
"""Of the pixels, one in so many is used: neighbours tell the same."""


def calibrate_sigma(network: Network, config: TrainingConfig, cache_root: Path
                    ) -> SigmaCalibration:
    """Map from the network's scale to one standard deviation, fitted on held-out scenes.

    Fitted over the pixels with truth of the validation scenes (simulated; never trained on), each
    exposed on `EXPOSURES` sensors.

    Raises:
        ValueError: the run has no simulated held-out scenes, or no metric disparity to calibrate.
    """
    if config.data.kind != "simulated" or config.loss.kind != "metric":
        raise ValueError(
            f"sigma of a run with data kind = {config.data.kind!r}, loss kind = "
            f"{config.loss.kind!r}: it is calibrated on simulated held-out scenes with the metric "
            "loss; train (or fine-tune) with data: {kind: simulated} and loss: {kind: metric}")
    data, held_out = config.data, config.validation
    cache = SceneCache(SceneCacheConfig(held_out.scenes, data.width_px, data.height_px,
                                        data.aperture_samples, held_out.seed), cache_root)
    cache.render()
    network = network.eval()
    errors, scales = [], []
    with torch.inference_mode():
        for start in range(0, held_out.scenes, 16):
            for exposure in range(EXPOSURES):
                generator = torch.Generator().manual_seed(50_000 + 100 * start + exposure)
                batch = make_batch(cache, torch.arange(start, start + 16), generator,
                                   unknown_lens_share=0.0)
                d, log_scale = network(batch.left, batch.right, batch.rgb, batch.condition)
                errors.append((d - batch.disparity_px)[batch.valid][::EVERY_PX])
                scales.append(log_scale.exp()[batch.valid][::EVERY_PX])
    return fit_sigma(torch.cat(errors).numpy(), torch.cat(scales).numpy())


def draw_curve(run: Path, picture: Path) -> None:
    """Training and held-out curves of a run as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in csv.DictReader((run / "curve.csv").open()) if r["mae_px"]]
    steps = [int(r["step"]) for r in rows]
    held = [r for r in rows if r["val_mae_px"]]
    held_steps = [int(r["step"]) for r in held]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    panels = (("log_depth", "val_abs_log_depth", "|ln depth ratio|"),
              ("mae_px", "val_mae_px", "disparity error, px"),
              ("offset_px", "", "attention offset error, px"))
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
