"""Published splits, and what the planner says about them."""

from __future__ import annotations

import pytest

from guidebook import calibration, splits
from guidebook.catalog import models


def test_every_row_has_a_source_with_a_date_and_a_model_of_the_catalog() -> None:
    for row in splits.published():
        assert "pull request #" in row.source
        assert "(2026-07-" in row.source
        assert models.find(row.model).name
        assert row.tokens_per_second > 0


def test_only_mixtures_have_experts_in_ram() -> None:
    for row in splits.published():
        assert row.has_experts == models.find(row.model).architecture.is_moe


def test_the_splits_are_kept_out_of_the_calibration() -> None:
    used = {one.table for one in calibration.observations()}
    assert not any("split" in table for table in used)


@pytest.mark.parametrize("row", splits.published(), ids=lambda row: row.model)
def test_the_planner_puts_on_the_card_what_was_put_there(row: splits.Split) -> None:
    found = row.predicted()
    layers = models.find(row.model).architecture.n_layers + 1
    assert found.n_gpu_layers == min(row.n_gpu_layers, layers)
    assert (found.n_cpu_moe or 0) == (row.n_cpu_moe or 0)
    assert found.tokens_per_second is not None


@pytest.mark.parametrize("row", splits.published(), ids=lambda row: row.model)
def test_a_card_with_room_for_all_is_faster_than_the_split(row: splits.Split) -> None:
    whole, split = row.predicted_whole(), row.predicted()
    assert whole.n_cpu_moe in (0, None)
    assert whole.tokens_per_second is not None
    assert split.tokens_per_second is not None
    assert whole.tokens_per_second > split.tokens_per_second
