"""The collection of speeds and power reads as its source has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guidebook import published

PC = "Intel 265K Custom PC (Nvidia RTX 4090)"


def test_a_run_reads_as_its_row() -> None:
    run = published.find("gpt-oss 20b", PC)
    assert (run.tokens_per_second, run.watts, run.processor) == (279.65, 509.1, "GPU")
    assert run.device is not None
    assert run.device.name == "GeForce RTX 4090"
    assert run.tokens_per_joule == pytest.approx(279.65 / 509.1)
    assert "geerlingguy" in run.source


def test_every_run_has_a_speed_and_those_without_power_have_no_tokens_per_joule() -> None:
    assert all(run.tokens_per_second > 0 for run in published.runs())
    unknown = [run for run in published.runs() if run.watts is None]
    assert unknown
    assert {run.tokens_per_joule for run in unknown} == {None}


@pytest.mark.parametrize(
    ("system", "path"),
    [
        (PC, "PC"),
        ("Mac Studio (M3 Ultra 512GB)", "Mac"),
        ("Nvidia Spark", "DGX"),
        ("AMD Radeon AI Pro R9700", None),
        ("Pi 5 - 16GB", None),
    ],
)
def test_a_system_is_on_the_path_of_its_gpu(system: str, path: str | None) -> None:
    assert published.find("DeepSeek R1 14b", system).path == path


def test_a_split_run_is_on_no_path() -> None:
    assert replace(published.find("gpt-oss 20b", PC), processor="GPU/CPU").path is None


def test_the_best_of_a_path_is_no_worse_than_any_other_run_of_it() -> None:
    best = published.most_per_joule("Llama 3.2:3b")
    assert set(best) == {"PC", "Mac", "DGX"}
    for run in published.runs():
        if run.model == "Llama 3.2:3b" and run.path and run.tokens_per_joule:
            assert run.tokens_per_joule <= (best[run.path].tokens_per_joule or 0)


def test_a_model_that_nobody_measured_has_no_best_and_no_run() -> None:
    assert published.most_per_joule("nothing") == {}
    with pytest.raises(LookupError, match="'nothing'"):
        published.find("nothing", PC)
