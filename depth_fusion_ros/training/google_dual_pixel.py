"""Google's dual-pixel captures (Garg et al., ICCV 2019), in the layout they are distributed in.

    scaled_images/CAPTURE/…_VIEW.jpg   left_pd/CAPTURE/…_VIEW.png   right_pd/CAPTURE/…_VIEW.png
    merged_depth/CAPTURE/…_VIEW.png    merged_conf/CAPTURE/…_VIEW.npy

VIEW is the phone of the five-phone rig ("center", …); each is a sample of its own. The official
evaluation reads `merged_depth/*/*_center.png` (8 bits over 255) and `merged_conf/*/*_center.npy`
(google-research, dual_pixels/eval/script.py); file names and sizes of the rest are as public
loaders of the set have them (result_scaled_image_, result_leftPd_, result_rightPd_): dual-pixel
planes 1344×1008, the others 672×504.

Depth code g = png/255 stands for 1/Z = 5 − 4.99 g dioptres (0.2 m to 100 m, linear in inverse
depth; those loaders again). The set is relative all the same: neither focus nor gain is recorded.

Not documented where it could be read, so settings of `DataSection`: the axis of the parallax
(`parallax_axis`, "y": on most phones it is vertical in the stored orientation), which view is
which (`swap_views`), and from which confidence on a pixel is truth (`min_confidence`). That the
views are linear is an assumption too; the same group's capture app writes linear ones.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from depth_fusion_ros.training.captures import Array, Capture, DataError, read_image, unit_range

FOLDERS = {"rgb": "scaled_images", "left": "left_pd", "right": "right_pd",
           "depth": "merged_depth", "confidence": "merged_conf"}
NEAREST_DIOPTERS = 1 / 0.2
FARTHEST_DIOPTERS = 1 / 100.0


class GoogleDualPixelFolder:
    """Captures of Google's layout; names are "CAPTURE/VIEW".

    Args:
        root: the unpacked train or test folder.
        parallax_axis, swap_views, min_confidence: see the module docstring.

    Raises:
        DataError: there are no depth maps in `root`.
    """

    def __init__(self, root: Path, *, parallax_axis: str = "y", swap_views: bool = False,
                 min_confidence: float = 0.5) -> None:
        self.root = root
        self._vertical, self._swap = parallax_axis == "y", swap_views
        self._min_confidence = min_confidence
        self.names = sorted(f"{p.parent.name}/{p.stem.rsplit('_', 1)[-1]}"
                            for p in (root / FOLDERS["depth"]).glob("*/*.png"))
        if not self.names:
            raise DataError(f"{root}: no merged_depth/CAPTURE/*.png; path must be the unpacked "
                            "train or test folder of the set")

    def load(self, name: str) -> Capture:
        """Read one capture on the grid of its depth map; `lens` is always None.

        Raises:
            DataError: a file is missing or of another kind or size.
        """
        code = unit_range(read_image(self._file("depth", name), colour=False))
        height, width = code.shape
        confidence = self._confidence(name)
        if confidence.shape != code.shape:
            raise DataError(f"{self._file('confidence', name)}: shape {confidence.shape}, its "
                            f"depth map {code.shape}; unpack the set again")
        images = {"rgb": unit_range(read_image(self._file("rgb", name), colour=True))}
        for part in ("left", "right"):
            images[part] = np.sqrt(unit_range(read_image(self._file(part, name), colour=False)))
        images = {part: _on_grid(image, width, height) for part, image in images.items()}
        capture = Capture(
            images["left"], images["right"], images["rgb"],
            NEAREST_DIOPTERS - (NEAREST_DIOPTERS - FARTHEST_DIOPTERS) * code,
            np.isfinite(confidence) & (confidence >= self._min_confidence) & (confidence > 0),
            None)
        if self._swap:
            capture = capture.swapped()
        return capture.transposed() if self._vertical else capture

    def _confidence(self, name: str) -> Array:
        path = self._file("confidence", name)
        confidence: Array = np.load(path, allow_pickle=False)
        return confidence[..., 0] if confidence.ndim == 3 else confidence

    def _file(self, part: str, name: str) -> Path:
        capture, view = name.split("/")
        folder = self.root / FOLDERS[part] / capture
        # The confidence is there as OpenEXR too; the official evaluation reads the .npy.
        suffixes = (".npy",) if part == "confidence" else (".png", ".jpg")
        found = [p for p in sorted(folder.glob(f"*_{view}.*")) if p.suffix in suffixes]
        if not found:
            raise DataError(f"{folder}: no *_{view}{' or '.join(suffixes)}, which merged_depth "
                            "has; unpack the set again or remove the capture")
        return found[0]


def _on_grid(image: Array, width: int, height: int) -> Array:
    """Centre part of the image in the grid's proportions, resized to it.

    Where the aspect ratios agree, as in the set, that is the whole image.
    """
    scale = min(image.shape[0] / height, image.shape[1] / width)
    part_h, part_w = round(height * scale), round(width * scale)
    y, x = (image.shape[0] - part_h) // 2, (image.shape[1] - part_w) // 2
    part = image[y:y + part_h, x:x + part_w]
    if part.shape[:2] == (height, width):
        return part
    shrink = part_h > height
    resized = cv2.resize(np.ascontiguousarray(part), (width, height),
                         interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
