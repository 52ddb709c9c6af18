"""The training loop: resumable, seeded, on one process or many, with EMA weights and a curve.

Order of one run: prepare the data (rendering resumes) → steps with checkpoints (resumes to the same
curve: samples and sensor noise are seeded per step) → EMA weights as safetensors.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from depth_fusion_ros.networks.registry import architecture, build
from depth_fusion_ros.training.checkpoint import Checkpoint
from depth_fusion_ros.training.config import ConfigError, TrainingConfig
from depth_fusion_ros.training.curve import Curve
from depth_fusion_ros.training.memory import keep_freed_memory
from depth_fusion_ros.training.objective import SealedBatch
from depth_fusion_ros.training.parallel import Prefetcher, RunningStatistics, start_processes
from depth_fusion_ros.training.sources import Batch, make_source
from depth_fusion_ros.training.stage_networks import STAGE_NETWORKS
from depth_fusion_ros.training.tasks import make_objective, measure_held_out

LOG_EVERY_STEPS = 25
SEED_STRIDE = 7_919


@dataclass
class Progress:
    """Callbacks for whoever shows progress: (done, total, text), and sentences."""

    rendering: Callable[[int, int, str], None] = lambda done, total, text: None
    training: Callable[[int, int, str], None] = lambda done, total, text: None
    say: Callable[[str], None] = lambda text: None


class Trainer:
    """One training run in a folder; construct it again on the same folder to resume.

    Args:
        config: of one stage (`config.stages` is not looked at).
        out: run folder; machines that train together must share it.
        cache_root: folder for rendered scenes.
        fabric: processes of the run; None = start what `config.hardware` asks for.
        network: what is trained from step 0; None = a fresh `config.network`.
        name: of the weights' file; None = `config.network`.
        part: of a focus-sweep network, what is trained of it; "" for others.
        need_views: False for a network that looks at RGB alone.
        progress: who shows progress.

    Raises:
        DataError, CheckpointError, ConfigError: the data or the run folder cannot be used, or
            the batch cannot be shared by the processes.
    """

    def __init__(self, config: TrainingConfig, out: Path, cache_root: Path, *,
                 fabric: Fabric | None = None, network: nn.Module | None = None,
                 name: str | None = None, part: str = "", need_views: bool = True,
                 progress: Progress | None = None) -> None:
        self.config, self.out, self.name = config, out, name or config.network
        self.part = part
        self.progress = progress or Progress()
        self.out.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.fabric = fabric or start_processes(config.hardware)
        torch.manual_seed(config.seed)
        self.network: nn.Module = network or build(config.network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = make_objective(self.network, part, config.loss)
        decay, plain = _split_parameters(self.network)
        optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay},
             {"params": plain, "weight_decay": 0.0}], lr=config.learning_rate)
        # The loss is part of the module: what DDP wraps must return tensors, no dataclass.
        self._objective, self._optimizer = self.fabric.setup(objective, optimizer)
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.parts = config.parts or self.fabric.world_size
        if config.batch % self.parts or self.parts % self.fabric.world_size:
            raise ConfigError(
                f"batch = {config.batch} in {self.parts} parts on {self.fabric.world_size} "
                "processes: batch must be a multiple of parts, and parts of the processes that "
                "were started")
        self.source = make_source(config, cache_root, str(self.fabric.device),
                                  need_views=need_views)
        self.step, self.minutes = 0, 0.0
        self._resume()

    @property
    def checkpoint_path(self) -> Path:
        """Where the resumable state lies."""
        return self.out / "checkpoint.pt"

    def run(self) -> Path:
        """Train to the configured number of steps; returns the path of the EMA weights.

        Raises:
            FloatingPointError: training diverged, in every process at once.
        """
        config = self.config
        if self.step < config.steps:
            self.prepare()
        started = time.monotonic() - 60 * self.minutes
        batches = Prefetcher(self.batch_parts, config.hardware.prefetch, config.steps)
        curve = Curve(self.out, self.step) if self.fabric.is_global_zero else None
        try:
            while self.step < config.steps:
                row = self.train_step(batches.get(self.step))
                self.minutes = row["minutes"] = (time.monotonic() - started) / 60
                last = self.step == config.steps
                measure = self.step % config.validation.every_steps == 0 or last
                if measure:
                    row |= self.validate()
                if curve is not None and (measure or self.step % LOG_EVERY_STEPS == 0):
                    curve.write(row)
                if self.step % config.checkpoint_every_steps == 0 and not last:
                    self.save_checkpoint()
                self.progress.training(self.step, config.steps, _text(row))
            self.save_checkpoint()
        finally:
            batches.close()
            if curve is not None:
                curve.close()
        return self.export_weights()

    def prepare(self) -> None:
        """Render or check the data; `run` does it."""
        self.source.prepare(self.fabric, self.progress.rendering)

    def learning_rate(self, step: int) -> float:
        """Warm-up, constant, then linear decay to zero; again from half of it in every cycle."""
        config = self.config
        lengths = config.cycles or (config.steps,)
        ends = list(accumulate(lengths))
        cycle = min(bisect_right(ends, step), len(lengths) - 1)
        length = lengths[cycle]
        step -= ends[cycle] - length
        decay_steps = max(1, round(length * config.decay_share))
        ramp = min(1.0, (step + 1) / max(1, config.warmup_steps))
        peak = config.learning_rate * 0.5**cycle
        return peak * ramp * min(1.0, (length - step) / decay_steps)

    def batch_parts(self, step: int) -> list[Batch]:
        """This process's parts of the batch of a step; part p depends on seed, step and p."""
        seed = self.config.seed * SEED_STRIDE + step
        return [self.source.batch(self.config.batch // self.parts, seed * self.parts + part,
                                  self.config.unknown_lens_share)
                for part in range(self.fabric.global_rank, self.parts, self.fabric.world_size)]

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One optimiser step on the gradients' mean over all parts; returns the curve's row."""
        config, fabric = self.config, self.fabric
        self._objective.train()
        rate = self.learning_rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        statistics = RunningStatistics(list(self.network.buffers()), fabric, self.parts)
        values: list[Tensor] = []
        names: list[str] = []
        for index, batch in enumerate(batches):
            statistics.begin_part()
            # Gradients travel between processes once, with the last part.
            with fabric.no_backward_sync(self._objective, enabled=index < len(batches) - 1):
                loss, parts = self._objective(SealedBatch(batch))
                fabric.backward(loss / len(batches))
            names = ["loss", *parts]
            values.append(torch.tensor([float(loss.detach()), *parts.values()]))
        statistics.end_step()
        mean = torch.stack(values).mean(0).to(fabric.device)
        reduced = fabric.all_reduce(mean, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        row = dict(zip(names, reduced.tolist(), strict=True))
        norm = fabric.clip_gradients(self._objective, self._optimizer,
                                     max_norm=config.gradient_clip, error_if_nonfinite=False)
        assert norm is not None
        # With a loss scaler an overflow of gradients is expected now and then, and skipped.
        scaled = config.hardware.precision == "16-mixed"
        if not torch.isfinite(reduced[0]) or not (scaled or torch.isfinite(norm)):
            raise FloatingPointError(
                f"loss = {row['loss']}, gradient norm = {float(norm)} at step {self.step}: "
                f"training diverged; lower learning_rate (now {config.learning_rate}) and resume "
                "from the checkpoint")
        self._optimizer.step()
        self.step += 1
        self._update_ema()
        return {"step": self.step, "minutes": self.minutes, "learning_rate": rate, **row}

    def validate(self) -> dict[str, float]:
        """Errors of the EMA weights on the held-out samples; {} in all processes but one."""
        errors: dict[str, float] = {}
        if self.fabric.is_global_zero:
            backup = {k: v.clone() for k, v in self.network.state_dict().items()}
            self.network.load_state_dict(self.ema)
            self.network.eval()
            with torch.inference_mode():
                errors = measure_held_out(self.network, self.part, self.config.loss,
                                          self.source.held_out())
            self.network.load_state_dict(backup)
        self.fabric.barrier()
        return errors

    def export_weights(self) -> Path:
        """Write EMA weights and the run's facts; returns the safetensors path."""
        path = self.out / f"{self.name}.safetensors"
        if self.fabric.is_global_zero:
            save_file({k: v.contiguous().cpu() for k, v in self.ema.items()}, path)
            facts = {
                "network": self.name,
                "architecture": architecture_of(self.network),
                "parameters": sum(p.numel() for p in self.network.parameters()),
                "training": self.config.model_dump(mode="json"),
                "steps_done": self.step,
                "minutes": round(self.minutes, 1),
                "processes": self.fabric.world_size,
            }
            (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
        self.fabric.barrier()
        return path

    def save_checkpoint(self) -> None:
        """Write the resumable state; one process does, the others wait."""
        if self.fabric.is_global_zero:
            Checkpoint(
                self.step, self.minutes, self.network.state_dict(), self.ema,
                self._optimizer.state_dict(), self.fabric.strategy.precision.state_dict(),
                self.config.model_dump(mode="json")).save(self.checkpoint_path)
        self.fabric.barrier()

    def _resume(self) -> None:
        state = Checkpoint.load(self.checkpoint_path, self.fabric.device)
        if state is None:
            return
        changes = state.changes(self.config)
        self.network.load_state_dict(state.network)
        self._optimizer.load_state_dict(state.optimizer)
        self.fabric.strategy.precision.load_state_dict(state.precision)
        self.ema, self.step, self.minutes = state.ema, state.step, state.minutes
        self.progress.say(f"resuming {self.out} at step {self.step}"
                          + "".join(f"\n  changed {change}" for change in changes))

    def _update_ema(self) -> None:
        decay = min(self.config.ema_decay, self.step / (self.step + 10))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[key].lerp_(value, 1 - decay)
            else:
                self.ema[key].copy_(value)


def architecture_of(network: Any) -> dict[str, Any]:
    """Family and configuration of a network, for run.json."""
    if type(network) in STAGE_NETWORKS.values():
        return {"family": type(network).__name__, **asdict(network.config)}
    return architecture(network)


def _split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight decay for convolution kernels only, not for norms, biases and PReLU slopes."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in filter(lambda p: p.requires_grad, network.parameters()):
        (decay if parameter.ndim == 4 else plain).append(parameter)
    return decay, plain


def _text(row: dict[str, float]) -> str:
    """What a progress bar shows of a row."""
    if "affine_mae" in row:
        return f"affine {row['affine_mae']:.3f}  gradient {row['affine_gradient']:.3f}"
    return f"log depth {row['log_depth']:.3f}  mae {row['mae_px']:.3f} px"
