"""Make a bag of simulated dual-pixel sets with ground truth, once for each set of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.cli.simulated_recording import (
    SEEDS_APART,
    Scene,
    SimulatedRecording,
    rendered_side_by_side,
)

if TYPE_CHECKING:
    from depth_fusion_ros.simulation.sequence import SimulatedFrame

FRAMES_PER_SCENE = 5


@dataclass(frozen=True)
class SimulatedBag(SimulatedRecording):
    """Parameters of a simulated recording; equal parameters give equal images.

    Attributes:
        frames: number of sets. width_px, height_px: size of all images.
        rate_hz: sets per second of bag time.
        camera: preset of the simulator. seed: of scenes and noise.
    """

    unit: ClassVar[str] = "sets"

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

    @property
    def count(self) -> int:
        """Number of sets."""
        return self.frames

    def parameters(self) -> dict[str, Any]:
        """Return what the images depend on."""
        return asdict(self)

    def _record(self, path: Path, storage: str, on_written: Callable[[int], None]) -> None:
        period_ns = round(1e9 / self.rate_hz)
        kappas = set()
        with DualPixelBagWriter(path, storage=storage, metadata=self.metadata()) as bag:
            frames = rendered_side_by_side(_render_scene, self._scenes())
            for index, frame in enumerate(frames):
                bag.write_frame(frame, bag.start_ns + index * period_ns)
                kappas.add(round(frame.lens.kappa, 6))
                on_written(index + 1)
            if len(kappas) == 1:
                bag.add_metadata("kappa", str(kappas.pop()))

    def _scenes(self) -> list[Scene]:
        return [
            {
                "frames": min(FRAMES_PER_SCENE, self.frames - start),
                "width_px": self.width_px,
                "height_px": self.height_px,
                "seed": SEEDS_APART * self.seed + 2 * number,
                "camera": self.camera,
            }
            for number, start in enumerate(range(0, self.frames, FRAMES_PER_SCENE))
        ]


def _render_scene(arguments: Scene) -> list[SimulatedFrame]:
    """Return the frames of one scene; runs in a worker process."""
    from depth_fusion_ros.simulation.sequence import simulate_sequence

    return list(simulate_sequence(**arguments, frames_per_scene=FRAMES_PER_SCENE))
