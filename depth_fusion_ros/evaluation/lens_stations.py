"""From recorded images to what the fits need: swept boards that stand still, and pairs.

    collector = StationCollector(board)
    for image in images:                      # `LensImage`, in order of time
        collector.add(image)
    stations, pairs, notes = collector.finish()

Images are looked at once and forgotten; only those of the board that is being swept are held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_board import BoardView, CalibrationBoard
from depth_fusion_ros.optics.focus_response import Trace, board_sharpness
from depth_fusion_ros.optics.robust_fit import huber_linear
from depth_fusion_ros.optics.view_shift import displacement, displacement_along

MIN_PAUSE_S, PAUSE_PERIODS = 1.0, 5.0
"""A pause that is longer, in seconds and in image periods, ends a sweep."""
MOVED_SHARE, MOVED_SIZE, MOVED_DIOPTERS = 0.04, 0.05, 0.5
"""The board was moved: by so much of the image width, or grown by so much, within so little
travel of the focus that breathing cannot be the cause."""
MIN_IMAGES = 10
MAX_PAIRS, PAIRS_AT_REST = 60, 4
RIM_PX = 12
"""Half a matching window: nearer to the rim of the board the wall behind takes part."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Optics:
    """What LensState says of the lens; 0 = unknown. Metres; pitch along x and y."""

    focal_length_m: float = 0.0
    f_number: float = 0.0
    pitch_x_m: float = 0.0
    pitch_y_m: float = 0.0


@dataclass(frozen=True, eq=False)
class LensImage:
    """One image of a sweep (grey) or one dual-pixel set (left, right), with what was reported.

    Attributes:
        stamp_s: seconds. reported_diopters: focus, 1/m.
        matrix: (3, 3) camera matrix. distortion: coefficients as in CameraInfo, may be empty.
        grey: (H, W) uint8. left, right: (H, W) float32, linear in light, black at 0.
    """

    stamp_s: float
    reported_diopters: float
    matrix: Numbers
    distortion: Numbers
    optics: Optics
    grey: NDArray[np.uint8] | None = None
    left: NDArray[np.float32] | None = None
    right: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class SweptBoard:
    """A board that stood still through a sweep.

    Attributes:
        name: for messages. trace: report and sharpness of every image.
        views: of the board, undistorted. view_images: (V,) number of the image of each.
        matrices: (V, 3, 3) camera matrices.
    """

    name: str
    trace: Trace
    views: tuple[BoardView, ...]
    view_images: NDArray[np.int64]
    matrices: Numbers


@dataclass(frozen=True, eq=False)
class PairOnBoard:
    """A dual-pixel set on a board.

    Attributes:
        reported_diopters: focus, 1/m. view: of the board, undistorted. matrix: (3, 3).
        shift_px: mean displacement right − left over the board along x and y.
        shifts, sigmas: along "x" and "y": (H, W) px. inside: (H, W) bool, well within the board.
    """

    reported_diopters: float
    view: BoardView
    matrix: Numbers
    optics: Optics
    shift_px: tuple[float, float]
    shifts: dict[str, NDArray[np.float32]]
    sigmas: dict[str, NDArray[np.float32]]
    inside: NDArray[np.bool_]


@dataclass
class _Held:
    """Images of the sweep that is going on."""

    images: list[LensImage] = field(default_factory=list)
    views: list[BoardView | None] = field(default_factory=list)


@dataclass
class Collected:
    """Boards, pairs, and sentences on what was left out."""

    stations: list[SweptBoard] = field(default_factory=list)
    pairs: list[PairOnBoard] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    images_with_board: int = 0
    sets: int = 0
    sets_with_board: int = 0


