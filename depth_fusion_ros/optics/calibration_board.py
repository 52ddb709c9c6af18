"""A printed board of known size in an image: ChArUco, or AprilTags of family 36h11.

    board = CalibrationBoard.charuco(squares=(5, 4), square_m=0.05, marker_m=0.0375)
    view = board.detect(grey)                       # None where too little of it is seen
    pose = board.pose(view.ids, view.corners_px, camera_matrix)
    pose.plane_diopters(width, height, camera_matrix)

Board axes: x right, y down along its print, z = 0 on it, metres; camera axes as everywhere. Source:
OpenCV's aruco module (Garrido-Jurado et al., Pattern Recognition 2014) and its solvePnP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_CORNERS = 6
"""Fewer corners leave a plane's tilt and distance poorly known."""
SMALL_IMAGE_PX = 900
"""Images no larger are doubled for detection: the bits of a far board are 2 px wide."""
MAX_POSE_ERROR_PX = 2.0

Grey = NDArray[np.uint8]
Points = NDArray[np.float64]


class BoardError(ValueError):
    """A board that cannot be: the text says which number breaks which rule."""


@dataclass(frozen=True)
class BoardView:
    """What is seen of a board: ids (N,) int of its corners, corners_px (N, 2)."""

    ids: NDArray[np.int64]
    corners_px: Points


@dataclass(frozen=True)
class BoardPose:
    """Where a board stands.

    Attributes:
        rotation: (3, 3) board → camera. translation_m: (3,) of the board's origin, metres.
        error_px: root mean square distance of the corners from where the pose puts them.
    """

    rotation: Points
    translation_m: Points
    error_px: float

    def corner_diopters(self, object_m: Points) -> float:
        """Mean of 1/Z over points (N, 3) of the board, 1/m."""
        z_m = object_m @ self.rotation[2] + self.translation_m[2]
        return float(np.mean(1.0 / z_m))

    def plane_diopters(self, width_px: int, height_px: int, matrix: Points) -> Points:
        """1/Z of the board's plane at every pixel of an image, (H, W); it is affine there."""
        normal = self.rotation[:, 2]
        per_pixel = np.linalg.inv(matrix).T @ (normal / (normal @ self.translation_m))
        x, y = np.arange(width_px)[None], np.arange(height_px)[:, None]
        return np.asarray(per_pixel[0] * x + per_pixel[1] * y + per_pixel[2])


