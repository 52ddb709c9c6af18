"""Processes of a training run, through Lightning Fabric: one CPU, one GPU, or many.

    fabric = start_processes(config.hardware)

Started from a command, Fabric runs the same command once more for every further device of the
machine; several machines need its environment variables (MASTER_ADDR, MASTER_PORT, NODE_RANK,
WORLD_SIZE), `torchrun`, or a scheduler it knows, and a run folder they share.

Every process trains the same network on its own part of each batch; gradients are averaged. Batch
normalisation is over a part, on one process as on many, and its running statistics are the mean
over parts (`RunningStatistics`): the number of processes changes the result by rounding only.
`SyncBatchNorm` is not used; it exists on GPUs alone, and a run would depend on where it ran.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Generic, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from depth_fusion_ros.training.config import ConfigError, HardwareSection

LONGEST_WAIT = timedelta(hours=24)
"""Processes wait for each other this long: one renders the scenes, the others need them."""

Item = TypeVar("Item")


def start_processes(hardware: HardwareSection) -> Fabric:
    """Start the processes that `hardware` asks for and connect them; returns in each of them.

    Raises:
        ConfigError: the accelerator or the number of devices is not there.
    """
    processes = hardware.devices * hardware.num_nodes
    if hardware.accelerator == "cuda" and torch.cuda.device_count() < hardware.devices:
        raise ConfigError(
            f"hardware: accelerator = 'cuda' with devices = {hardware.devices}: this machine has "
            f"{torch.cuda.device_count()} CUDA devices; lower devices or use accelerator = 'cpu'")
    on_cpu = hardware.accelerator == "cpu" or not torch.cuda.is_available()
    if on_cpu and hardware.precision == "16-mixed":
        raise ConfigError("hardware: precision = '16-mixed' without a GPU: CPUs have no float16 "
                         "training; use 'bf16-mixed' or '32-true'")
    fabric = Fabric(
        accelerator=hardware.accelerator, devices=hardware.devices, num_nodes=hardware.num_nodes,
        precision=hardware.precision,
        strategy="auto" if processes == 1 else DDPStrategy(
            timeout=LONGEST_WAIT, broadcast_buffers=False))  # see `RunningStatistics`
    # torch 2.13 calls the option deprecated; its successor is not there in the older ones.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    fabric.launch()
    return fabric


class RunningStatistics:
    """Buffers of a network (batch norm's running statistics) averaged over the parts of a step.

    Call `begin_part` before each forward pass of a step and `end_step` after the last one.
    """

    def __init__(self, buffers: list[Tensor], fabric: Fabric, parts: int) -> None:
        self._buffers = [b for b in buffers if b.dtype.is_floating_point]
        self._fabric, self._parts = fabric, parts
        self._start: list[Tensor] = []
        self._sum: list[Tensor] = []

    def begin_part(self) -> None:
        """Keep what the last part made of the buffers, and give the next one the same start."""
        if self._parts == 1 or not self._buffers:
            return
        if not self._start:
            self._start = [b.clone() for b in self._buffers]
            self._sum = [torch.zeros_like(b) for b in self._buffers]
            return
        torch._foreach_add_(self._sum, self._buffers)
        torch._foreach_copy_(self._buffers, self._start)

    def end_step(self) -> None:
        """Set the buffers to their mean over the parts of all processes."""
        if not self._start:
            return
        torch._foreach_add_(self._sum, self._buffers)
        flat = torch.cat([s.flatten() for s in self._sum])
        total = self._fabric.all_reduce(flat, reduce_op="sum")
        assert isinstance(total, Tensor)
        pieces = (total / self._parts).split([b.numel() for b in self._buffers])
        for buffer, piece in zip(self._buffers, pieces, strict=True):
            buffer.copy_(piece.view_as(buffer))
        self._start, self._sum = [], []


class Prefetcher(Generic[Item]):
    """Makes items by step number, some of them ahead in a thread; the items are the same.

    Args:
        make: step to item; depends on the step alone.
        ahead: how many items to make ahead; 0 = none, no thread.
        last: steps from here on are not made ahead.
    """

    def __init__(self, make: Callable[[int], Item], ahead: int, last: int) -> None:
        self._make, self._ahead, self._last = make, ahead, last
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._waiting: dict[int, Future[Item]] = {}

    def get(self, step: int) -> Item:
        """Item of a step; what making it raised is raised here."""
        if self._pool is None:
            return self._make(step)
        for number in range(step, min(step + self._ahead + 1, max(self._last, step + 1))):
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(self._make, number)
        return self._waiting.pop(step).result()

    def close(self) -> None:
        """Forget what was made ahead and end the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._waiting.clear()
