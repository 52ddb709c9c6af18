"""After training: hold sigma to its word on held-out scenes, and draw the curve."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from depth_fusion_ros.networks.difuse_net import DiFuseNet
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.datasets import SceneCache, SceneCacheConfig, make_batch

ONE_SIGMA_SHARE = 0.6827
EXPOSURES = 2


def calibrate_sigma(network: DiFuseNet, config: TrainingConfig, cache_root: Path
                    ) -> tuple[float, float]:
    """Factor from the network's Laplace scale to one standard deviation, on held-out scenes.

    The factor makes 68.27 % of disparity errors fall within one sigma, over all pixels of the
    validation scenes (simulated; never trained on), each exposed on `EXPOSURES` sensors.

    Returns:
        (factor, share of errors within two sigma with that factor; a Gaussian has 0.954).
    """
    data, held_out = config.data, config.validation
    cache = SceneCache(SceneCacheConfig(held_out.scenes, data.width_px, data.height_px,
                                        data.aperture_samples, held_out.seed), cache_root)
    cache.render()
    network = network.eval()
    ratios = []
    with torch.inference_mode():
        for start in range(0, held_out.scenes, 16):
            for exposure in range(EXPOSURES):
                generator = torch.Generator().manual_seed(50_000 + 100 * start + exposure)
                batch = make_batch(cache, torch.arange(start, start + 16), generator,
                                   unknown_lens_share=0.0)
                d, log_scale = network(batch.left, batch.right, batch.rgb, batch.condition)
                ratio = (d - batch.disparity_px).abs() / log_scale.exp()
                ratios.append(ratio.flatten()[::5])
    ratio = torch.cat(ratios).sort().values
    factor = float(ratio[int(ONE_SIGMA_SHARE * len(ratio))])
    return factor, float((ratio < 2 * factor).float().mean())


def draw_curve(run: Path, picture: Path) -> None:
    """Training and held-out curves of a run as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(csv.DictReader((run / "curve.csv").open()))
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
