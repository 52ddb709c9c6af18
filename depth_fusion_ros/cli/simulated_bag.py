"""Make a bag of simulated scenes with ground truth, once for each set of parameters."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.bags.writer import DualPixelBagWriter, remove_bag

if TYPE_CHECKING:
    from depth_fusion_ros.simulation.sequence import SimulatedFrame

FRAMES_PER_SCENE = 5
SEEDS_APART = 100_003  # between two seeds of a user: room for their scenes
MOST_WORKERS = 8  # each holds torch: about 0.4 GB


@dataclass(frozen=True)
class SimulatedBag:
    """Parameters of a simulated recording; equal parameters give equal images.

    Attributes:
        frames: number of sets. width_px, height_px: size of all images.
        rate_hz: sets per second of bag time.
        camera: preset of the simulator. seed: of scenes and noise.
    """

    frames: int = 40
    width_px: int = 320
    height_px: int = 240
    rate_hz: float = 5.0
    camera: str = "robot_12mm"
    seed: int = 0

    @property
    def name(self) -> str:
        """Folder name of the bag: readable, and different for different parameters."""
        size = f"{self.width_px}x{self.height_px}"
        return f"{self.camera}_{size}_{self.frames}at{self.rate_hz:g}hz_seed{self.seed}"

    def metadata(self) -> dict[str, str]:
        """Return the bag's custom data: parameters, and a digest of the simulator's source."""
        values = {key: str(value) for key, value in asdict(self).items()}
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
        period_ns = round(1e9 / self.rate_hz)
        kappas = set()
        with DualPixelBagWriter(partial, storage=storage, metadata=self.metadata()) as bag:
            for index, frame in enumerate(self._rendered()):
                bag.write_frame(frame, bag.start_ns + index * period_ns)
                kappas.add(round(frame.lens.kappa, 6))
                on_frame(index + 1)
            if len(kappas) == 1:
                bag.add_metadata("kappa", str(kappas.pop()))
        remove_bag(path)
        partial.rename(path)
        return path

    def _rendered(self) -> Iterator[SimulatedFrame]:
        """Yield the frames in order; scenes are rendered side by side, one process for each core.

        Every scene has a seed of its own, so the images do not depend on the number of cores.
        """
        starts = range(0, self.frames, FRAMES_PER_SCENE)
        scenes = [
            {
                "frames": min(FRAMES_PER_SCENE, self.frames - start),
                "width_px": self.width_px,
                "height_px": self.height_px,
                "seed": SEEDS_APART * self.seed + 2 * number,
                "camera": self.camera,
            }
            for number, start in enumerate(starts)
        ]
        workers = min(len(scenes), len(os.sched_getaffinity(0)), MOST_WORKERS)
        if workers == 1:
            for scene in scenes:
                yield from _render_scene(scene)
            return
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread)
        try:
            for frames in pool.map(_render_scene, scenes):
                yield from frames
        finally:
            pool.shutdown(cancel_futures=True)


def _render_scene(arguments: dict[str, Any]) -> list[SimulatedFrame]:
    """Return the frames of one scene; runs in a worker process."""
    from depth_fusion_ros.simulation.sequence import simulate_sequence

    return list(simulate_sequence(**arguments, frames_per_scene=FRAMES_PER_SCENE))


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
