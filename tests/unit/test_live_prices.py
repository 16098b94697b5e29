"""Live prices come from a child process with a time limit, or not at all, with a clear sentence."""

from __future__ import annotations

import datetime
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from guidebook import live_prices
from guidebook.catalog import clouds
from guidebook.live_prices import LivePricesError
from guidebook.machine import _outside

TODAY = datetime.date(2026, 11, 24)

# What the packages look like from outside, as far as they are used: gpuhunt 0.1.34's ``query``
# and SkyPilot 0.14.1's ``list_accelerators``.
GPUHUNT = """
from types import SimpleNamespace
def query(*, min_gpu_count):
    def item(provider, name, memory, count, price, spot):
        return SimpleNamespace(provider=provider, gpu_name=name, gpu_memory=memory,
                               gpu_count=count, price=price, spot=spot)
    print("a notice that nobody asked for")
    return [
        item("runpod", "RTX4090", 24, 1, 0.74, False),
        item("runpod", "RTX4090", 24, 2, 1.40, False),
        item("lambdalabs", "H100", 80, 8, 31.92, False),
        item("aws", "H100", 80, 8, 55.04, False),
        item("aws", "H100", 80, 8, 60.00, False),
        item("aws", "H100", 80, 8, 20.00, True),
        item("aws", None, None, 1, 0.1, False),
    ]
"""
SKY = """
from types import SimpleNamespace
class catalog:
    @staticmethod
    def list_accelerators(gpus_only, all_regions):
        def row(cloud, instance, count, memory, price, spot):
            return SimpleNamespace(cloud=cloud, instance_type=instance, accelerator_count=count,
                                   device_memory=memory, price=price, spot_price=spot)
        return {
            "A100-80GB": [row("RunPod", "1x_A100-80GB_COMMUNITY", 1.0, 0.078, 1.19, float("nan")),
                          row("AWS", "p4de.24xlarge", 8, 80.0, 27.44, 10.0)],
            "RTX3090": [row("Vast", "1x_RTX3090", 1, 24.0, 0.2, 0.1),
                        row("Vast", "half", 0.5, 24.0, 0.1, None)],
        }
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put both packages where a child process finds them."""
    (tmp_path / "gpuhunt.py").write_text(GPUHUNT)
    (tmp_path / "sky.py").write_text(SKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")
    return tmp_path


def test_prices_of_gpuhunt_become_offers(packages: Path) -> None:
    found = live_prices.fetch(catalog="gpuhunt", today=TODAY)
    by_key = {(o.gpu, o.provider, o.tier, o.n_gpus): o for o in found}
    assert set(by_key) == {
        ("GeForce RTX 4090", "RunPod", "on-demand", 1),
        ("GeForce RTX 4090", "RunPod", "on-demand", 2),
        ("H100 80GB", "Lambda", "on-demand", 8),
        ("H100 80GB", "AWS", "on-demand", 8),
        ("H100 80GB", "AWS", "spot", 8),
    }
    both = by_key["H100 80GB", "AWS", "on-demand", 8]
    assert (both.usd_per_gpu_hour_low, both.usd_per_gpu_hour_high) == (6.88, 7.5)
    assert [o.usd_per_gpu_hour for o in found] == sorted(o.usd_per_gpu_hour for o in found)
    assert all((o.as_of, o.source[:13]) == (TODAY, "gpuhunt 1.2.3") for o in found)
    assert not any(o.is_stale(TODAY) for o in found)


def test_prices_of_skypilot_become_offers(packages: Path) -> None:
    found = live_prices.fetch(catalog="skypilot", today=TODAY)
    assert {(o.gpu, o.provider, o.tier, o.usd_per_gpu_hour) for o in found} == {
        ("A100 80GB", "RunPod", "community", 1.19),
        ("A100 80GB", "AWS", "on-demand", 3.43),
        ("A100 80GB", "AWS", "spot", 1.25),
        ("GeForce RTX 3090", "Vast.ai", "on-demand", 0.2),
        ("GeForce RTX 3090", "Vast.ai", "spot", 0.1),
    }


def test_words_choose_a_gpu(packages: Path) -> None:
    assert {o.gpu for o in live_prices.fetch("4090", "gpuhunt")} == {"GeForce RTX 4090"}


def test_the_first_that_is_installed_is_asked(packages: Path) -> None:
    assert "gpuhunt" in live_prices.fetch()[0].source
    (packages / "gpuhunt.py").unlink()
    importlib.invalidate_caches()
    assert "skypilot" in live_prices.fetch()[0].source


def test_fetched_offers_can_be_kept_as_the_readers_own(packages: Path, tmp_path: Path) -> None:
    file = tmp_path / "today.csv"
    file.write_text(clouds.to_csv(live_prices.fetch("H100", "gpuhunt", today=TODAY)), "utf-8")
    own = [offer for offer in clouds.offers("H100 80GB", path=file) if offer.is_own]
    assert {offer.provider for offer in own} == {"AWS", "Lambda"}


def test_without_a_package_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LivePricesError, match="gpuhunt or skypilot is not installed"):
        live_prices.fetch()
    with pytest.raises(LivePricesError, match="skypilot is not installed"):
        live_prices.fetch(catalog="skypilot")


def test_without_a_network_the_sentence_says_what_is_left(packages: Path) -> None:
    (packages / "gpuhunt.py").write_text("raise OSError('no route to host')")
    with pytest.raises(LivePricesError, match="GUIDEBOOK_CLOUD_PRICES"):
        live_prices.fetch(catalog="gpuhunt")


def test_a_catalog_that_hangs_is_ended(packages: Path) -> None:
    (packages / "gpuhunt.py").write_text("import time; time.sleep(600)")
    with pytest.raises(LivePricesError, match=r"time limit 0\.5 s"):
        live_prices.fetch(catalog="gpuhunt", seconds=0.5)


@pytest.mark.parametrize("output", ["", "no list", "[1, 2"])
def test_an_answer_that_is_no_list_is_said_to_be_none(packages: Path, output: str) -> None:
    with pytest.raises(LivePricesError, match="not a list of prices"):
        live_prices.fetch(catalog="gpuhunt", run=lambda command, seconds: output)


def test_rows_that_make_no_sense_are_left_out(packages: Path) -> None:
    rows = [["x", "G", 1, 1, None, "spot"], ["x"], ["x", "G", 1, 1, 0, "spot"], 7]
    rows += [["x", "G", 1, 0, 1, "spot"], ["x", "G", 1, 1, 1, "free"]]
    found = live_prices.fetch(catalog="gpuhunt", run=lambda command, seconds: json.dumps(rows))
    assert found == ()


def test_an_unknown_catalog_is_refused() -> None:
    with pytest.raises(ValueError, match="gpuhunt, skypilot"):
        live_prices.fetch(catalog="the newspaper")  # type: ignore[arg-type]


def test_nothing_is_asked_unless_fetch_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(_outside, "command_output", lambda command, seconds: asked.append(command))
    monkeypatch.delitem(sys.modules, "guidebook.live_prices")
    importlib.import_module("guidebook.live_prices")
    clouds.offers("H100")
    assert asked == []
