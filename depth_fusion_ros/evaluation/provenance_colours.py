"""One colour for each label of provenance, in plots and recordings alike."""

from __future__ import annotations

PROVENANCE_COLOURS = {
    "none": "#8c8c8c", "measured": "#66c2a5", "fused": "#fc8d62", "prior_only": "#8da0cb",
    "saturated": "#e78ac3", "textureless": "#a6d854", "out_of_range": "#ffd92f",
    "motion_rejected": "#b15928"}
"""Name of a `Provenance` in lower case → #rrggbb."""
