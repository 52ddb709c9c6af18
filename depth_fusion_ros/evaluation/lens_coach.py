"""What is still to be recorded for a lens calibration, told while it is being recorded.

    coach = LensCoach(board)
    coach.report(2.0)                    # every reported focus, dioptres
    coach.look(image)                    # now and then a LensImage
    coach.places, coach.advice()

A guide for people and not the calibration: it looks at single images, joins no stamps, and takes
distances without breathing. What counts is what `calibrate_camera` makes of the bag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from depth_fusion_ros.evaluation.lens_stations import LensImage
from depth_fusion_ros.optics.calibration_board import CalibrationBoard

APART_DIOPTERS, APART_SHARE = 0.12, 0.12
"""Boards nearer to each other than this, by either, are one place: breathing changes sizes too."""
MIN_STEPS, MIN_SEEN = 5, 4
ENOUGH_PLACES, ENOUGH_SPAN_DIOPTERS = 3, 0.3


@dataclass
class Place:
    """A distance of the board.

    Attributes:
        diopters: 1/Z of each look. seen: looks that found the board, of sweeps and of pairs.
        up, down: steps of the reported focus towards near and towards far, made here.
    """

    diopters: list[float] = field(default_factory=list)
    seen: int = 0
    pairs: int = 0
    up: int = 0
    down: int = 0

    @property
    def distance_m(self) -> float:
        """Metres to the board."""
        return 1 / float(np.median(self.diopters))

    @property
    def is_swept(self) -> bool:
        """Whether the lens went through it and back."""
        return self.seen >= MIN_SEEN and min(self.up, self.down) >= MIN_STEPS

    @property
    def is_done(self) -> bool:
        """Whether the board may be moved."""
        return self.is_swept or self.pairs > 0


class LensCoach:
    """See the module's text."""

    def __init__(self, board: CalibrationBoard) -> None:
        """Look for this board."""
        self.board = board
        self.places: list[Place] = []
        self.sees_board = False
        self._here: Place | None = None
        self._reported: float | None = None

    def report(self, diopters: float) -> None:
        """Take a reported focus, 1/m; NaN is left out."""
        if not np.isfinite(diopters):
            return
        before, self._reported = self._reported, diopters
        if self._here is not None and before is not None and diopters != before:
            if diopters > before:
                self._here.up += 1
            else:
                self._here.down += 1

    def look(self, image: LensImage) -> None:
        """Look for the board in an image of a sweep, or in the left view of a pair."""
        grey = image.grey
        if grey is None:
            assert image.left is not None
            white = max(float(np.percentile(image.left, 99.5)), 1e-9)
            grey = (255 * np.sqrt(np.clip(image.left / white, 0, 1))).astype(np.uint8)
        view = self.board.detect(grey)
        pose = None if view is None else self.board.pose(view.ids, view.corners_px, image.matrix)
        self.sees_board = pose is not None
        if view is None or pose is None:
            return
        here = self._place(pose.corner_diopters(self.board.object_m[view.ids]))
        if image.grey is None:
            here.pairs += 1
        else:
            here.seen += 1

    def is_enough(self) -> bool:
        """Whether a calibration is likely to succeed."""
        done = [1 / place.distance_m for place in self.places if place.is_done]
        return len(done) >= ENOUGH_PLACES and max(done) - min(done) >= ENOUGH_SPAN_DIOPTERS

    def advice(self) -> str:
        """What to do next, in a sentence."""
        here, done = self._here, sum(place.is_done for place in self.places)
        if here is None:
            return "show the board, whole and sharp at some focus"
        if not here.is_done:
            missing = [word for word, steps in (("from far to near", here.up),
                                                ("back to far", here.down)) if steps < MIN_STEPS]
            if missing:
                return (f"leave the board at {here.distance_m:.2f} m and step the lens "
                        f"{' and '.join(missing)} (or record pairs)")
            return "the board is hardly seen: more light, or nearer"
        if self.is_enough():
            return "enough; more distances, far apart, make it better"
        if done >= ENOUGH_PLACES:
            return "move the board much nearer or farther: the distances are too much alike"
        return f"done here: move the board to another distance ({done} of {ENOUGH_PLACES})"

    def _place(self, diopters: float) -> Place:
        for place in ([self._here] if self._here else []) + self.places:
            middle = float(np.median(place.diopters))
            if abs(diopters - middle) < max(APART_DIOPTERS, APART_SHARE * middle):
                break
        else:
            place = Place()
            self.places.append(place)
        self._here = place
        place.diopters.append(diopters)
        return place


__all__ = ["LensCoach", "Place"]
