"""The book's quality figures against the libraries' own, on the same tokens.

Usage: .venv/bin/python benchmarks/quality_parity.py [--length 512] [--count 4]
           [--llama-perplexity PATH]

Each row is one figure from a library, and the same from `guidebook.measure`. The model is the
embedded one, dequantized; KL divergence and top-1 agreement are of a Q4_K_M file made from it,
after its channels were rescaled off the 4-bit grid. llama-cpp-python brings no `llama-perplexity`;
with the path of one, its figures are compared too. The exit code is 1 if two figures differ by
more than 0.5 %.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guidebook import measure, models, texts
from guidebook.engines import LlamaCpp, TokenEngine
from guidebook.engines.transformers import Transformers
from guidebook.measure.quality import Reference, kl_divergence, log_softmax
from guidebook.quantize import gguf

CLOSE = 0.005


@dataclass(frozen=True)
class Row:
    """One figure, from a library and from the book."""

    what: str
    theirs: float
    ours: float

    @property
    def difference(self) -> float:
        """Ours less theirs, as a share of theirs."""
        return self.ours / self.theirs - 1


def surprise(reference: Reference, *, skip: int = 0) -> npt.NDArray[np.float64]:
    """Return the reference's negative log-likelihoods, without the first of each second half."""
    parts = []
    for window, log_probs in zip(reference.windows, reference.log_probs, strict=True):
        chosen = window[len(window) - len(log_probs) + skip :]
        parts.append(-log_probs[np.arange(skip, len(log_probs)), chosen].astype(np.float64))
    return np.concatenate(parts)


# --- llama.cpp -------------------------------------------------------------------------------


def own_log_probs(llama: Any, window: Sequence[int]) -> npt.NDArray[np.float64]:  # noqa: ANN401
    """Return what llama-cpp-python itself says about a window's tokens but the first."""
    llama.reset()
    llama.eval(list(window))
    found = type(llama).logits_to_logprobs(llama.scores[: len(window) - 1])
    return np.asarray(found)[np.arange(len(window) - 1), list(window[1:])]


def completion_log_probs(llama: Any, text: str) -> list[float]:  # noqa: ANN401
    """Return the log-probabilities of a prompt's tokens, as its OpenAI-like interface has them.

    Only behind a begin-of-sequence token does llama-cpp-python 0.3.36 set each token beside the
    logits that predict it; without one, they are off by one. It says nothing about the first.
    """
    begin = llama.detokenize([llama.token_bos()], special=True).decode()
    said = llama.create_completion(
        begin + text, max_tokens=1, echo=True, logprobs=1, temperature=0.0
    )
    values: list[float | None] = said["choices"][0]["logprobs"]["token_logprobs"]
    return [one for one in values[:-1] if one is not None]


def completion_row(engine: LlamaCpp, llama: Any, window: Sequence[int]) -> Row:  # noqa: ANN401
    """Compare one window through ``create_completion``."""
    # A few tokens fewer, since a cut text may be split into other tokens at its end.
    text = llama.detokenize(list(window[:-8])).decode(errors="ignore")
    tokens = [llama.token_bos(), *engine.tokenize(text)]
    theirs = completion_log_probs(llama, text)
    logits = engine.logits(tokens)
    ours = log_softmax(logits)[np.arange(1, len(tokens) - 1), tokens[2:]]
    assert len(theirs) == len(ours)
    return Row(
        "llama-cpp-python, create_completion(echo, logprobs), one window",
        math.exp(-float(np.mean(theirs))),
        math.exp(-float(ours.mean(dtype=np.float64))),
    )


def second_halves(engine: TokenEngine, windows: Sequence[Sequence[int]]) -> float:
    """Return the perplexity by llama-perplexity's formula, in 64 bits.

    tools/perplexity/perplexity.cpp: of each chunk, what positions n_ctx / 2 to n_ctx - 2 predict.
    """
    total, n_scored = 0.0, 0
    for window in windows:
        half = len(window) // 2
        logits = engine.logits(window, first=half)[:-1].astype(np.float64)
        top = logits.max(axis=1)
        sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        total += float((sums - logits[np.arange(len(logits)), list(window[half + 1 :])]).sum())
        n_scored += len(logits)
    return math.exp(total / n_scored)


