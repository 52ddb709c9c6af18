"""Folders like DCDP's (DiFuse-Net, IROS 2025): phone captures with stereo depth and masks.

The set is described in the paper, but neither a download nor its layout is public. Assumed is:

    left/NAME.png  right/NAME.png    dual-pixel views, 8 or 16 bits, linear
    center/NAME.png|jpg              RGB
    depth/NAME.npy|png               metres, or 16-bit millimetres (0 = no truth)
    mask/NAME.png                    hand-drawn: 0 = bad pixel; the folder may be missing

all of one size, with parallax along y (phones; `parallax_axis`). The depth comes from a second
phone and is metric, the lens of the first is not known: for the affine loss.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from depth_fusion_ros.training.captures import Capture, DataError, read_image
from depth_fusion_ros.training.folders import FolderLens, PlainFolder


class DcdpFolder(PlainFolder):
    """Captures of the layout above; names are those in `depth/`.

    Args:
        root: folder that holds left/, right/, center/, depth/ and perhaps mask/.
        parallax_axis, swap_views: how the views are shifted.

    Raises:
        DataError: there are no captures.
    """

    folder_of: ClassVar[dict[str, str]] = {"rgb": "center"}

    def __init__(self, root: Path, *, parallax_axis: str = "y", swap_views: bool = False) -> None:
        super().__init__(root)
        if not self._has["left"] or not self._has["rgb"]:
            raise DataError(f"{root}: needs left/, right/ and center/; for other layouts use "
                            "kind = 'folder'")
        self._vertical, self._swap = parallax_axis == "y", swap_views
        self.lens = FolderLens()  # a lens.yaml is not part of this layout

    def load(self, name: str) -> Capture:
        """Read one capture; `lens` is always None.

        Raises:
            DataError: as `PlainFolder.load`; or the mask has another size.
        """
        capture = super().load(name)
        path = self.root / "mask" / f"{name}.png"
        if (self.root / "mask").is_dir():
            mask = read_image(path, colour=False) > 0
            if mask.shape != capture.valid.shape:
                raise DataError(f"{path}: {mask.shape[1]}x{mask.shape[0]} px, its depth "
                                f"{capture.valid.shape[1]}x{capture.valid.shape[0]}: bring both "
                                "to one grid")
            capture = replace(capture, valid=capture.valid & mask)
        if self._swap:
            capture = capture.swapped()
        return capture.transposed() if self._vertical else capture
