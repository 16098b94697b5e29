"""The peers' formulas against recorded output of the tools themselves.

Each expectation names the version and the call it came from. The tools were run on an
imagined card (bandwidth 1,008 GB/s, 165.2 TFLOP/s) with enough memory for every model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import peers
from guidebook.peers import PEERS, Case
from guidebook.units import GIB

LLAMA_31_8B = Case(
    n_weights=8_030_261_248,
    n_active_weights=8_030_261_248,
    bits_per_weight=4.89,
    weights_bytes=4_913_000_000,
    n_layers=32,
    n_kv_heads=8,
    head_size=128,
    n_vocab=128_256,
    context=4096,
    depth=0,
    bandwidth=1008e9,
    tensor_flops=165.2e12,
    backend="CUDA",
    unified=False,
    quant="Q4_K_M",
    hidden_size=4096,
    n_heads=32,
)
LLAMA_2_7B = replace(
    LLAMA_31_8B,
    n_weights=6_738_415_616,
    n_active_weights=6_738_415_616,
    n_kv_heads=32,
    n_vocab=32_000,
)
# llmfit takes the number of weights from the hub's record, which differs from the model's.
LLAMA_2_7B_OF_LLMFIT = replace(LLAMA_2_7B, n_weights=6_738_417_664, n_active_weights=6_738_417_664)
GPT_OSS_20B = replace(
    LLAMA_31_8B,
    n_weights=21_511_953_984,
    n_active_weights=3_529_365_271,
    n_layers=24,
    head_size=64,
    n_vocab=201_088,
    hidden_size=2880,
    n_heads=64,
    n_experts=32,
    n_experts_used=4,
    expert_feed_forward_size=2880,
    family="gpt-oss",
)
QWEN3_30B_A3B = replace(
    LLAMA_31_8B,
    n_weights=30_532_122_624,
    n_active_weights=3_300_000_000,
    n_layers=48,
    n_kv_heads=4,
    n_vocab=151_936,
    hidden_size=2048,
    n_heads=32,
    n_experts=128,
    n_experts_used=8,
    expert_feed_forward_size=768,
    family="qwen3moe",
)
QWEN3_NEXT_80B_A3B = replace(
    QWEN3_30B_A3B,
    n_weights=81_300_000_000,
    n_kv_heads=2,
    n_heads=16,
    head_size=256,
    n_experts=512,
    n_experts_used=10,
    expert_feed_forward_size=512,
    shared_feed_forward_size=512,
)


# llmfit 1.1.17: `llmfit plan MODEL --context N --quant Q --json`


@pytest.mark.parametrize(
    ("case", "gib"),
    [
        (LLAMA_31_8B, 5.65755152384),
        (replace(LLAMA_31_8B, context=16384), 7.15755152384),
        (replace(LLAMA_31_8B, quant="Q8_0"), 9.431774310400002),
        (LLAMA_2_7B_OF_LLMFIT, 6.40828224512),
        (replace(LLAMA_2_7B_OF_LLMFIT, quant="Q8_0", context=16384), 15.575338547200001),
        (GPT_OSS_20B, 13.16443331072),
        (replace(GPT_OSS_20B, quant="MXFP4"), 12.519074691200002),
        (QWEN3_30B_A3B, 18.58363112192),
    ],
)
def test_llmfit_memory_is_what_llmfit_1_1_17_plans(case: Case, gib: float) -> None:
    answer = peers.llmfit_memory(case)
    assert answer is not None
    assert answer / GIB == pytest.approx(gib, rel=1e-9)


@pytest.mark.parametrize(
    ("case", "tokens_per_second"),
    [
        (LLAMA_31_8B, 138.0776995612883),
        (replace(LLAMA_31_8B, quant="Q8_0"), 69.03884978064416),
        (replace(LLAMA_2_7B_OF_LLMFIT, quant="F16"), 41.13725414809788),
        (replace(LLAMA_2_7B_OF_LLMFIT, quant="F32"), 164.54901659239152),
        (GPT_OSS_20B, 254.80892883102172),
        (replace(GPT_OSS_20B, quant="MXFP4"), 259.51011134437033),
        (QWEN3_30B_A3B, 168.5125986806354),
        (QWEN3_NEXT_80B_A3B, 157.24020396125033),
    ],
)
def test_llmfit_decode_is_what_llmfit_1_1_17_plans(case: Case, tokens_per_second: float) -> None:
    assert peers.llmfit_decode(case) == pytest.approx(tokens_per_second, rel=1e-6)


def test_llmfit_on_a_processor_answers_from_its_constant() -> None:
    on_processor = replace(LLAMA_31_8B, backend="CPU", tensor_flops=None)
    assert peers.llmfit_decode(on_processor) == pytest.approx(3.0073741381719987)
    assert peers.llmfit_prefill(on_processor) is None


def test_llmfit_prefill_is_what_llmfit_1_1_17_reports() -> None:
    assert peers.llmfit_prefill(LLAMA_31_8B) == pytest.approx(3600.1, abs=0.05)
    assert peers.llmfit_prefill(GPT_OSS_20B) == pytest.approx(8191.3, abs=0.05)


def test_llmfit_does_not_guess_an_expert_model_whose_shape_is_unknown() -> None:
    assert peers.llmfit_decode(replace(QWEN3_30B_A3B, expert_feed_forward_size=0)) is None


# ggufit 0.3.0: plan_offload(...) fully on the card, evaluate_fit(...) on a 60 GB/s processor


@pytest.mark.parametrize(
    ("case", "n_bytes", "tokens_per_second"),
    [
        (LLAMA_31_8B, 6240180592.639999, 179.70884967352936),
        (replace(LLAMA_31_8B, quant="Q8_0", context=16384), 11645091768.320002, 102.69077124201677),
        (
            replace(LLAMA_31_8B, backend="CPU", bandwidth=60e9),
            6794949397.7088,
            11.365515046316958,
        ),
        (
            replace(
                GPT_OSS_20B,
                n_weights=20_914_757_184,
                n_active_weights=3_600_000_000,
                quant="MXFP4",
                context=8192,
            ),
            14223195304.32,
            400.8636142933334,
        ),
    ],
)
def test_ggufit_answers_as_ggufit_0_3_0(
    case: Case, n_bytes: float, tokens_per_second: float
) -> None:
    assert peers.ggufit_memory(case) == pytest.approx(n_bytes, rel=1e-9)
    assert peers.ggufit_decode(case) == pytest.approx(tokens_per_second, rel=1e-9)


def test_ggufit_counts_a_latent_cache() -> None:
    latent = replace(
        LLAMA_31_8B,
        n_weights=15_706_000_000,
        n_active_weights=2_400_000_000,
        n_layers=27,
        n_kv_heads=16,
        mla_width=512 + 64,
        context=8192,
    )
    assert peers.ggufit_memory(latent) == pytest.approx(10793829062.4)


# llmcalculator 0.2.3: estimate(...) with that card, and with 546 GB/s unified at 18.4 TFLOP/s


@pytest.mark.parametrize(
    ("case", "n_bytes", "decode", "prefill"),
    [
        (LLAMA_31_8B, 6346002607.104, 151.36555487683137, 3600.1319393189438),
        (
            replace(LLAMA_31_8B, context=16384),
            7956816669.696,
            131.48955731808965,
            3600.1319393189438,
        ),
        (
            replace(LLAMA_31_8B, quant="F16"),
            17347460516.864,
            49.38465775773712,
            3600.1319393189438,
        ),
        (
            replace(
                LLAMA_31_8B,
                quant="Q8_0",
                backend="Metal",
                unified=True,
                bandwidth=546e9,
                tensor_flops=18.4e12,
            ),
            10039922781.184,
            45.391966029827884,
            400.9832184229332,
        ),
        (
            replace(
                GPT_OSS_20B,
                n_weights=20_914_757_184,
                n_active_weights=3_610_000_000,
                context=8192,
            ),
            14329044581.76,
            325.7357158005516,
            8008.310249307479,
        ),
    ],
)
def test_llmcalculator_answers_as_llmcalculator_0_2_3(
    case: Case, n_bytes: float, decode: float, prefill: float
) -> None:
    assert peers.llmcalculator_memory(case) == pytest.approx(n_bytes, rel=1e-9)
    assert peers.llmcalculator_decode(case) == pytest.approx(decode, rel=1e-9)
    assert peers.llmcalculator_prefill(case) == pytest.approx(prefill, rel=1e-9)


def test_llmcalculator_on_a_processor_reaches_a_third_of_the_bandwidth() -> None:
    on_processor = replace(LLAMA_31_8B, backend="CPU", bandwidth=60e9)
    assert peers.llmcalculator_decode(on_processor) == pytest.approx(3.941811324917483)


# accelerate 1.15.0: calculate_maximum_sizes(AutoModel.from_config(...)) in float32


def test_accelerate_counts_llama_2_7b_without_its_output_matrix() -> None:
    of_float32 = 26_429_374_976
    in_float32 = peers.accelerate_memory(replace(LLAMA_2_7B, bits_per_weight=32))
    # The tool also counts 512 bytes of rotary frequencies.
    assert in_float32 == pytest.approx(of_float32, abs=1024)
    assert in_float32 is not None
    in_int4 = peers.accelerate_memory(replace(LLAMA_2_7B, bits_per_weight=4.5))
    assert in_int4 == in_float32 / 8


def test_accelerate_counts_a_tied_model_whole() -> None:
    smollm2_135m = replace(
        LLAMA_31_8B,
        n_weights=134_515_008,
        n_active_weights=134_515_008,
        bits_per_weight=32,
        n_vocab=49_152,
        hidden_size=576,
        tied_embeddings=True,
    )
    assert peers.accelerate_memory(smollm2_135m) == pytest.approx(538_060_288, abs=1024)


# rules of thumb


def test_bandwidth_over_size_divides_the_two() -> None:
    case = replace(LLAMA_31_8B, bandwidth=100e9, weights_bytes=5_000_000_000)
    assert peers.bandwidth_over_size_decode(case) == pytest.approx(20)
    assert peers.file_size_memory(case) == 5_000_000_000


def test_fitted_formula_adds_a_time_per_layer() -> None:
    case = replace(LLAMA_31_8B, bandwidth=1000e9, weights_bytes=4_500_000_000)
    # 4.5 GB at 900 GB/s are 5 ms; 32 layers add 1.12 ms with CUDA and 4.48 ms with Metal.
    assert peers.fitted_decode(case) == pytest.approx(1000 / 6.12)
    assert peers.fitted_decode(replace(case, backend="Metal")) == pytest.approx(1000 / 9.48)
    assert peers.fitted_decode(replace(case, backend="ROCm")) is None


# the registry


def test_every_peer_names_its_version_and_its_source() -> None:
    for peer in PEERS:
        assert peer.version, peer.name
        assert peer.source, peer.name
    assert len({peer.name for peer in PEERS}) == len(PEERS)


def test_a_tool_that_was_not_run_estimates_nothing() -> None:
    parser = peers.find("GGUF-parser-go")
    assert parser.version == "not run"
    assert parser.memory(LLAMA_31_8B) is None
    assert parser.decode(LLAMA_31_8B) is None


def test_an_unknown_peer_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(LookupError, match="llmcalculator"):
        peers.find("crystal ball")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_no_peer_slows_down_as_the_cache_fills(peer: peers.Peer) -> None:
    """What the chapter says of them: depth is a term that none of them has."""
    deep = replace(LLAMA_31_8B, context=16384, depth=16000)
    shallow = replace(deep, depth=0)
    assert peer.decode(deep) == peer.decode(shallow)


@given(
    quant=st.sampled_from(["", "Q4_0", "Q4_K_M", "IQ1_S", "TQ2_0", "MXFP4", "BF16", "F32", "odd"]),
    bits=st.floats(1.5, 32),
    context=st.integers(0, 1_000_000),
    backend=st.sampled_from(peers.BACKENDS),
)
def test_every_answer_is_positive_or_none(
    quant: str, bits: float, context: int, backend: str
) -> None:
    case = replace(LLAMA_31_8B, quant=quant, bits_per_weight=bits, context=context, backend=backend)
    for peer in PEERS:
        for answer in (peer.memory(case), peer.decode(case), peer.prefill(case)):
            assert answer is None or answer > 0


@given(context=st.integers(0, 500_000))
def test_more_context_never_needs_less_memory(context: int) -> None:
    shorter = replace(LLAMA_31_8B, context=context)
    longer = replace(shorter, context=context + 1)
    for peer in PEERS:
        less, more = peer.memory(shorter), peer.memory(longer)
        assert less is None or (more is not None and more >= less)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_weights": 0}, "n_weights"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"n_active_weights": 9_000_000_000}, "n_active_weights"),
        ({"context": -1}, "context"),
        ({"backend": "cuda"}, "backend"),
    ],
)
def test_an_impossible_case_is_refused_by_name(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        dataclasses.replace(LLAMA_31_8B, **change)