def llama_rows(tokens: Sequence[int], length: int, count: int) -> Iterator[Row]:
    """Compare with llama-cpp-python and with llama-perplexity's formula."""
    from llama_cpp import Llama

    path = models.resolve("embedded", "gguf-f16").path
    llama = Llama(str(path), n_ctx=length + 1, logits_all=True, verbose=False)
    engine = LlamaCpp(llama)
    windows = measure.quality.windows(tokens, length, count)
    said = np.concatenate([own_log_probs(llama, window) for window in windows])
    ours = measure.perplexity(engine, tokens, length=length)
    yield Row(
        "llama-cpp-python, eval and logits_to_logprobs, windows share nothing",
        math.exp(-said.mean()),
        ours.perplexity,
    )
    yield completion_row(engine, llama, windows[0])
    reference = measure.reference(engine, tokens, length=length, count=count)
    yield Row(
        "llama-perplexity's formula, second halves",
        second_halves(engine, windows),
        math.exp(surprise(reference, skip=1).mean()),
    )
    llama.close()


def quantized(folder: Path) -> tuple[Path, Path]:
    """Return the rescaled F16 file, and a Q4_K_M file made from it."""
    source, target = models.resolve("embedded", "gguf-f16-rescaled").path, folder / "q4_k_m.gguf"
    if not target.exists():
        gguf.quantize(source, target, "Q4_K_M")
    return source, target