class StationCollector:
    """See the module's text."""

    def __init__(self, board: CalibrationBoard) -> None:
        """Look for this board."""
        self.board = board
        self.found = Collected()
        self._held = _Held()
        self._rest: tuple[BoardView, float, int] | None = None

    def add(self, image: LensImage) -> None:
        """Take the next image."""
        if image.grey is None:
            self._pair(image)
            return
        view = self._see(image, image.grey)
        self.found.images += 1
        self.found.images_with_board += view is not None
        if self._ends_sweep(image, view):
            self._close()
        self._held.images.append(image)
        self._held.views.append(view)

    def finish(self) -> Collected:
        """Return everything that was found."""
        self._close()
        return self.found

    def pause(self) -> None:
        """End the sweep that is going on: another recording follows."""
        self._close()

    def _see(self, image: LensImage, grey: NDArray[np.uint8]) -> BoardView | None:
        view = self.board.detect(grey)
        if view is None or not image.distortion.any():
            return view
        straight = cv2.undistortPoints(view.corners_px[:, None], image.matrix, image.distortion,
                                       P=image.matrix)
        return BoardView(view.ids, np.asarray(straight[:, 0], np.float64))

    def _ends_sweep(self, image: LensImage, view: BoardView | None) -> bool:
        held = self._held
        if not held.images:
            return False
        stamps = [i.stamp_s for i in held.images]
        period_s = float(np.median(np.diff(stamps))) if len(stamps) > 2 else 0.0
        if image.stamp_s - stamps[-1] > max(MIN_PAUSE_S, PAUSE_PERIODS * period_s):
            return True
        for before, seen in zip(held.images[::-1], held.views[::-1]):
            if seen is not None:
                near = abs(before.reported_diopters - image.reported_diopters) < MOVED_DIOPTERS
                return view is not None and near and _moved(seen, view, image)
        return False

    def _close(self) -> None:
        held, self._held = self._held, _Held()
        seen = [index for index, view in enumerate(held.views) if view is not None]
        if not held.images:
            return
        name = f"sweep {held.images[0].stamp_s:.1f} to {held.images[-1].stamp_s:.1f} s"
        if len(held.images) < MIN_IMAGES or len(seen) < 4:
            self.found.notes.append(
                f"{name}: left out, {len(held.images)} images of which {len(seen)} show the "
                f"board; needs {MIN_IMAGES} and 4")
            return
        views = [view for view in held.views if view is not None]
        best = max(views, key=lambda v: len(v.ids))
        reports = np.array([i.reported_diopters for i in held.images])
        growth = _growth(views, best, reports[seen], reports)
        sharpness = self._sharpness(held.images, best, growth)
        self.found.stations.append(SweptBoard(
            name, Trace(reports, sharpness), tuple(views), np.array(seen, np.int64),
            np.array([held.images[i].matrix for i in seen])))

    def _sharpness(self, images: list[LensImage], best: BoardView, growth: Numbers) -> Numbers:
        """Sharpness of the print in each image, (N,).

        The window grows with the picture, or print would pass its rim and look like focus.
        """
        values = []
        for image, size in zip(images, growth):
            assert image.grey is not None
            centre = image.matrix[:2, 2]
            grown = BoardView(best.ids, centre + (best.corners_px - centre) * size)
            window = self.board.window(grown, image.grey.shape[1], image.grey.shape[0])
            values.append(board_sharpness(image.grey, window, size))
        return np.array(values)

    def _pair(self, image: LensImage) -> None:
        assert image.left is not None and image.right is not None
        self.found.sets += 1
        both = image.left + image.right
        white = max(float(np.percentile(both, 99.5)), 1e-9)
        grey = (255 * np.sqrt(np.clip(both / white, 0, 1))).astype(np.uint8)
        view = self._see(image, grey)
        if view is None:
            return
        self.found.sets_with_board += 1
        if self._seen_enough(image, view, grey.shape[1]):
            return
        inside = _inside(self.board, view, grey.shape)
        if not inside.any():
            return
        x, y, weight = displacement(image.left, image.right)
        weight = np.where(inside, weight, 0)
        if not weight.sum() > 0:
            return
        mean = tuple(float(np.average(v, weights=weight)) for v in (x, y))
        found = {axis: displacement_along(image.left, image.right, axis) for axis in "xy"}
        self.found.pairs.append(PairOnBoard(
            image.reported_diopters, view, image.matrix, image.optics, (mean[0], mean[1]),
            {a: f[0] for a, f in found.items()}, {a: f[1] for a, f in found.items()}, inside))

    def _seen_enough(self, image: LensImage, view: BoardView, width_px: int) -> bool:
        """Whether the board rests where it was, as a video shows it, or there are plenty."""
        if len(self.found.pairs) >= MAX_PAIRS:
            return True
        count = 0
        if self._rest is not None:
            before, reported, count = self._rest
            if reported != image.reported_diopters or _apart_px(before, view) > 0.005 * width_px:
                count = 0
        self._rest = (view, image.reported_diopters, count + 1)
        return count >= PAIRS_AT_REST


