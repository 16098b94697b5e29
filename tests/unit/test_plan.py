"""The plan: what a machine runs best, per use, with the command that starts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guidebook import machine, plan, units
from guidebook.catalog import models
from guidebook.machine import Gpu, Rate
from guidebook.planner import Case

CHAT = plan.USES[0]
HERE = machine.describe()


def with_gpus(*gpus):
    return replace(HERE, gpus=gpus)


def gpu(name, gib=None):
    return Gpu(
        name=name,
        kind="cuda",
        memory_total_bytes=None if gib is None else gib * units.GIB,
        memory_free_bytes=None,
        unified=False,
        driver=None,
        cuda_driver_version=None,
        compute_capability=None,
        power_limit_w=None,
    )


@pytest.mark.parametrize("use", plan.USES, ids=lambda use: use.name)
def test_every_choice_is_fast_enough_even_at_the_low_end(use):
    wanted = plan.rig("GeForce RTX 3090")
    for choice in plan.choices(wanted, use):
        assert choice.answer.low >= use.least_speed
        assert choice.case.context == use.context <= choice.model.architecture.context_length


def test_the_largest_comes_first_and_no_shape_comes_twice():
    found = plan.choices(plan.rig("Apple M4 Max (40c)"), CHAT)
    ranks = [plan.size_rank(choice.model) for choice in found]
    assert ranks == sorted(ranks, reverse=True)
    shapes = [replace(choice.model.architecture, context_length=0) for choice in found]
    assert len(shapes) == len(set(shapes)) == 3


def test_more_memory_never_gives_a_smaller_choice():
    sizes = [
        plan.size_rank(plan.choices(plan.rig(name), CHAT)[0].model)
        for name in ("GeForce RTX 3060 8GB", "GeForce RTX 3090", "RTX PRO 6000 Blackwell WS")
    ]
    assert sizes == sorted(sizes)


def test_a_model_that_lies_on_the_card_whole_is_started_with_all_layers():
    choice = plan.choices(plan.rig("GeForce RTX 4090"), CHAT)[-1]
    assert choice.answer.fits is True
    assert " -ngl 99 " in choice.command
    assert f"-c {CHAT.context}" in choice.command
    assert "--host 127.0.0.1" in choice.command


def test_a_mixture_split_with_ram_is_started_with_its_experts_there():
    wanted = plan.rig("GeForce RTX 4090", ram_bytes=96 * units.GIB)
    model = models.find("gpt-oss-120b")
    case = Case("GeForce RTX 4090", model.name, "MXFP4", depth=2048, context=8192)
    choice = plan.Choice(model, case, wanted.answer(model, case))
    assert f" -ngl 99 --n-cpu-moe {choice.answer.n_cpu_moe} -fa on" in choice.command
    said = "\n".join(plan._choice_lines(choice))
    assert f"the experts of the first {choice.answer.n_cpu_moe} layers in RAM" in said


def test_a_machine_without_a_gpu_is_planned_with_its_measured_memory():
    bandwidth = Rate(20e9, (20e9,), "B/s", "test", 2)
    flops = Rate(150e9, (150e9,), "FLOP/s", "test", 2)
    wanted = plan.rig_of(with_gpus(), bandwidth, flops)
    assert wanted.device.kind == "ram"
    assert wanted.device.bandwidth == pytest.approx(20e9 / 0.75)
    assert wanted.device.memory_bytes == HERE.memory.effective_total_bytes
    assert not wanted.assumptions
    assert "-ngl" not in plan.show(wanted)


def test_a_machine_with_known_cards_is_planned_with_them():
    card = gpu("NVIDIA GeForce RTX 3080", 10)
    wanted = plan.rig_of(with_gpus(card, card))
    assert (wanted.device.name, wanted.n_devices) == ("GeForce RTX 3080 10GB", 2)
    assert "taken as DDR5-5600" in plan.show(wanted)


def test_a_card_that_the_catalog_lacks_is_named_and_left_out():
    wanted = plan.rig_of(with_gpus(gpu("Voodoo 2", 1)))
    assert wanted.device.kind == "ram"
    assert "Voodoo 2 is not in the catalog" in plan.show(wanted)


def test_a_use_that_nothing_fulfils_says_so():
    wanted = plan.rig("GeForce RTX 3060 8GB", ram_bytes=8 * units.GIB)
    impossible = plan.Use("telepathy", 8192, 0, 1e6, "no time to lose")
    assert "nothing in the catalog runs here that fast" in plan.show(wanted, [impossible])


def test_a_plan_is_json_with_the_same_choices_as_its_text():
    wanted = plan.rig("GeForce RTX 3090")
    text, data = plan.show(wanted), plan.to_dict(wanted)
    for use in data["uses"]:
        for choice in use["choices"]:
            assert choice["command"] in text


def test_a_case_without_a_file_type_takes_the_usual_one():
    wanted, model = plan.rig("GeForce RTX 3090"), models.find("llama-3-8b")
    named, unnamed = (
        wanted.answer(model, Case("GeForce RTX 3090", "llama-3-8b", quant))
        for quant in ("Q4_K_M", "")
    )
    assert named == unnamed


def test_an_unknown_device_is_refused_with_near_ones():
    with pytest.raises(LookupError, match="GeForce RTX 4090"):
        plan.rig("GeForce RTX 4090 Ultra")
