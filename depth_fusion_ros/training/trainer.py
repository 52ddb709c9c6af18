"""The training loop: resumable, seeded, with EMA weights, a CSV curve and a model card at the end.

Order of one run: render the caches (resumes) → steps with checkpoints (resumes to the same
curve: the sampler and the sensor noise are seeded per step) → EMA weights as safetensors.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from depth_fusion_ros.networks.blocks import parameter_count
from depth_fusion_ros.networks.difuse_net import DiFuseNet, build
from depth_fusion_ros.simulation.camera import Tracer, trace
from depth_fusion_ros.training.config import TrainingConfig
from depth_fusion_ros.training.datasets import (
    SceneCache,
    SceneCacheConfig,
    TrainingBatch,
    make_batch,
)
from depth_fusion_ros.training.losses import LossWeights, disparity_loss

CURVE_FIELDS = ("step", "minutes", "learning_rate", "loss", "log_depth", "mae_px", "offset_px",
                "val_mae_px", "val_abs_log_depth", "val_within_1_sigma")


@dataclass
class Progress:
    """Callbacks for whoever shows progress: (done, total, text)."""

    rendering: Callable[[int, int, str], None] = lambda done, total, text: None
    training: Callable[[int, int, str], None] = lambda done, total, text: None


class Trainer:
    """One training run in a folder; construct it again on the same folder to resume."""

    def __init__(self, config: TrainingConfig, out: Path, cache_root: Path,
                 device: str = "cpu", progress: Progress | None = None,
                 tracer: Tracer = trace) -> None:
        self.config, self.out, self.device = config, out, device
        self.tracer = tracer
        self.progress = progress or Progress()
        self.out.mkdir(parents=True, exist_ok=True)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.network: DiFuseNet = build(config.network).to(
            device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        decay, plain = _split_parameters(self.network)
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay},
             {"params": plain, "weight_decay": 0.0}], lr=config.learning_rate)
        data = config.data
        self.cache = SceneCache(SceneCacheConfig(
            data.scenes, data.width_px, data.height_px, data.aperture_samples, data.seed),
            cache_root)
        self.held_out = SceneCache(SceneCacheConfig(
            config.validation.scenes, data.width_px, data.height_px, data.aperture_samples,
            config.validation.seed), cache_root)
        self.step, self.minutes = 0, 0.0
        self._resume()

    @property
    def checkpoint_path(self) -> Path:
        """Where the resumable state lies."""
        return self.out / "checkpoint.pt"

    def run(self) -> Path:
        """Train to the configured number of steps; returns the path of the EMA weights."""
        for cache in (self.held_out, self.cache):
            total = cache.config.scenes
            cache.render(self.device, lambda n, total=total: self.progress.rendering(  # type: ignore[misc]
                n, total, "rendering scenes"), self.tracer)
        started = time.monotonic() - 60 * self.minutes
        while self.step < self.config.steps:
            row = self._train_step()
            self.minutes = (time.monotonic() - started) / 60
            if self.step % self.config.validation.every_steps == 0 or (
                    self.step == self.config.steps):
                row |= self.validate()
                self._log(row)
            elif self.step % 25 == 0:
                self._log(row)
            if self.step % self.config.checkpoint_every_steps == 0:
                self._save_checkpoint()
            self.progress.training(
                self.step, self.config.steps,
                f"log depth {row['log_depth']:.3f}  mae {row['mae_px']:.3f} px")
        self._save_checkpoint()
        return self.export_weights()

    def learning_rate(self, step: int) -> float:
        """Warm-up, constant, then linear decay to zero."""
        config = self.config
        decay_steps = max(1, round(config.steps * config.decay_share))
        ramp = min(1.0, (step + 1) / max(1, config.warmup_steps))
        return config.learning_rate * ramp * min(1.0, (config.steps - step) / decay_steps)

    def _batch(self, cache: SceneCache, step: int, seed: int, hide: float) -> TrainingBatch:
        generator = torch.Generator().manual_seed(seed * 7_919 + step)
        indices = torch.randperm(cache.config.scenes, generator=generator)[: self.config.batch]
        return make_batch(cache, indices.sort().values, generator, device=self.device,
                          unknown_lens_share=hide)

    def _train_step(self) -> dict[str, float]:
        config = self.config
        self.network.train()
        batch = self._batch(self.cache, self.step, config.seed, config.unknown_lens_share)
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        output = self.network.forward_full(batch.left, batch.right, batch.rgb, batch.condition)
        loss, parts = disparity_loss(
            output, batch.disparity_px, batch.pixels_per_log,
            self.network.config.attention.strip_px, LossWeights(**config.loss.model_dump()))
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss = {float(loss)} at step {self.step}: training diverged; lower "
                f"learning_rate (now {config.learning_rate}) and resume from the checkpoint")
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema_decay, self.step / (self.step + 10))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[key].lerp_(value, 1 - decay)
            else:
                self.ema[key].copy_(value)
        return {"step": self.step, "minutes": self.minutes, "learning_rate": rate,
                "loss": float(loss.detach()), **parts}

    def validate(self) -> dict[str, float]:
        """EMA weights on the held-out simulated scenes (same statistics, other seed)."""
        backup = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema)
        self.network.eval()
        mae, log_depth, inside, count = 0.0, 0.0, 0.0, 0
        with torch.inference_mode():
            for start in range(0, self.held_out.config.scenes, 16):
                generator = torch.Generator().manual_seed(start)
                batch = make_batch(self.held_out, torch.arange(start, start + 16), generator,
                                   device=self.device, unknown_lens_share=0.0)
                d, log_sigma = self.network(batch.left, batch.right, batch.rgb, batch.condition)
                error = d - batch.disparity_px
                ratio = 1 / (1 - error / batch.pixels_per_log).clamp_min(0.02)
                mae += float(error.abs().mean())
                log_depth += float(ratio.log().abs().mean())
                # One standard deviation of a Laplace distribution of scale b is sqrt(2)·b.
                inside += float((error.abs() < 2**0.5 * log_sigma.exp()).float().mean())
                count += 1
        self.network.load_state_dict(backup)
        return {"val_mae_px": mae / count, "val_abs_log_depth": log_depth / count,
                "val_within_1_sigma": inside / count}

    def export_weights(self) -> Path:
        """Write EMA weights and the run's facts; returns the safetensors path."""
        path = self.out / f"{self.config.network}.safetensors"
        save_file({k: v.contiguous().cpu() for k, v in self.ema.items()}, path)
        facts = {
            "network": self.config.network,
            "architecture": asdict(self.network.config),
            "parameters": parameter_count(self.network),
            "training": self.config.model_dump(),
            "steps_done": self.step,
            "minutes": round(self.minutes, 1),
        }
        (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
        return path

    def _log(self, row: dict[str, float]) -> None:
        path = self.out / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, CURVE_FIELDS, extrasaction="ignore",
                                    lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({k: round(v, 6) for k, v in row.items()})

    def _save_checkpoint(self) -> None:
        state = {"step": self.step, "minutes": self.minutes, "network": self.network.state_dict(),
                 "ema": self.ema, "optimizer": self.optimizer.state_dict()}
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)

    def _resume(self) -> None:
        if not self.checkpoint_path.exists():
            return
        state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        self.step, self.minutes = state["step"], state["minutes"]
        self._drop_curve_after(self.step)

    def _drop_curve_after(self, step: int) -> None:
        """Rows written after the checkpoint are made again."""
        path = self.out / "curve.csv"
        if path.exists():
            lines = path.read_text().splitlines()
            kept = lines[:1] + [row for row in lines[1:] if int(row.split(",")[0]) <= step]
            path.write_text("\n".join(kept) + "\n")


def _split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight decay for convolution kernels only, not for norms, biases and PReLU slopes."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decay if parameter.ndim == 4 else plain).append(parameter)
    return decay, plain
