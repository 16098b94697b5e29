"""Carbon: by hand, from sourced tables, and unknown where nobody published it."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.cost import carbon


def test_a_year_of_evenings_by_hand() -> None:
    # 0.35 kW · 10 h · 52.18 weeks = 182.63 kWh; at 342 g: 62.46 kg.
    found = carbon.footprint(182.63, 342)
    assert found.electricity_kg == pytest.approx(62.46, abs=0.005)
    assert found.embodied_kg is None
    assert found.total_kg == found.electricity_kg


def test_a_data_centre_adds_its_cooling() -> None:
    home, centre = carbon.footprint(10, 400), carbon.footprint(10, 400, pue=carbon.DATA_CENTRE_PUE)
    assert centre.electricity_kg == pytest.approx(1.54 * home.electricity_kg)


def test_making_the_device_counts_by_its_share_of_life() -> None:
    # 24 h of a life of 3 years at 168 h a week, 26,298 h.
    share = carbon.share_of_life(24, 168, 3)
    assert share == pytest.approx(24 / 26_298)
    found = carbon.footprint(0, 400, embodied_kg=318, share_of_life=share)
    assert found.total_kg == found.embodied_kg == pytest.approx(318 * 24 / 26_298)
    assert carbon.share_of_life(1e9, 168, 3) == 1


@settings(max_examples=50)
@given(st.floats(0, 1e5), st.floats(0, 1500), st.floats(1, 3), st.floats(0, 100))
def test_more_energy_and_dirtier_grids_never_emit_less(
    kwh: float, grams: float, pue: float, more: float
) -> None:
    base = carbon.footprint(kwh, grams, pue=pue).total_kg
    assert carbon.footprint(kwh + more, grams, pue=pue).total_kg >= base
    assert carbon.footprint(kwh, grams + more, pue=pue).total_kg >= base


def test_every_region_has_a_source_and_a_date() -> None:
    for grid in carbon.grids():
        assert "https://" in grid.source
        assert 10 < grid.g_co2e_per_kwh < 1000
        assert grid.as_of <= datetime.date(2026, 11, 24)
    assert carbon.grids()[0].region == "World"
    assert {"Germany", "United States", "European Union"} <= {g.region for g in carbon.grids()}


def test_regions_are_found_without_regard_to_case() -> None:
    assert carbon.grid(" germany ").g_co2e_per_kwh == 342.06
    with pytest.raises(LookupError, match="Germany"):
        carbon.grid("Germony")
    with pytest.raises(LookupError, match="grams per kWh"):
        carbon.grid("Xyzzyx")


def test_what_nobody_published_is_none() -> None:
    known = carbon.embodied("A100 SXM4 80GB")
    assert known is not None
    assert (known.kg_co2e, "https://" in known.source) == (318, True)
    assert carbon.embodied("GeForce RTX 3090") is None


@pytest.mark.parametrize(
    ("change", "name"),
    [({"pue": 0.9}, "pue"), ({"share_of_life": 1.1}, "life"), ({"kwh": -1}, "kwh")],
)
def test_impossible_numbers_are_refused(change: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        carbon.footprint(**{"kwh": 1.0, "g_co2e_per_kwh": 1.0, **change})
