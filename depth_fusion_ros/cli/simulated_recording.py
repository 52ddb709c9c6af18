"""What bags of simulated data have in common: made once for each set of parameters, side by side.

    plan = SimulatedSweepBag(sweeps=12)
    if not plan.is_at(path):
        plan.make(path)
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.recording import remove_bag
from depth_fusion_ros.bags.typestore import BagError

SEEDS_APART = 100_003  # between two seeds of a user: room for their scenes
MOST_WORKERS = 8  # each holds torch: about 0.4 GB

Rendered = TypeVar("Rendered")
Scene = dict[str, Any]
"""Arguments of the simulator for one scene."""


class SimulatedRecording(ABC):
    """Parameters of a simulated recording; equal parameters give equal images.

    Subclasses are frozen dataclasses. Attributes that all of them have:
        unit: what `count` counts. width_px, height_px: size of all images.
        camera: preset of the simulator. seed: of scenes and noise.
    """

    unit: ClassVar[str]
    width_px: int
    height_px: int
    camera: str
    seed: int

    @property
    @abstractmethod
    def name(self) -> str:
        """Folder name of the bag: readable, and different for different parameters."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many sets the bag has."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return what the images depend on."""

    @abstractmethod
    def _record(self, path: Path, storage: str, on_written: Callable[[int], None]) -> None:
        """Render everything into a new bag; report the number of sets written."""

    def metadata(self) -> dict[str, str]:
        """Return the bag's custom data: parameters, and a digest of the simulator's source."""
        values = {key: str(value) for key, value in self.parameters().items()}
        return {**values, "data": "simulated", "simulator": simulator_digest()}

    def is_at(self, path: Path) -> bool:
        """True if `path` holds a readable bag made with these parameters by this simulator."""
        try:
            with BagReader(path) as bag:
                return self.metadata().items() <= bag.metadata.items()
        except BagError:
            return False

    def make(
        self,
        path: Path,
        *,
        storage: str = "mcap",
        on_frame: Callable[[int], None] = lambda done: None,
    ) -> Path:
        """Render and write the bag; a folder appears at `path` only when it is complete.

        Raises:
            BagError: `path` holds something that is not a bag.
            ValueError: a parameter the simulator refuses.
        """
        if path.exists() and not self.is_at(path):
            remove_bag(path)  # before hours of rendering: refuses what is no bag
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self._record(partial, storage, on_frame)
        remove_bag(path)
        partial.rename(path)
        return path


def rendered_side_by_side(
    render: Callable[[Scene], list[Rendered]], scenes: Sequence[Scene]
) -> Iterator[Rendered]:
    """Yield what `render` makes of each scene, in order; one process for each core.

    Args:
        render: a function of a module, so that a process can be told to call it.
        scenes: each with a seed of its own, so that the images do not depend on the number of
            cores.
    """
    workers = min(len(scenes), len(os.sched_getaffinity(0)), MOST_WORKERS)
    if workers == 1:
        for scene in scenes:
            yield from render(scene)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread)
    try:
        for frames in pool.map(render, scenes):
            yield from frames
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Keep workers from sharing cores: one process for each core is faster than threads here."""
    import torch

    torch.set_num_threads(1)


def simulator_digest() -> str:
    """Return 8 hex digits over the source of simulator and optics: cached bags age with it."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("simulation", "optics"):
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
