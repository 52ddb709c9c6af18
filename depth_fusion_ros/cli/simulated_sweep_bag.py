"""Make a bag of simulated focus sweeps with ground truth, once for each set of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from depth_fusion_ros.bags.sweep_writer import SweepBagWriter
from depth_fusion_ros.cli.simulated_recording import (
    SEEDS_APART,
    Scene,
    SimulatedRecording,
    rendered_side_by_side,
)

if TYPE_CHECKING:
    from depth_fusion_ros.simulation.sweep_sequence import SimulatedSweep


@dataclass(frozen=True)
class SimulatedSweepBag(SimulatedRecording):
    """Parameters of a simulated recording of focus sweeps; equal parameters give equal images.

    Attributes:
        sweeps: number of sweeps, each of a scene of its own. slices: images of each.
        width_px, height_px: size of all images.
        rate_hz: sweeps per second of bag time; their slices are spread evenly.
        camera: preset of the simulator. seed: of scenes and noise.
        breathing, drift_px_per_s: see `simulation.sweep_sequence.simulate_sweeps`.
    """

    unit: ClassVar[str] = "sweeps"

    sweeps: int = 12
    slices: int = 5
    width_px: int = 320
    height_px: int = 240
    rate_hz: float = 1.0
    camera: str = "robot_12mm"
    seed: int = 0
    breathing: bool = False
    drift_px_per_s: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        """Folder name of the bag: readable, and different for different parameters."""
        size = f"{self.width_px}x{self.height_px}"
        drift = "_drift{:g}x{:g}".format(*self.drift_px_per_s) if any(self.drift_px_per_s) else ""
        return (f"sweeps_{self.camera}_{size}_{self.sweeps}of{self.slices}at{self.rate_hz:g}hz"
                f"_seed{self.seed}{'_breathing' if self.breathing else ''}{drift}")

    @property
    def count(self) -> int:
        """Number of sweeps."""
        return self.sweeps

    @property
    def slice_period_ns(self) -> int:
        """Time between two slices, nanoseconds of bag time."""
        return round(1e9 / self.rate_hz / self.slices)

    def parameters(self) -> dict[str, Any]:
        """Return what the images depend on."""
        return asdict(self)

    def _record(self, path: Path, storage: str, on_written: Callable[[int], None]) -> None:
        period_ns = self.slice_period_ns
        with SweepBagWriter(path, storage=storage, metadata=self.metadata()) as bag:
            sweeps = rendered_side_by_side(_render_sweep, self._scenes())
            for index, sweep in enumerate(sweeps):
                bag.write_sweep(sweep, bag.start_ns + index * self.slices * period_ns, period_ns)
                on_written(index + 1)

    def _scenes(self) -> list[Scene]:
        return [
            {
                "sweeps": 1,
                "slices": self.slices,
                "width_px": self.width_px,
                "height_px": self.height_px,
                "seed": SEEDS_APART * self.seed + 2 * number,
                "camera": self.camera,
                "breathing": self.breathing,
                "drift_px_per_s": self.drift_px_per_s,
                "slice_period_s": self.slice_period_ns / 1e9,
            }
            for number in range(self.sweeps)
        ]


def _render_sweep(arguments: Scene) -> list[SimulatedSweep]:
    """Return one sweep; runs in a worker process."""
    from depth_fusion_ros.simulation.sweep_sequence import simulate_sweeps

    return list(simulate_sweeps(**arguments))
