"""The tensors of a model and the bytes of a file, against llama.cpp's own files and records."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import gguf_files, models, weights
from guidebook.architecture import Architecture, from_gguf_metadata
from guidebook.catalog import quantizations

GIB = 2**30
DATA = Path(__file__).parents[1] / "data" / "quantize"

LLAMA_2_7B = Architecture("llama", 32, 32, 32, 128, 4096, 32000, 4096, 11008)
LLAMA_2_13B = Architecture("llama", 40, 40, 40, 128, 5120, 32000, 4096, 13824)
LLAMA_2_70B = Architecture("llama", 80, 64, 8, 128, 8192, 32000, 4096, 28672)
LLAMA_31_8B = Architecture("llama", 32, 32, 8, 128, 4096, 128256, 131072, 14336)
LLAMA_31_70B = replace(LLAMA_2_70B, n_vocab=128256)
GPT_OSS_20B = Architecture(
    "gpt-oss",
    24,
    64,
    8,
    64,
    2880,
    201088,
    131072,
    n_experts=32,
    n_experts_used=4,
    expert_feed_forward_size=2880,
)
GPT_OSS_120B = replace(GPT_OSS_20B, n_layers=36, n_experts=128)
MIXTRAL = Architecture(
    "llama",
    32,
    32,
    8,
    128,
    4096,
    32000,
    32768,
    n_experts=8,
    n_experts_used=2,
    expert_feed_forward_size=14336,
)
DEEPSEEK_V3 = Architecture(
    "deepseek2",
    61,
    128,
    128,
    192,
    7168,
    129280,
    163840,
    18432,
    value_head_size=128,
    n_experts=256,
    n_experts_used=8,
    expert_feed_forward_size=2048,
    shared_feed_forward_size=2048,
    n_dense_layers=3,
    kv_lora_rank=512,
    rope_head_size=64,
    q_lora_rank=1536,
)
FALCON_7B = Architecture(
    "falcon", 32, 71, 1, 64, 4544, 65024, 2048, 18176, gated=False, tied_embeddings=True
)
SNAPSHOTS = {
    "llama-3.1-70b": LLAMA_31_70B,
    "gpt-oss-120b": GPT_OSS_120B,
    "deepseek-v3.1": DEEPSEEK_V3,
    "gemma-3-4b": Architecture(
        "gemma3", 34, 8, 4, 256, 2560, 262144, 131072, 10240, tied_embeddings=True
    ),
    # The file that the snapshot was taken of stores the tied table twice.
    "qwen3-0.6b": Architecture("qwen3", 28, 16, 8, 128, 1024, 151936, 40960, 3072),
    "qwen3-14b": Architecture("qwen3", 40, 40, 8, 128, 5120, 151936, 40960, 17408),
    "glm-4.6v": Architecture(
        "glm4moe",
        46,
        96,
        8,
        128,
        4096,
        151552,
        131072,
        10944,
        n_experts=128,
        n_experts_used=8,
        expert_feed_forward_size=1408,
        shared_feed_forward_size=1408,
        n_dense_layers=1,
    ),
    "qwen3-coder-next": Architecture(
        "qwen3next",
        48,
        16,
        2,
        256,
        2048,
        151936,
        262144,
        gated_attention=True,
        n_experts=512,
        n_experts_used=10,
        expert_feed_forward_size=512,
        shared_feed_forward_size=512,
        n_recurrent_layers=36,
        recurrent_weights=33_718_464,
    ),
    "qwen3.6-27b": Architecture(
        "qwen35",
        64,
        24,
        4,
        256,
        5120,
        248320,
        262144,
        17408,
        gated_attention=True,
        n_recurrent_layers=48,
        recurrent_weights=115_900_000,
    ),
}
# llama.cpp's names of what the snapshots list.
NAMES = {role: name for name, role in weights._ROLES.items()} | {"recurrent_qkv": "attn_qkv"}
SOMETIMES_QUANTIZED_APART = {"recurrent"}


def reference(name: str) -> Iterator[dict[str, str]]:
    source = resources.files("guidebook.catalog").joinpath("reference", name)
    with source.open(encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


# --- sizes of real files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", list(reference("llamacpp_quantize_llama31_8b.csv")), ids=lambda row: row["quant"]
)
def test_bits_per_weight_of_llama_31_8b_are_those_llama_cpp_prints(row: dict[str, str]) -> None:
    account = weights.account(LLAMA_31_8B, row["quant"])
    # Far closer than 1 %: the recipe is the same, so only the rounding of the table is left.
    assert account.bits_per_weight == pytest.approx(float(row["bits_per_weight"]), abs=1e-4)
    assert account.total_bytes / GIB == pytest.approx(float(row["size_gib"]), abs=0.006)


@pytest.mark.parametrize(
    "row",
    # Q2_K is left out: llama.cpp made it smaller in January 2024, after this table.
    [row for row in reference("llamacpp_quantize_bpw_llama2.csv") if row["quant"] != "Q2_K"],
    ids=lambda row: f"{row['model']}-{row['quant']}",
)
def test_bits_per_weight_of_llama_2_are_those_of_the_older_table(row: dict[str, str]) -> None:
    shape = {
        "Llama-2-7B": LLAMA_2_7B,
        "Llama-2-13B": LLAMA_2_13B,
        "Llama-2-70B": LLAMA_2_70B,
    }[row["model"]]
    account = weights.account(shape, row["quant"])
    assert account.bits_per_weight == pytest.approx(float(row["bits_per_weight"]), rel=0.005)


@pytest.mark.parametrize(
    ("shape", "quant", "gib"),
    [
        (LLAMA_2_7B, "Q4_0", 3.56),
        (LLAMA_2_7B, "Q8_0", 6.67),
        (LLAMA_2_7B, "F16", 12.55),
        (GPT_OSS_20B, "MXFP4", 11.27),
        (GPT_OSS_120B, "MXFP4", 59.02),
    ],
)
def test_file_sizes_are_those_llama_bench_prints(
    shape: Architecture, quant: str, gib: float
) -> None:
    assert weights.account(shape, quant).total_bytes / GIB == pytest.approx(gib, abs=0.006)


@pytest.mark.parametrize(
    ("shape", "billions"),
    [
        (LLAMA_2_7B, 6.738),
        (LLAMA_31_8B, 8.030),
        (LLAMA_31_70B, 70.554),
        (GPT_OSS_20B, 20.915),
        (GPT_OSS_120B, 116.829),
        (MIXTRAL, 46.703),
        (DEEPSEEK_V3, 671.026),
        (FALCON_7B, 6.921),
    ],
)
def test_weights_counted_from_the_shape_are_those_the_maker_counts(
    shape: Architecture, billions: float
) -> None:
    assert weights.n_weights(shape) / 1e9 == pytest.approx(billions, abs=0.002)


@pytest.mark.parametrize(
    ("shape", "billions"), [(GPT_OSS_20B, 3.61), (GPT_OSS_120B, 5.13), (MIXTRAL, 12.75)]
)
def test_active_weights_are_those_the_maker_states(shape: Architecture, billions: float) -> None:
    active = weights.account(shape, "F16").n_active_weights
    assert active / 1e9 == pytest.approx(billions, abs=0.01)


# --- the type of each tensor -----------------------------------------------------------------


@pytest.mark.parametrize("model", SNAPSHOTS)
def test_each_tensor_gets_the_type_that_llama_cpp_chooses(model: str) -> None:
    expected: dict[str, dict[tuple[str, int | None], str]] = {}
    base: dict[str, str] = {}
    with (DATA / "tensor_types.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["model"] != model:
                continue
            if row["tensor"] == "*":
                base[row["file_type"]] = row["type"]
            singled_out = expected.setdefault(row["file_type"], {})
            for layer in _layers(row["layers"]):
                singled_out[row["tensor"], layer] = row["type"]
    known = base.keys() & quantizations.file_types().keys()
    assert len(known) >= 30
    wrong = []
    for file_type in sorted(known):
        # The snapshots were made without an importance matrix.
        for tensor in weights.stored(SNAPSHOTS[model], file_type, imatrix=False):
            category = weights._CATEGORIES.get(tensor.role, "other")
            if category == "unquantized" or tensor.role in SOMETIMES_QUANTIZED_APART:
                continue
            name = NAMES[tensor.role]
            wanted = expected[file_type].get((name, tensor.layer), base[file_type])
            if tensor.type != wanted:
                wrong.append((file_type, name, tensor.layer, tensor.type, wanted))
    assert not wrong


def _layers(ranges: str) -> Iterator[int | None]:
    if not ranges:
        yield None
    for part in ranges.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def test_an_importance_matrix_changes_only_the_types_it_is_said_to_change() -> None:
    changed = {
        name
        for name in quantizations.file_types()
        if weights.stored(LLAMA_31_8B, name, imatrix=True)
        != weights.stored(LLAMA_31_8B, name, imatrix=False)
    }
    assert changed == {"IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0"}


def test_falcon_gets_its_own_recipe() -> None:
    types = {t.role: t.type for t in weights.stored(FALCON_7B, "Q4_K_M") if t.layer in (None, 6)}
    # 4544 columns are no multiple of 256, 18176 are.
    assert types["embedding"] == "Q8_0"
    assert types["attention_qkv"] == "Q8_0"
    assert types["feed_forward_up"] == "Q5_0"
    assert types["feed_forward_down"] == "Q5_K"


# --- the account -----------------------------------------------------------------------------


def test_a_token_reads_one_row_of_an_untied_table() -> None:
    account = weights.account(LLAMA_31_8B, "Q8_0")
    row = account.embedding_bytes // LLAMA_31_8B.n_vocab
    assert account.decode_bytes == account.total_bytes - account.embedding_bytes + row


def test_a_token_reads_a_tied_table_whole_and_once() -> None:
    tied = replace(LLAMA_31_8B, tied_embeddings=True)
    account = weights.account(tied, "Q8_0")
    assert account.decode_bytes == account.total_bytes
    assert account.output_bytes == 4 * tied.hidden_size  # the final norm alone
    assert account.offloaded_bytes == account.total_bytes


def test_a_token_reads_the_experts_used_and_everything_else() -> None:
    account = weights.account(DEEPSEEK_V3, "Q4_K_M")
    unused = account.expert_bytes * (1 - 8 / 256)
    row = account.embedding_bytes / DEEPSEEK_V3.n_vocab
    expected = account.total_bytes - unused - account.embedding_bytes + row
    assert account.decode_bytes == pytest.approx(expected, abs=2)
    shared = sum(
        t.n_bytes
        for t in weights.stored(DEEPSEEK_V3, "Q4_K_M")
        if t.role.startswith("shared_expert") or t.role == "router"
    )
    assert shared > 0
    assert account.decode_bytes > shared + account.expert_bytes * 8 / 256


def test_latent_attention_keeps_the_keys_and_values_compressed() -> None:
    groups = {group.role: group for group in weights.tensors(DEEPSEEK_V3)}
    assert (groups["attention_kv_a"].rows, groups["attention_kv_a"].columns) == (576, 7168)
    assert groups["attention_k_b"].columns == 128
    assert groups["attention_v_b"].stack == 128
    assert "attention_k" not in groups
    assert groups["feed_forward_up"].layers == (0, 1, 2)
    assert groups["expert_up"].layers == tuple(range(3, 61))


def test_every_fourth_layer_of_a_hybrid_has_attention() -> None:
    groups = {group.role: group for group in weights.tensors(SNAPSHOTS["qwen3-coder-next"])}
    assert groups["attention_q"].layers == tuple(range(3, 48, 4))
    recurrent = groups["recurrent"].n_weights + groups["recurrent_qkv"].n_weights
    recurrent += groups["recurrent_vectors"].n_weights
    assert recurrent == 36 * 33_718_464


def test_layers_of_feed_forward_alone_hold_all_feed_forward_networks() -> None:
    nemotron = Architecture(
        "nemotron_h",
        52,
        32,
        8,
        128,
        4096,
        131072,
        8192,
        21504,
        gated=False,
        n_recurrent_layers=24,
        recurrent_weights=100_000_000,
        n_feed_forward_only_layers=24,
    )
    groups = {group.role: group for group in weights.tensors(nemotron)}
    kinds = [groups[role].layers for role in ("attention_q", "feed_forward_up", "recurrent")]
    assert [len(layers) for layers in kinds] == [4, 24, 24]
    assert sorted(layer for layers in kinds for layer in layers) == list(range(52))


def test_window_layers_may_have_heads_of_their_own() -> None:
    shape = Architecture(
        "gemma4",
        12,
        8,
        2,
        512,
        2048,
        32000,
        8192,
        8192,
        n_window_layers=10,
        window_kv_heads=4,
        window_head_size=256,
    )
    keys = [group for group in weights.tensors(shape) if group.role == "attention_k"]
    assert [(group.rows, group.layers) for group in keys] == [
        (2 * 512, (5, 11)),
        (4 * 256, (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)),
    ]


def test_the_size_of_a_real_file_scales_every_part() -> None:
    computed = weights.account(GPT_OSS_20B, "MXFP4")
    scaled = weights.account(GPT_OSS_20B, "MXFP4", 2 * computed.total_bytes)
    assert scaled.total_bytes == 2 * computed.total_bytes
    assert scaled.decode_bytes == 2 * computed.decode_bytes
    assert scaled.expert_bytes == 2 * computed.expert_bytes
    assert scaled.n_weights == computed.n_weights


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_no_file_has_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="Give the size of the file"):
        weights.account(LLAMA_2_7B, "Q4_0", size)


def test_an_unknown_quantization_is_refused_with_the_nearest() -> None:
    with pytest.raises(LookupError, match="Q4_K"):
        weights.account(LLAMA_2_7B, "Q4_K_XXL")


shapes = st.builds(
    Architecture,
    name=st.sampled_from(["llama", "qwen3moe", "falcon", "gemma3", "qwen3next"]),
    n_layers=st.integers(1, 20),
    n_heads=st.sampled_from([8, 16]),
    n_kv_heads=st.sampled_from([1, 2, 8]),
    head_size=st.sampled_from([64, 80, 128]),
    hidden_size=st.sampled_from([64, 100, 576, 2048]),
    n_vocab=st.integers(100, 5000),
    context_length=st.just(4096),
    feed_forward_size=st.sampled_from([96, 1000, 4096]),
    gated=st.booleans(),
    tied_embeddings=st.booleans(),
    n_experts=st.sampled_from([0, 8, 16]),
    n_experts_used=st.integers(1, 8),
    expert_feed_forward_size=st.sampled_from([100, 512]),
    shared_feed_forward_size=st.sampled_from([0, 512]),
    n_window_layers=st.just(0),
    n_recurrent_layers=st.integers(0, 1),
    recurrent_weights=st.integers(1, 10**6),
)


@given(shape=shapes, quant=st.sampled_from(sorted(quantizations.file_types())))
def test_the_parts_always_add_up(shape: Architecture, quant: str) -> None:
    account = weights.account(shape, quant)
    parts = account.embedding_bytes + account.layer_bytes + account.output_bytes
    assert account.total_bytes == parts
    assert account.n_weights == weights.n_weights(shape)
    assert 0 < account.decode_bytes <= account.total_bytes
    assert 0 < account.n_active_weights <= account.n_weights
    assert account.expert_bytes <= account.layer_bytes
    assert account.total_bytes <= weights.account(shape, "F32").total_bytes


@given(shape=shapes, size=st.integers(1, 10**12))
def test_scaled_parts_add_up_to_the_size_given(shape: Architecture, size: int) -> None:
    account = weights.account(shape, "Q4_K_M", size)
    parts = account.embedding_bytes + account.layer_bytes + account.output_bytes
    assert account.total_bytes == parts == size


def test_a_known_pair_takes_a_fifth_of_a_millisecond_at_most() -> None:
    weights.account(DEEPSEEK_V3, "Q4_K_M")
    start = time.perf_counter()
    for size in range(1000):
        weights.account(DEEPSEEK_V3, "Q4_K_M", 10**9 + size)
    assert (time.perf_counter() - start) / 1000 <= 0.2e-3


# --- GGUF files ------------------------------------------------------------------------------


def tensor(name: str, kind: str, *shape: int) -> gguf_files.Tensor:
    count = 1
    for size in shape:
        count *= size
    return gguf_files.Tensor(name, kind, shape, quantizations.tensor_type(kind).n_bytes(count))


def test_a_file_of_experts_is_accounted_tensor_by_tensor(tmp_path: Path) -> None:
    file = gguf_files.GgufFile(
        tmp_path / "made.gguf",
        {
            "general.architecture": "glm4moe",
            "glm4moe.block_count": 2,
            "glm4moe.nextn_predict_layers": 1,
            "glm4moe.expert_count": 4,
            "glm4moe.expert_used_count": 1,
        },
        (
            tensor("token_embd.weight", "Q8_0", 100, 64),
            tensor("output.weight", "Q8_0", 100, 64),
            tensor("output_norm.weight", "F32", 64),
            tensor("blk.0.attn_q.weight", "Q4_0", 64, 64),
            tensor("blk.0.ffn_gate_inp.weight", "F32", 4, 64),
            tensor("blk.0.ffn_up_exps.weight", "Q4_0", 4, 32, 64),
            tensor("blk.0.ffn_up_exps.bias", "F32", 4, 32),
            tensor("blk.0.ffn_up_shexp.weight", "Q4_0", 32, 64),
            tensor("blk.1.ffn_up_exps.weight", "Q4_0", 4, 32, 64),
        ),
    )
    account = weights.from_gguf(file)
    table, norm, attention, router, shared = 6800, 256, 2304, 1024, 1152
    experts = 4 * 1152 + 4 * 32 * 4
    assert account.embedding_bytes == table
    assert account.output_bytes == table + norm
    assert account.expert_bytes == experts
    assert account.layer_bytes == attention + router + shared + experts
    read = table / 100 + table + norm + attention + router + shared + experts / 4
    assert account.decode_bytes == read


def test_the_embedded_file_is_accounted_to_the_byte() -> None:
    file = gguf_files.inspect(models.embedded_file())
    account = weights.from_gguf(file)
    assert account.total_bytes == file.weights_bytes
    assert account.n_weights == file.n_weights
    assert account.decode_bytes == file.decode_bytes
    assert account.tied_embeddings


def embedded_architecture(file: gguf_files.GgufFile) -> Architecture:
    """Return the embedded model's shape, whether or not the reader knows about tied tables."""
    return replace(from_gguf_metadata(file.metadata), tied_embeddings=file.tied_embeddings)


def test_the_shape_of_the_embedded_model_gives_the_size_of_its_f16_form() -> None:
    file = gguf_files.inspect(models.resolve("embedded", "gguf-f16").path)
    computed = weights.account(embedded_architecture(file), "F16")
    assert computed == weights.from_gguf(file)


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0", "Q4_0", "Q6_K", "Q3_K_M"])
def test_llama_cpp_makes_a_file_of_the_size_computed(quant: str, tmp_path: Path) -> None:
    import llama_cpp

    source = models.resolve("embedded", "gguf-f16").path
    target = tmp_path / "made.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quant}")
    options.nthread = 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options) == 0
    made = gguf_files.inspect(target)
    shape = embedded_architecture(made)
    assert weights.account(shape, quant) == weights.from_gguf(made)
    stored = {(t.role, t.layer): t.type for t in weights.stored(shape, quant)}
    for tensor_made in made.tensors:
        found = weights._from_tensor(tensor_made)
        if found.role != "norm":
            assert stored[found.role, found.layer] == found.type, tensor_made.name
