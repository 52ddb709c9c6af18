"""Make a bag of simulated scenes with ground truth, once for each set of parameters."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.bags.writer import DualPixelBagWriter, remove_bag


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
    rate_hz: float = 10.0
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
        from depth_fusion_ros.simulation.sequence import simulate_sequence

        frames = simulate_sequence(
            frames=self.frames,
            width_px=self.width_px,
            height_px=self.height_px,
            seed=self.seed,
            camera=self.camera,
        )
        if path.exists() and not self.is_at(path):
            remove_bag(path)  # before hours of rendering: refuses what is no bag
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        period_ns = round(1e9 / self.rate_hz)
        kappas = set()
        with DualPixelBagWriter(partial, storage=storage, metadata=self.metadata()) as bag:
            for index, frame in enumerate(frames):
                bag.write_frame(frame, bag.start_ns + index * period_ns)
                kappas.add(round(frame.lens.kappa, 6))
                on_frame(index + 1)
            if len(kappas) == 1:
                bag.add_metadata("kappa", str(kappas.pop()))
        remove_bag(path)
        partial.rename(path)
        return path


def simulator_digest() -> str:
    """Return 8 hex digits over the source of simulator and optics: cached bags age with it."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("simulation", "optics"):
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
