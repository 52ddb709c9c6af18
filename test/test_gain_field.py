"""Gain and focus that vary over the field: polynomials, their names, and their place in a lens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth_fusion_ros.optics.calibration_file import CalibrationError, LensCalibration
from depth_fusion_ros.optics.gain_field import (
    FieldPolynomial,
    all_terms,
    check_gain_field,
    monomials,
    normalised_grid,
)
from depth_fusion_ros.optics.thin_lens import ThinLens

WIDTH_PX, HEIGHT_PX = 96, 64
LENS = ThinLens(0.05, 4.0, 36e-3 / WIDTH_PX, 1.0)
CANON_LIKE = FieldPolynomial(((2, 0, -0.9), (4, 0, 0.4)))
CURVED = FieldPolynomial(((2, 0, 0.05), (0, 2, -0.03)))


def test_a_gain_that_is_not_positive_in_a_corner_is_refused() -> None:
    with pytest.raises(ValueError, match=r"falls to -0\.3"):
        check_gain_field(FieldPolynomial(((2, 0, -0.8), (0, 2, -0.5))))
    with pytest.raises(ValueError, match="gain field"):
        replace(LENS, gain_field=FieldPolynomial(((2, 0, -1.0),)))
    with pytest.raises(CalibrationError, match="gain field"):
        LensCalibration(1.0, 1.0, 8, 8, gain_field=FieldPolynomial(((2, 0, -1.2),)))


def test_a_lens_with_fields_stands_for_itself_by_its_mean() -> None:
    lens = replace(LENS, kappa=0.1, gain_field=CANON_LIKE, focus_field=CURVED)
    mean = lens.field_mean()
    assert mean.gain_field is None and mean.focus_field is None
    # the means of u² and u⁴ over −1 … 1 are 1/3 and 1/5
    relative = 1 - 0.9 / 3 + 0.4 / 5
    assert mean.disparity_gain_px_m == pytest.approx(relative * lens.disparity_gain_px_m)
    assert mean.focus_diopters == pytest.approx(1 + 0.05 / 3 - 0.03 / 3)
    everywhere = np.mean(lens.gain_map_px_m(640, 480))
    assert everywhere == pytest.approx(mean.disparity_gain_px_m, rel=1e-4)
    assert LENS.field_mean() is LENS


def test_a_field_is_the_same_at_every_resolution() -> None:
    small, large = CANON_LIKE.on_grid(16, 8), CANON_LIKE.on_grid(64, 32)
    # a small pixel covers 4 x 4 large ones; a smooth field hardly differs from their mean
    assert np.allclose(large.reshape(8, 4, 16, 4).mean((1, 3)), small, atol=0.02)
    assert CANON_LIKE.on_grid(17, 9)[4, 8] == 0, "the centre pixel of an odd grid is the centre"
    with pytest.raises(ValueError, match="read-only"):
        small[0, 0] = 1  # shared between frames


@given(st.dictionaries(st.sampled_from(all_terms(4)), st.floats(-0.05, 0.05), max_size=6))
def test_fields_survive_their_names(values: dict[tuple[int, int], float]) -> None:
    field = FieldPolynomial(tuple((i, j, c) for (i, j), c in values.items()))
    assert FieldPolynomial.from_dict(field.to_dict()) == field
    u, v = normalised_grid(5, 4)
    grid = np.broadcast_arrays(u, v)
    design = monomials(list(values), grid[0].ravel(), grid[1].ravel())
    assert np.allclose(field.at(u, v).ravel(), design @ np.array(list(values.values())))


@pytest.mark.parametrize(("values", "named"), [
    ({"z2": 1.0}, "z2"), ({"": 1.0}, "powers"), ({"x0": 1.0}, "x0y0"), ({"x7": 0.1}, "x7"),
    ({"x2": math.nan}, "finite"), ({"x2": "much"}, "number")])
def test_a_field_that_is_none_is_refused_by_name(values: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FieldPolynomial.from_dict(values)