class CalibrationBoard:
    """A board; make it with `charuco` or `apriltag`.

    Attributes:
        object_m: (P, 3) its corners by id, metres. size_m: width and height of the print.
        texels_per_m: cells of the print per metre, where its gaps are whole cells too.
        text: what it is, in words.
    """

    def __init__(self, kind: str, text: str, detector: Any, object_m: Points,
                 size_m: tuple[float, float]) -> None:
        self.kind, self.text, self._detector = kind, text, detector
        self.object_m, self.size_m = object_m, size_m
        self.texels_per_m = 0.0
        self._print: Any = None
        self._first_id = 0

    @classmethod
    def charuco(cls, squares: tuple[int, int] = (5, 4), square_m: float = 0.05,
                marker_m: float = 0.0375, dictionary: str = "DICT_4X4_50") -> CalibrationBoard:
        """Return a ChArUco board of `squares` (across, down), each `square_m` wide.

        Raises:
            BoardError: a size that cannot be, or a dictionary that OpenCV does not know.
        """
        if min(squares) < 3 or not 0 < marker_m < square_m:
            raise BoardError(f"ChArUco board of {squares[0]}x{squares[1]} squares of {square_m!r} "
                             f"m with markers of {marker_m!r} m: needs at least 3x3 squares and 0 "
                             "< marker < square; measure the print")
        print_ = cv2.aruco.CharucoBoard(squares, square_m, marker_m, _dictionary(dictionary))
        text = (f"ChArUco {squares[0]}x{squares[1]}, squares {1e3 * square_m:g} mm, markers "
                f"{1e3 * marker_m:g} mm, {dictionary}")
        corners = np.asarray(print_.getChessboardCorners(), np.float64)
        board = cls("charuco", text, cv2.aruco.CharucoDetector(print_), corners,
                    (squares[0] * square_m, squares[1] * square_m))
        board._print, board.texels_per_m = print_, 8 / square_m
        return board

    @classmethod
    def apriltag(cls, tags: tuple[int, int] = (1, 1), tag_m: float = 0.16,
                 gap_m: float = 0.04, first_id: int = 0) -> CalibrationBoard:
        """Return a grid of AprilTags 36h11, ids row by row from `first_id`; 1x1 = a single tag.

        Args:
            tags: across, down. tag_m: side of the black square. gap_m: between neighbours.

        Raises:
            BoardError: a size that cannot be.
        """
        count = tags[0] * tags[1]
        if min(tags) < 1 or not tag_m > 0 or not gap_m > 0 or not 0 <= first_id <= 587 - count:
            raise BoardError(f"{tags[0]}x{tags[1]} AprilTags of {tag_m!r} m, {gap_m!r} m apart, "
                             f"from id {first_id}: needs at least one tag, sizes > 0 and ids 0 to "
                             "586; measure the print")
        side = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64) * tag_m
        starts = [(x * (tag_m + gap_m), y * (tag_m + gap_m))
                  for y in range(tags[1]) for x in range(tags[0])]
        flat = np.concatenate([side + start for start in np.array(starts)])
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        detector = cv2.aruco.ArucoDetector(_dictionary("DICT_APRILTAG_36h11"), parameters)
        text = f"AprilTag 36h11 {tags[0]}x{tags[1]}, tags {1e3 * tag_m:g} mm"
        board = cls("apriltag", text, detector, np.pad(flat, ((0, 0), (0, 1))),
                    (float(flat[:, 0].max()), float(flat[:, 1].max())))
        board._first_id, board.texels_per_m = first_id, 8 / tag_m
        board._print = cv2.aruco.GridBoard(tags, tag_m, gap_m, _dictionary("DICT_APRILTAG_36h11"),
                                           np.arange(first_id, first_id + count))
        return board

    def picture(self, pixels_per_m: float) -> Grey:
        """Return the print, (H, W) uint8 of 0 and 255, without a margin.

        Exact where every cell of the print is a whole number of pixels wide.
        """
        size = round(self.size_m[0] * pixels_per_m), round(self.size_m[1] * pixels_per_m)
        return np.asarray(self._print.generateImage(size, marginSize=0, borderBits=1), np.uint8)

    def detect(self, grey: Grey) -> BoardView | None:
        """Find the board in an image (H, W) uint8; None with fewer than `MIN_CORNERS` corners.

        A single tag has four corners and is content with them.
        """
        factor = 2 if max(grey.shape) <= SMALL_IMAGE_PX else 1
        image = grey if factor == 1 else cv2.resize(
            grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        ids, corners = self._found(image)
        if len(ids) < min(MIN_CORNERS, len(self.object_m)):
            return None
        return BoardView(ids, (corners + 0.5) / factor - 0.5)

    def _found(self, image: Any) -> tuple[NDArray[np.int64], Points]:
        if self.kind == "charuco":
            corners, ids, _, _ = self._detector.detectBoard(image)
            if ids is None:
                return np.zeros(0, np.int64), np.zeros((0, 2))
            return ids.ravel().astype(np.int64), corners.reshape(-1, 2).astype(np.float64)
        found, ids, _ = self._detector.detectMarkers(image)
        count = len(self.object_m) // 4
        chosen = [] if ids is None else [
            (int(tag) - self._first_id, quad.reshape(4, 2)) for tag, quad in zip(
                ids.ravel(), found) if 0 <= int(tag) - self._first_id < count]
        if not chosen:
            return np.zeros(0, np.int64), np.zeros((0, 2))
        return (np.concatenate([4 * tag + np.arange(4) for tag, _ in chosen]).astype(np.int64),
                np.concatenate([quad for _, quad in chosen]).astype(np.float64))

    def pose(self, ids: NDArray[np.int64], corners_px: Points, matrix: Points
             ) -> BoardPose | None:
        """Pose of the board from undistorted corners (N, 2); None where they fit no plane.

        Args:
            matrix: (3, 3) camera matrix, px.
        """
        object_m = self.object_m[ids]
        done, rotations, translations, errors = cv2.solvePnPGeneric(
            object_m, corners_px[:, None], matrix, None, flags=cv2.SOLVEPNP_IPPE)
        if not done or not np.isfinite(errors).all():
            # OpenCV's IPPE divides by zero where the board is exactly square to the axis.
            done, rotations, translations, errors = cv2.solvePnPGeneric(
                object_m, corners_px[:, None], matrix, None, flags=cv2.SOLVEPNP_ITERATIVE)
        if not done or not np.isfinite(errors).all():
            return None
        best = int(np.argmin(np.ravel(errors)))
        rotation, translation = cv2.solvePnPRefineLM(
            object_m, corners_px[:, None], matrix, None, rotations[best], translations[best])
        projected = cv2.projectPoints(object_m, rotation, translation, matrix, None)[0][:, 0]
        error_px = float(np.sqrt(np.mean(np.sum((projected - corners_px)**2, -1))))
        if not error_px < MAX_POSE_ERROR_PX or translation[2, 0] <= 0:
            return None
        return BoardPose(np.asarray(cv2.Rodrigues(rotation)[0], np.float64),
                         np.asarray(translation[:, 0], np.float64), error_px)

    def window(self, view: BoardView, width_px: int, height_px: int) -> NDArray[np.float32]:
        """Weights (H, W) that rise smoothly from the rim of the board to 1 at its middle.

        Soft, because a lens that breathes moves the print under a window that stands still.
        """
        image, _ = cv2.findHomography(view.corners_px, self.object_m[view.ids, :2])
        x, y = np.meshgrid(np.arange(width_px), np.arange(height_px))
        place = np.einsum("ij,jhw->ihw", image, np.stack([x, y, np.ones_like(x)]).astype(float))
        across, down = (2 * place[i] / place[2] / self.size_m[i] - 1 for i in range(2))
        inside = (np.abs(across) < 1) & (np.abs(down) < 1)
        weight = np.cos(np.pi / 2 * across)**2 * np.cos(np.pi / 2 * down)**2
        return np.where(inside, weight, 0).astype(np.float32)


def _dictionary(name: str) -> Any:
    if not name.startswith("DICT_") or not hasattr(cv2.aruco, name):
        raise BoardError(f"dictionary {name!r}: not known to OpenCV; use a name such as "
                         "DICT_4X4_50, DICT_5X5_100 or DICT_APRILTAG_36h11")
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


__all__ = ["BoardError", "BoardPose", "BoardView", "CalibrationBoard"]