def torch_rows(tokens: Sequence[int], length: int, count: int, folder: Path) -> Iterator[Row]:
    """Compare KL divergence and top-1 agreement with PyTorch's, from the same logits."""
    import torch

    source, target = quantized(folder)
    with LlamaCpp.load(source, n_ctx=length) as engine:
        reference = measure.reference(engine, tokens, length=length, count=count)
        expected = [engine.logits(one, first=length // 2 - 1)[:-1] for one in reference.windows]
    with LlamaCpp.load(target, n_ctx=length) as engine:
        ours = measure.compare(engine, reference)
        found = [engine.logits(one, first=length // 2 - 1)[:-1] for one in reference.windows]
    p, q = (torch.from_numpy(np.concatenate(part)).double() for part in (expected, found))
    divergence = torch.nn.functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), reduction="batchmean", log_target=True
    )
    yield Row("torch kl_div, Q4_K_M against F16 (nats)", float(divergence), ours.kl_divergence)
    agreement = (p.argmax(-1) == q.argmax(-1)).double().mean()
    yield Row("torch argmax, Q4_K_M against F16", float(agreement), ours.top1_agreement)


def program_rows(
    program: Path, tokens: Sequence[int], length: int, count: int, folder: Path
) -> Iterator[Row]:
    """Compare with the program ``llama-perplexity``."""
    source, target = quantized(folder)
    text, base = folder / "text.txt", folder / "base.dat"
    with LlamaCpp.load(source, n_ctx=length) as engine:
        whole = texts.evaluation("python-topics")
        # The program refuses texts of fewer than two chunks, and reads the first ``count``.
        text.write_text(whole[: 12 * length * (count + 2)], encoding="utf-8")
        assert engine.tokenize(text.read_text("utf-8"))[: len(tokens)] == list(tokens)
        reference = measure.reference(engine, tokens, length=length, count=count)
    # As in llama-cpp-python: without flash attention, and on the processor.
    shared = ("-f", text, "-c", length, "-b", length, "--chunks", count, "-ngl", 0, "-fa", "off")
    said = _run(program, "-m", source, *shared, "--save-all-logits", base)
    yield Row(
        "llama-perplexity, F16",
        _after(said, r"Final estimate: PPL ="),
        math.exp(surprise(reference, skip=1).mean()),
    )
    said = _run(program, "-m", target, *shared, "--kl-divergence", "--kl-divergence-base", base)
    with LlamaCpp.load(target, n_ctx=length) as engine:
        nll, divergence, same = second_half_figures(engine, reference)
    yield Row("llama-perplexity, Q4_K_M", _after(said, r"Mean PPL\(Q\)\s*:"), math.exp(nll.mean()))
    yield Row(
        "llama-perplexity, mean KLD (nats)", _after(said, r"Mean\s+KLD:"), float(divergence.mean())
    )
    yield Row(
        "llama-perplexity, 99.0% KLD (nats)",
        _after(said, r"99\.0%\s+KLD:"),
        float(np.quantile(divergence, 0.99)),
    )
    yield Row(
        "llama-perplexity, same top p", _after(said, r"Same top p:") / 100, float(same.mean())
    )


def second_half_figures(
    engine: TokenEngine, reference: Reference
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return surprise, KL divergence and agreement of the tokens that llama.cpp scores."""
    scored = []
    for window, expected in zip(reference.windows, reference.log_probs, strict=True):
        log_probs = log_softmax(engine.logits(window, first=len(window) // 2)[:-1])
        chosen = list(window[len(window) // 2 + 1 :])
        scored.append(
            (
                -log_probs[np.arange(len(chosen)), chosen].astype(np.float64),
                kl_divergence(expected[1:], log_probs),
                log_probs.argmax(axis=-1) == expected[1:].argmax(axis=-1),
            )
        )
    nll, divergence, same = (np.concatenate(part) for part in zip(*scored, strict=True))
    return nll, divergence, same


# --- transformers ----------------------------------------------------------------------------


def own_loss(model: Any, tokens: Sequence[int], length: int, stride: int) -> float:  # noqa: ANN401
    """Return the perplexity by the recipe of https://huggingface.co/docs/transformers/perplexity."""
    import torch

    ids = torch.tensor([list(tokens)])
    total, n_scored, before = 0.0, 0, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + length, len(tokens))
        labels = ids[:, begin:end].clone()
        labels[:, : before - begin] = -100
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=labels).loss
        n_labels = int((labels[:, 1:] != -100).sum())
        total, n_scored, before = total + float(loss) * n_labels, n_scored + n_labels, end
        if end == len(tokens):
            break
    return math.exp(total / n_scored)


def transformers_rows(tokens: Sequence[int], length: int) -> Iterator[Row]:
    """Compare with transformers' own loss, and llama.cpp's perplexity with transformers'."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = models.resolve("embedded", "transformers").path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    engine = Transformers(model, AutoTokenizer.from_pretrained(folder))
    for stride in (length, length // 2):
        ours = measure.perplexity(engine, tokens, length=length, stride=stride)
        yield Row(
            f"transformers fp32, loss with labels, stride {stride}",
            own_loss(model, tokens, length, stride),
            ours.perplexity,
        )
    theirs = measure.perplexity(engine, tokens, length=length)
    path = models.resolve("embedded", "gguf-f16").path
    with LlamaCpp.load(path, n_ctx=length) as llama:
        ours = measure.perplexity(llama, tokens, length=length)
    yield Row(
        "both by the book: llama.cpp F16 against transformers fp32",
        theirs.perplexity,
        ours.perplexity,
    )


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--llama-perplexity", type=Path)
    args = parser.parse_args()
    with LlamaCpp.load(models.resolve("embedded").path, n_ctx=64) as engine:
        tokens = engine.tokenize(texts.evaluation("python-topics"))[: args.length * args.count]
    print(f"{args.count} windows of {args.length} tokens; perplexity where no unit is given")
    print(f"{'':69} {'theirs':>10} {'ours':>10} {'difference':>10}")
    worst = 0.0
    for row in _rows(args, tokens):
        worst = max(worst, abs(row.difference))
        print(
            f"{row.what:69} {row.theirs:>10.6f} {row.ours:>10.6f} {row.difference:>+10.4%}",
            flush=True,
        )
    print(f"largest difference {worst:.4%}; allowed {CLOSE:.1%}")
    return int(worst > CLOSE)


def _rows(args: argparse.Namespace, tokens: Sequence[int]) -> Iterator[Row]:
    yield from llama_rows(tokens, args.length, args.count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from torch_rows(tokens, args.length, args.count, folder)
        if args.llama_perplexity is None:
            print("llama-perplexity: not compared; give its path")
        else:
            yield from program_rows(args.llama_perplexity, tokens, args.length, args.count, folder)
    yield from transformers_rows(tokens, args.length)


def _run(program: Path, *arguments: object) -> str:
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1200
    )
    if done.returncode:
        raise RuntimeError(f"{program.name} failed: {done.stderr[-400:]}")
    return done.stdout + done.stderr


def _after(text: str, label: str) -> float:
    found = re.search(label + r"\s*([-\d.]+)", text)
    if found is None:
        raise RuntimeError(f"llama-perplexity printed nothing like {label!r}.")
    return float(found[1])


if __name__ == "__main__":
    sys.exit(main())