def _growth(views: list[BoardView], best: BoardView, at: Numbers, reports: Numbers) -> Numbers:
    """Size of the picture in each image relative to that of `best`: a line over the reports, (N,).

    Reports are not yet shifted by the latency; what that errs is the breathing of one step.
    """
    sizes = []
    for view in views:
        there, here = _shared(best, view)
        spread = [np.linalg.norm(c - c.mean(0)) if len(c) > 2 else np.nan for c in (there, here)]
        sizes.append(float(spread[1] / spread[0]))
    known = np.isfinite(sizes)
    if known.sum() < 4 or np.ptp(at[known]) < 0.1:
        return np.ones(len(reports))
    fit = huber_linear(np.stack([np.ones(known.sum()), at[known]], -1), np.array(sizes)[known])
    return np.asarray(np.clip(fit.parameters[0] + fit.parameters[1] * reports, 0.5, 2.0))


def _shared(a: BoardView, b: BoardView) -> tuple[Numbers, Numbers]:
    _, first, second = np.intersect1d(a.ids, b.ids, return_indices=True)
    return a.corners_px[first], b.corners_px[second]


def _apart_px(a: BoardView, b: BoardView) -> float:
    """Median distance of corners seen in both; +Inf without any."""
    first, second = _shared(a, b)
    return float(np.median(np.linalg.norm(first - second, axis=1))) if len(first) else np.inf


def _moved(before: BoardView, now: BoardView, image: LensImage) -> bool:
    first, second = _shared(before, now)
    if len(first) < 3:
        return False
    assert image.grey is not None
    spread = [float(np.linalg.norm(c - c.mean(0), axis=1).mean()) for c in (first, second)]
    away = float(np.linalg.norm(first.mean(0) - second.mean(0)))
    return bool(abs(np.log(spread[1] / max(spread[0], 1e-9))) > MOVED_SIZE
                or away > MOVED_SHARE * image.grey.shape[1])


def _inside(board: CalibrationBoard, view: BoardView, shape: tuple[int, ...]
            ) -> NDArray[np.bool_]:
    """Pixels at least `RIM_PX` within the print and the image, (H, W)."""
    onto, _ = cv2.findHomography(board.object_m[view.ids, :2], view.corners_px)
    width_m, height_m = board.size_m
    rim = np.array([[[0, 0]], [[width_m, 0]], [[width_m, height_m]], [[0, height_m]]], np.float64)
    if onto is None:
        return np.zeros(shape[:2], np.bool_)
    corners = cv2.perspectiveTransform(rim, onto)
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1)
    mask[:, [0, -1]] = mask[[0, -1]] = 0
    side = 2 * RIM_PX + 1
    return np.asarray(cv2.erode(mask, np.ones((side, side), np.uint8)) > 0)


__all__ = ["Collected", "LensImage", "Optics", "PairOnBoard", "StationCollector", "SweptBoard"]
