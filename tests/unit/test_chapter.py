"""A chapter says what it runs on, judges only its own claims, and saves nothing personal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from guidebook import chapter, claims, results
from guidebook.chapter import ParameterError
from guidebook.claims import ClaimError
from guidebook.machine import Rate
from guidebook.measure import Measurement

ARGUMENTS = {"model": "embedded", "device": "cpu", "profile": "quick"}


@pytest.fixture
def book(tmp_path):
    return chapter.begin("42-quantization-gguf", **ARGUMENTS, results_dir=str(tmp_path / "results"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "fast"}, "profile is 'fast'; it can be quick, full"),
        ({"device": "gpu"}, "device is 'gpu'; it can be auto, cpu, cuda, metal, rocm"),
        ({"model": ""}, "'embedded'"),
    ],
)
def test_a_wrong_parameter_is_one_sentence_with_the_right_ones(tmp_path, change, message):
    arguments = {**ARGUMENTS, "results_dir": str(tmp_path), **change}
    with pytest.raises(ParameterError, match=message):
        chapter.begin("11-your-machine", **arguments)


def test_a_chapter_says_its_device_and_why(book):
    assert "cpu (asked for)" in str(book)
    assert book.n_gpu_layers == 0


def _machine(*kinds):
    return SimpleNamespace(gpus=tuple(SimpleNamespace(kind=kind) for kind in kinds))


@pytest.mark.parametrize(
    ("wanted", "kinds", "offload", "device", "reason"),
    [
        ("auto", (), False, "cpu", "no GPU was found"),
        ("auto", ("cuda",), True, "cuda", "llama.cpp can use it"),
        ("auto", ("cuda",), False, "cpu", "built without GPU support"),
        ("metal", ("metal",), True, "metal", "asked for"),
        ("cpu", ("cuda",), True, "cpu", "asked for"),
    ],
)
def test_the_device_is_chosen_with_a_reason(monkeypatch, wanted, kinds, offload, device, reason):
    monkeypatch.setattr("llama_cpp.llama_supports_gpu_offload", lambda: offload)
    chosen, why = chapter.choose_device(wanted, _machine(*kinds))
    assert chosen == device
    assert reason in why


def test_a_gpu_that_cannot_be_used_is_refused_not_replaced(monkeypatch):
    with pytest.raises(ParameterError, match=r"No cuda GPU was found .*found: none"):
        chapter.choose_device("cuda", _machine())
    monkeypatch.setattr("llama_cpp.llama_supports_gpu_offload", lambda: False)
    with pytest.raises(ParameterError, match="without GPU support"):
        chapter.choose_device("cuda", _machine("cuda"))


def test_a_claim_of_another_chapter_is_refused(book):
    with pytest.raises(ClaimError, match="belongs to chapter 32-inference"):
        book.judge("32-runs-locally", tokens_generated=3, outside_connections=0)


def test_a_chapter_cannot_finish_with_a_claim_unjudged(book):
    with pytest.raises(ClaimError, match="has not judged 42-more-bits-better-quality"):
        book.finish()


def test_the_results_file_holds_measurements_and_verdicts(book):
    book.record("decode", Measurement("tokens/s", (1.0, 3.0, 2.0)))
    book.record("bandwidth", Rate(2e9, (1e9, 2e9, 3e9), "bytes/s", "a test", threads=1))
    judged = "42-four-bits-faster"
    book.judge(judged, q4_k_m_tokens_per_second=2.0, f16_tokens_per_second=1.0)
    for claim in claims.of_chapter(book.id):
        if claim.id != judged:
            book.not_tested(claim.id, because="This is a test.")
    assert "held" in str(book.finish())
    saved = results.load(book.results_dir / "42-quantization-gguf.json")
    assert saved["measurements"]["decode"]["median"] == 2.0
    assert saved["measurements"]["bandwidth"]["unit"] == "bytes/s"
    verdicts = {claim["id"]: claim for claim in saved["claims"]}
    assert verdicts.pop(judged)["outcome"] == "held"
    assert verdicts
    for verdict in verdicts.values():
        assert verdict["because"].startswith("This is a test. It needs")


def test_a_models_path_does_not_get_into_the_results(tmp_path):
    secret = tmp_path / "home-of-ada" / "my-model.gguf"
    book = chapter.begin(
        "42-quantization-gguf",
        model=str(secret),
        device="cpu",
        profile="full",
        results_dir=str(tmp_path),
    )
    assert book.to_dict()["parameters"]["model"] == "my-model.gguf"
    assert "ada" not in str(book.to_dict()["parameters"])
    assert book.pick(quick=1, full=2) == 2
