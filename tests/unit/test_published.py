"""The published tables read as their sources have them, and are sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from typing import Any

import pytest

from guidebook import published, units
from guidebook.published import File

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


# --- quantization and attention --------------------------------------------------------------

TABLES = {
    "method_qualities": (published.method_qualities, 40),
    "divergences": (published.divergences, 8),
    "files": (published.files, 75),
    "awq_latencies": (published.awq_latencies, 29),
    "exllama_speeds": (published.exllama_speeds, 22),
    "training_speeds": (published.training_speeds, 12),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_a_source_and_cannot_be_changed(table: str) -> None:
    load, n_rows = TABLES[table]
    rows: Iterable[Any] = load()
    assert len(tuple(rows)) == n_rows
    for row in rows:
        assert len(row.source) > 10
        with pytest.raises(FrozenInstanceError):
            row.source = "elsewhere"


def test_the_known_misprint_is_found_and_nothing_else() -> None:
    wrong = [one for one in published.divergences() if not one.is_consistent]
    assert [(one.model, one.quant) for one in wrong] == [("Llama-2-7B", "Q2_K")]
    assert wrong[0].perplexity_by_ratio == pytest.approx(6.42, abs=0.005)
    assert "typo" in wrong[0].note
    # What was printed is the perplexity of F16, to all six digits.
    q8 = next(
        one for one in published.divergences() if (one.model, one.quant) == ("Llama-2-7B", "Q8_0")
    )
    assert q8.perplexity / q8.perplexity_ratio == pytest.approx(wrong[0].perplexity, rel=1e-6)


@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_more_bits_bring_a_file_nearer_to_f16(model: str) -> None:
    rows = {one.quant: one for one in published.divergences() if one.model == model}
    ordered = [rows[quant] for quant in ("Q2_K", "Q4_K_M", "Q6_K", "Q8_0")]
    assert len(rows) == 4
    for few, many in pairwise(ordered):
        assert few.kl_divergence > many.kl_divergence > 0
        assert few.perplexity_ratio > many.perplexity_ratio >= 1
        assert few.same_top < many.same_top <= 1


def test_a_model_trained_on_more_text_loses_more_in_every_type() -> None:
    old, new = (
        {one.quant: one.kl_divergence for one in published.divergences() if one.model == model}
        for model in ("Llama-2-7B", "Llama-3-8B")
    )
    assert all(new[quant] > old[quant] for quant in old)


def of_model(model: str) -> dict[str, File]:
    return {one.quant: one for one in published.files() if one.model == model}


K_QUANTS = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K")


@pytest.mark.parametrize("model", ["LLaMA-1 7B", "LLaMA-1 13B", "Llama-2-70B", "Llama-3-70B"])
def test_larger_k_quants_have_lower_perplexities_and_none_beats_16_bits(model: str) -> None:
    rows = of_model(model)
    values = [rows[quant].perplexity or 0 for quant in (*K_QUANTS, "F16")]
    assert all(few > many > 0 for few, many in pairwise(values))


@pytest.mark.parametrize("model", ["LLaMA-1 7B", "LLaMA-1 30B", "LLaMA-1 65B", "Llama-3-70B"])
def test_k_quants_grow_in_their_order(model: str) -> None:
    rows = of_model(model)
    sizes = [rows[quant].file_bytes or 0 for quant in K_QUANTS]
    assert all(0 < small < large for small, large in pairwise(sizes))


def test_the_missing_sizes_and_perplexities_stay_unknown() -> None:
    assert of_model("LLaMA-1 13B")["Q6_K"].file_bytes is None
    assert of_model("LLaMA-1 65B")["Q6_K"].perplexity is None
    assert all(one.file_bytes or one.perplexity for one in published.files())


def test_the_figures_of_one_file_come_together() -> None:
    file = of_model("LLaMA-1 7B")["Q4_K_M"]
    assert file.file_bytes == round(3.80 * units.GIB)
    assert file.perplexity == 5.9601
    assert file.milliseconds_per_token == {
        "M2 Max, 4 threads": 55,
        "M2 Max, 8 threads": 40,
        "RTX 4080": 16.0,
        "Ryzen 7950X, 4 threads": 71,
    }
    with pytest.raises(TypeError):
        file.milliseconds_per_token["RTX 4080"] = 1


def test_file_types_are_written_as_llama_cpp_writes_them() -> None:
    names = {one.quant for one in (*published.files(), *published.divergences())}
    assert {"F16", "Q4_K_M", "Q8_0", "IQ2_XXS"} <= names
    assert not names & {"fp16", "FP16", "q4_K_M"}


def test_no_four_bit_method_beats_16_bits_and_awq_never_loses_to_gptq() -> None:
    metric = "WikiText-2 PPL (seq 2048 HF protocol)"
    rows = {
        (one.model, one.method): one.value
        for one in published.method_qualities()
        if one.metric == metric
    }
    for model in ("Llama-2-7B", "Llama-2-13B", "Llama-2-70B"):
        whole, gptq, awq = (
            rows[model, method] for method in ("FP16", "GPTQ INT4-g128", "AWQ INT4-g128")
        )
        assert whole < awq <= gptq


def test_nf4_is_the_best_of_the_four_bit_number_formats() -> None:
    rows = [one for one in published.method_qualities() if one.metric == "Pile-CC mean PPL"]
    assert min(rows, key=lambda one: one.value).method == "NFloat4 + DQ"
    assert max(rows, key=lambda one: one.value).method == "Int4"


def test_a_score_counts_up_and_a_perplexity_down() -> None:
    kinds = {one.metric: one.higher_is_better for one in published.method_qualities()}
    assert sorted(kinds.values()) == [False, False, True]
    assert kinds["MMLU 5-shot % after (Q)LoRA finetune"]


def test_awq_is_faster_everywhere_and_unknown_where_fp16_does_not_fit() -> None:
    rows = published.awq_latencies()
    assert {one.device for one in rows} == {"RTX A6000", "RTX 4090", "Jetson Orin"}
    assert all(one.speedup is None or 2 < one.speedup < 4 for one in rows)
    missing = {(one.device, one.model) for one in rows if one.fp16_seconds is None}
    assert ("RTX 4090", "LLaMA-2-13B") in missing
    assert len(missing) == 8
    first = rows[0]
    assert (first.fp16_seconds, first.awq_seconds) == pytest.approx((0.02495, 0.01068))


def test_exllama_is_faster_on_the_larger_card_and_with_fewer_bits() -> None:
    speeds = {
        (one.model, one.size, one.mode, one.device): one.tokens_per_second
        for one in published.exllama_speeds()
    }
    for (model, size, mode, device), speed in speeds.items():
        if device == "RTX 3090 Ti":
            assert speed < speeds[model, size, mode, "RTX 4090"]
    for device in ("RTX 3090 Ti", "RTX 4090"):
        by_bits = [speeds["Llama2", "7B", f"EXL2 {bits}bpw", device] for bits in (3.0, 4.0, 5.0)]
        assert by_bits == sorted(by_bits, reverse=True)


def test_exllama_rows_say_what_kind_of_file_they_are() -> None:
    for one in published.exllama_speeds():
        if one.mode == "GPTQ":
            assert (one.group_size, one.bits_per_weight) == (128, None)
            assert one.act_order is (one.size in {"33B", "3B"})
        else:
            assert one.mode == f"EXL2 {one.bits_per_weight}bpw"
            assert one.group_size is one.act_order is None


def test_each_flash_attention_trains_faster_than_the_one_before() -> None:
    rows = {(one.model, one.context, one.method): one.flops for one in published.training_speeds()}
    for model in ("GPT3-1.3B", "GPT3-2.7B"):
        for context in (2048, 8192):
            without, first, second = (
                rows[model, context, method]
                for method in ("no FlashAttention", "FlashAttention", "FlashAttention-2")
            )
            assert without < first < second < 312e12  # an A100's tensor cores at 16 bits
    # Longer sequences cost standard attention dearly, and not FlashAttention-2.
    assert rows["GPT3-1.3B", 8192, "no FlashAttention"] == 72e12
    assert rows["GPT3-1.3B", 8192, "FlashAttention-2"] == 220e12
