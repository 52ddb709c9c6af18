"""Make a bag of the scripted navigation scenes, one after the other, once for each parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from depth_fusion_ros.bags.writer import DualPixelBagWriter
from depth_fusion_ros.cli.simulated_recording import (
    Scene,
    SimulatedRecording,
    rendered_side_by_side,
)

if TYPE_CHECKING:
    from depth_fusion_ros.simulation.sequence import SimulatedFrame

PERIOD_NS = 200_000_000
"""Of the sets: that of the costmap's updates, `update_frequency` 5.0 Hz."""


@dataclass(frozen=True)
class SimulatedNavigationBag(SimulatedRecording):
    """Parameters of a recording; equal parameters give equal images.

    Attributes:
        scenes: names, see `simulation.navigation_scenes`; set i belongs to scene i // frames.
        frames: sets of each scene. width_px, height_px: size of all images.
        seed: of textures, light and noise. camera: preset of the simulator, always this one.
    """

    unit: ClassVar[str] = "sets"

    scenes: tuple[str, ...]
    frames: int = 10
    width_px: int = 320
    height_px: int = 240
    seed: int = 0
    camera: str = "robot_12mm"

    @property
    def name(self) -> str:
        """Folder name of the bag: readable, and different for different parameters."""
        size = f"{self.width_px}x{self.height_px}"
        return f"{'-'.join(self.scenes)}_{size}_{self.frames}each_seed{self.seed}"

    @property
    def count(self) -> int:
        """Number of sets."""
        return self.frames * len(self.scenes)

    def parameters(self) -> dict[str, Any]:
        """Return what the images depend on."""
        return {**asdict(self), "scenes": ",".join(self.scenes)}

    def _record(self, path: Path, storage: str, on_written: Callable[[int], None]) -> None:
        scenes: list[Scene] = [
            {"name": name, "frames": self.frames, "width_px": self.width_px,
             "height_px": self.height_px, "seed": self.seed} for name in self.scenes]
        with DualPixelBagWriter(path, storage=storage, metadata=self.metadata()) as bag:
            for index, frame in enumerate(rendered_side_by_side(_render_scene, scenes)):
                bag.write_frame(frame, bag.start_ns + index * PERIOD_NS)
                on_written(index + 1)
            bag.add_metadata("kappa", str(round(frame.lens.kappa, 6)))


def _render_scene(arguments: Scene) -> list[SimulatedFrame]:
    """Return the frames of one scene; runs in a worker process."""
    from depth_fusion_ros.simulation.navigation_scenes import navigation_frames

    return list(navigation_frames(**arguments))
