"""What a bag's messages are joined to: images as arrays, dual-pixel sets, focus sweeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .images import image_array, stamp_ns


@dataclass(frozen=True)
class StampedArray:
    """An image: header stamp in ns, frame, encoding, and its (H, W) or (H, W, 3) array."""

    stamp_ns: int
    frame_id: str
    encoding: str
    array: NDArray[Any]


@dataclass
class DualPixelRecord:
    """One set, joined by stamp; what the bag does not have is None.

    left, right: mono8/mono16 views; rgb: reference view; truth: depth in metres (32FC1).
    dp_camera_info, rgb_camera_info, lens_state: message objects with the fields of the .msg files.
    """

    stamp_ns: int
    left: StampedArray | None = None
    right: StampedArray | None = None
    rgb: StampedArray | None = None
    truth: StampedArray | None = None
    dp_camera_info: Any | None = None
    rgb_camera_info: Any | None = None
    lens_state: Any | None = None

    @property
    def is_complete(self) -> bool:
        """True if everything a depth node needs is there (ground truth is not needed)."""
        needed = (self.left, self.right, self.rgb, self.dp_camera_info, self.rgb_camera_info)
        return all(part is not None for part in (*needed, self.lens_state))


@dataclass
class SliceRecord:
    """One image of a focus sweep; what the bag does not have is None.

    image: rgb8 slice. camera_info, lens_state: message objects with the fields of the .msg files.
    """

    stamp_ns: int
    lens_state: Any
    image: StampedArray | None = None
    camera_info: Any | None = None

    @property
    def focus_diopters(self) -> float:
        """Reported focus, 1/m; 0 = infinity, NaN = unknown."""
        return float(self.lens_state.focus_diopters)

    @property
    def is_complete(self) -> bool:
        """True if image and camera_info are there."""
        return self.image is not None and self.camera_info is not None


@dataclass
class SweepRecord:
    """One focus sweep.

    Attributes:
        sweep_id: as its lens states say. size: images it was meant to have.
        slices: those of which the bag has the lens state, in order of `sweep_index`.
        truth: depth in metres (32FC1) with the stamp of the newest slice, or None.
    """

    sweep_id: int
    size: int
    slices: list[SliceRecord] = field(default_factory=list)
    truth: StampedArray | None = None

    @property
    def stamp_ns(self) -> int:
        """Stamp of the newest slice, nanoseconds: the depth's stamp."""
        return max(item.stamp_ns for item in self.slices)

    @property
    def is_complete(self) -> bool:
        """True if everything a depth node needs is there (ground truth is not needed)."""
        return len(self.slices) == self.size and all(item.is_complete for item in self.slices)


def stamped_array(message: Any) -> StampedArray:
    """Return an Image message as a StampedArray."""
    return StampedArray(
        stamp_ns(message), message.header.frame_id, message.encoding, image_array(message)
    )
