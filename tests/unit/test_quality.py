"""Perplexity, its errors and its windows are what they say, and what the libraries say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guidebook import measure, models, texts
from guidebook.engines import LlamaCpp
from guidebook.measure.quality import kl_divergence, log_softmax, standard_error

N_VOCAB = 8
TEXT = [1, 5, 2, 7, 0, 3, 3, 6, 4, 1, 2, 5, 0, 7, 6, 4, 3, 1, 5, 2]


class PairEngine:
    """A model that predicts from the last token alone, and notes what it was asked."""

    n_ctx = 1000

    def __init__(self) -> None:
        self.table = np.random.default_rng(0).normal(size=(N_VOCAB, N_VOCAB)).astype(np.float32)
        self.calls: list[tuple[tuple[int, ...], int]] = []

    def logits(self, tokens, first=0):
        self.calls.append((tuple(tokens), first))
        return self.table[list(tokens[first:])]

    def surprise(self, before: int, token: int) -> float:
        return -float(log_softmax(self.table[[before]])[0, token])


# --- windows ---------------------------------------------------------------------------------


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_windows_that_overlap_score_each_token_once_but_the_first(n_tokens, length, data):
    stride = data.draw(st.integers(1, length - 1))
    engine = PairEngine()
    tokens = [i % N_VOCAB for i in range(n_tokens)]
    seen = measure.perplexity(engine, tokens, length=length, stride=stride)
    expected = np.mean([engine.surprise(a, b) for a, b in itertools.pairwise(tokens)])
    assert seen.n_scored == n_tokens - 1
    assert seen.log_perplexity == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 60), st.integers(2, 20))
@example(11, 10)  # the last window is a single token: nothing predicts it
def test_windows_that_share_nothing_leave_out_the_first_token_of_each(n_tokens, length):
    engine = PairEngine()
    tokens = [i % N_VOCAB for i in range(n_tokens)]
    seen = measure.perplexity(engine, tokens, length=length)
    assert seen.stride == length
    assert seen.n_scored == n_tokens - math.ceil(n_tokens / length)
    read = [one for call, _ in engine.calls for one in call]
    assert read == tokens[: len(read)]
    assert len(tokens) - len(read) <= 1


@given(st.integers(2, 80), st.integers(2, 20), st.data())
def test_every_scored_token_has_the_context_that_the_result_states(n_tokens, length, data):
    stride = data.draw(st.integers(1, length))
    engine = PairEngine()
    tokens = [0] * n_tokens
    seen = measure.perplexity(engine, tokens, length=length, stride=stride)
    assert seen.least_context == length - stride
    assert all(len(window) <= length for window, _ in engine.calls)
    for _, first in engine.calls[1:]:
        # Row ``first`` predicts the token behind it, so it has first + 1 tokens before it.
        assert first + 1 >= seen.least_context


def test_perplexity_is_the_exponential_and_its_error_goes_with_it():
    seen = measure.Perplexity(math.log(20), 0.01, 1000, 512, 256)
    assert seen.perplexity == pytest.approx(20)
    assert seen.perplexity_error == pytest.approx(0.2)


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (8, 0), (8, 9), (8, -1)])
def test_impossible_windows_are_refused(length, stride):
    with pytest.raises(ValueError, match="stride from 1 to the length"):
        measure.perplexity(PairEngine(), TEXT, length=length, stride=stride)


def test_a_text_without_a_second_token_is_refused():
    with pytest.raises(ValueError, match="1 tokens has nothing to predict"):
        measure.perplexity(PairEngine(), [1])


# --- errors ----------------------------------------------------------------------------------


def correlated(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """Values of variance 1, each of which remembers a share of the one before."""
    noise = rng.normal(size=n) * math.sqrt(1 - memory**2)
    values = np.empty(n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = memory * values[i - 1] + noise[i]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.4, 0.7])
def test_the_standard_error_is_right_for_neighbours_that_resemble_each_other(memory):
    rng = np.random.default_rng(1)
    runs = [correlated(rng, 1024, memory) for _ in range(400)]
    true = np.std([run.mean() for run in runs], ddof=1)
    claimed = math.sqrt(np.mean([standard_error(run) ** 2 for run in runs]))
    assert claimed == pytest.approx(true, rel=0.12)  # 400 means fix ``true`` to 4 %
    independent = math.sqrt(np.mean([run.var(ddof=1) / len(run) for run in runs]))
    if memory == 0.7:
        assert independent < 0.6 * true


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_with_few_values_each_is_a_block(values):
    found = standard_error(np.array(values))
    assert found == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-12)


@given(st.integers(9, 600))
def test_an_error_never_rests_on_fewer_than_eight_blocks(n):
    halves = np.zeros(n)
    halves[: n // 2] = 1
    # Two blocks would give an error of 0.5, eight give about 0.19.
    assert 0 < standard_error(halves) < 0.21


def test_a_single_value_has_no_error():
    assert math.isnan(standard_error(np.array([1.0])))


def test_the_worst_positions_are_reported_beside_the_mean():
    class Astray(PairEngine):
        def logits(self, tokens, first=0):
            found = super().logits(tokens, first).copy()
            found[len(found) // 2] = found[len(found) // 2][::-1]
            return found

    tokens = (TEXT * 11)[:200]
    reference = measure.reference(PairEngine(), tokens, length=200, count=1)
    seen = measure.compare(Astray(), reference)
    assert seen.kl_divergence_max == pytest.approx(seen.kl_divergence * seen.n_scored, rel=1e-5)
    assert 0 <= seen.kl_divergence_99 < seen.kl_divergence_max
    assert seen.perplexity_ratio == pytest.approx(math.exp(seen.log_perplexity_rise))


# --- the libraries' own values ---------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20))
def test_kl_divergence_is_pytorch_s(seed, scale):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    p, q = (log_softmax(rng.normal(0, scale, (4, 100)).astype(np.float32)) for _ in range(2))
    theirs = torch.nn.functional.kl_div(
        torch.from_numpy(q), torch.from_numpy(p), reduction="none", log_target=True
    )
    assert kl_divergence(p, q) == pytest.approx(theirs.sum(-1).numpy(), rel=1e-4, abs=1e-5)


LENGTH, COUNT = 128, 2
CLOSE = 0.005  # of the perplexity


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    with LlamaCpp.load(models.resolve("embedded").path, n_ctx=LENGTH) as engine:
        return engine.tokenize(texts.load("python-topics")[:4000])[: LENGTH * COUNT]


@pytest.mark.slow
def test_llama_cpp_s_own_log_probabilities_give_the_same_perplexity(tokens):
    from llama_cpp import Llama

    llama = Llama(
        str(models.resolve("embedded").path), n_ctx=LENGTH + 1, logits_all=True, verbose=False
    )
    engine = LlamaCpp(llama)
    # llama-cpp-python 0.3.36 sets token i beside row i of the logits, which predicts token i + 1;
    # only behind a begin-of-sequence token, which it takes away, do they belong together.
    begin = llama.detokenize([llama.token_bos()], special=True).decode()
    for start in range(0, len(tokens), LENGTH):
        text = llama.detokenize(tokens[start : start + LENGTH - 8]).decode(errors="ignore")
        window = llama.tokenize((begin + text).encode(), add_bos=False, special=True)
        assert window[0] == llama.token_bos()
        said = llama.create_completion(
            begin + text, max_tokens=1, echo=True, logprobs=1, temperature=0.0
        )
        values = said["choices"][0]["logprobs"]["token_logprobs"][: len(window) - 1]
        assert values[0] is None  # as OpenAI's interface has it
        ours = measure.perplexity(engine, window, length=LENGTH)
        first = -float(log_softmax(engine.logits(window[:1]))[0, window[1]])
        theirs = (first - sum(values[1:])) / (len(window) - 1)
        assert ours.n_scored == len(window) - 1
        assert ours.perplexity == pytest.approx(math.exp(theirs), rel=CLOSE)


@pytest.mark.slow
def test_the_formula_of_llama_perplexity_gives_the_same_perplexity(tokens):
    """tools/perplexity/perplexity.cpp scores what positions n_ctx / 2 to n_ctx - 2 predict."""
    half = LENGTH // 2
    with LlamaCpp.load(models.resolve("embedded").path, n_ctx=LENGTH) as engine:
        reference = measure.reference(engine, tokens, length=LENGTH, count=COUNT)
        whole = measure.compare(engine, reference)
        theirs, ours = [], []
        for window, log_probs in zip(reference.windows, reference.log_probs, strict=True):
            logits = engine.logits(window, first=half)[:-1].astype(np.float64)
            chosen = list(window[half + 1 :])
            top = logits.max(axis=1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            theirs.extend(total - logits[np.arange(half - 1), chosen])
            # The book scores the whole second half; llama.cpp leaves out its first token.
            ours.extend(-log_probs[np.arange(1, half), chosen])
    assert len(theirs) == len(ours) == whole.n_scored - COUNT
    assert math.exp(np.mean(theirs)) == pytest.approx(math.exp(np.mean(ours)), rel=CLOSE)
    # The token that is left out moves the mean, but by less than the mean's own error.
    assert abs(np.mean(theirs) - whole.log_perplexity) < whole.log_perplexity_error


@pytest.fixture(scope="module")
def hf_model():
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = models.resolve("embedded", "transformers").path
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


@pytest.fixture(scope="module")
def hf_engine(hf_model):
    from transformers import AutoTokenizer

    from guidebook.engines.transformers import Transformers

    folder = models.resolve("embedded", "transformers").path
    return Transformers(hf_model, AutoTokenizer.from_pretrained(folder))


@pytest.mark.slow
@pytest.mark.parametrize("stride", [LENGTH // 2, LENGTH])
def test_transformers_own_loss_gives_the_same_perplexity(hf_model, hf_engine, tokens, stride):
    """The recipe of https://huggingface.co/docs/transformers/perplexity."""
    import torch

    ids = torch.tensor([tokens])
    total, n_scored, before = 0.0, 0, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + LENGTH, len(tokens))
        labels = ids[:, begin:end].clone()
        labels[:, : before - begin] = -100
        with torch.no_grad():
            loss = hf_model(ids[:, begin:end], labels=labels).loss
        n_labels = int((labels[:, 1:] != -100).sum())
        total, n_scored, before = total + float(loss) * n_labels, n_scored + n_labels, end
        if end == len(tokens):
            break
    ours = measure.perplexity(hf_engine, tokens, length=LENGTH, stride=stride)
    assert ours.n_scored == n_scored
    assert ours.perplexity == pytest.approx(math.exp(total / n_scored), rel=CLOSE)


@pytest.mark.slow
def test_both_libraries_find_the_same_model_equally_surprised(hf_engine, tokens):
    with LlamaCpp.load(models.resolve("embedded", "gguf-f16").path, n_ctx=LENGTH) as engine:
        ours = measure.perplexity(engine, tokens, length=LENGTH)
    theirs = measure.perplexity(hf_engine, tokens, length=LENGTH)
    assert ours.perplexity == pytest.approx(theirs.perplexity, rel=CLOSE)
