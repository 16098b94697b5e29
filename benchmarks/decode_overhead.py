"""How far the book's decode speed is from each runtime's bare loop.

Usage: .venv/bin/python benchmarks/decode_overhead.py [--pairs 11] [--tokens 64] [RUNTIME ...]

The book's side is what `guidebook bench` measures: an engine's answer, piece by piece. The bare
side is the shortest loop that writes the same tokens: llama.cpp's own functions, calls of the
PyTorch model, or bytes read from the server's socket. Both use the same loaded model, alternate,
and which of them goes first alternates too, so that a slow moment of the machine hits both. The
result is the median of the ratios within pairs; the exit code is 1 if one is below 0.97.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from guidebook import machine, models, texts, units
from guidebook.bench.worker import one_answer
from guidebook.engines import Engine, LlamaCpp, server
from guidebook.engines.openai_server import OpenAIServer
from guidebook.engines.transformers import Transformers

GOAL = 0.97
N_CTX = 2048
# Prefill is not measured here; a short prompt leaves the time to decoding.
N_CHARACTERS = 600

# Both return tokens per second after the first token.
Loop = Callable[[], float]


def rate(stamps: Sequence[float]) -> float:
    """Return tokens per second after the first, from each token's moment."""
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def book_loop(engine: Engine, prompt: str, n_generate: int) -> Loop:
    """Return the book's side: an answer as the benchmark reads it."""

    def loop() -> float:
        seen = one_answer(engine, prompt, n_generate)
        return (seen["n_pieces"] - 1) / (seen["last"] - seen["first"])

    return loop


@contextmanager
def llama_cpp(prompt: str, n_generate: int) -> Iterator[tuple[Loop, Loop]]:
    """Run llama.cpp in this process."""
    import llama_cpp as c
    from llama_cpp import Llama

    threads = machine.usable_threads()
    llama = Llama(
        str(models.resolve("embedded").path),
        n_ctx=N_CTX,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    tokens = llama.tokenize(prompt.encode(), add_bos=True, special=True)

    def bare() -> float:
        context = llama.ctx
        c.llama_memory_clear(c.llama_get_memory(context), False)
        batch = (c.llama_token * len(tokens))(*tokens)
        c.llama_decode(context, c.llama_batch_get_one(batch, len(tokens)))
        sampler = c.llama_sampler_init_greedy()
        one = (c.llama_token * 1)(c.llama_sampler_sample(sampler, context, -1))
        stamps = [time.perf_counter()]
        for _ in range(n_generate - 1):
            c.llama_decode(context, c.llama_batch_get_one(one, 1))
            one[0] = c.llama_sampler_sample(sampler, context, -1)
            stamps.append(time.perf_counter())
        c.llama_sampler_free(sampler)
        return rate(stamps)

    with LlamaCpp(llama) as engine:
        yield book_loop(engine, prompt, n_generate), bare


@contextmanager
def transformers(dtype: str, prompt: str, n_generate: int) -> Iterator[tuple[Loop, Loop]]:
    """Run a PyTorch model on the processor."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(machine.usable_threads())
    folder = models.resolve("embedded", "transformers").path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def bare() -> float:
        step, cache = tokenizer(prompt, return_tensors="pt").input_ids, None
        stamps = []
        for _ in range(n_generate):
            seen = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            step, cache = seen.logits[:, -1].argmax(dim=-1, keepdim=True), seen.past_key_values
            stamps.append(time.perf_counter())
        return rate(stamps)

    with Transformers(model, tokenizer) as engine:
        yield book_loop(engine, prompt, n_generate), bare


@contextmanager
def over_http(prompt: str, n_generate: int) -> Iterator[tuple[Loop, Loop]]:
    """Run llama-cpp-python's server in another process, and ask it through OpenAI's API."""
    # What the engine asks this server for; min_tokens costs the server time, so both ask for it.
    wanted: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": n_generate,
        "min_tokens": n_generate,
        "temperature": 0,
        "seed": 0,
        "repeat_penalty": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    with (
        server.llama_cpp(
            models.resolve("embedded").path, n_ctx=N_CTX, n_threads=machine.usable_threads()
        ) as running,
        OpenAIServer(running.base_url, running.model) as engine,
    ):
        address = urlsplit(running.base_url)
        body = json.dumps({"model": running.model, **wanted})

        def bare() -> float:
            connection = http.client.HTTPConnection(address.netloc, timeout=60)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"{address.path}/completions", body, headers)
            seen = [(line, time.perf_counter()) for line in connection.getresponse()]
            connection.close()
            # Looked into afterwards: the loop itself reads bytes and nothing else.
            return rate([moment for line, moment in seen if b'"choices"' in line])

        yield book_loop(engine, prompt, n_generate), bare


RUNTIMES = {
    "llama.cpp": llama_cpp,
    "transformers-float32": lambda *job: transformers("float32", *job),
    "transformers-bfloat16": lambda *job: transformers("bfloat16", *job),
    "llama.cpp-server": over_http,
}


def ratios(book: Loop, bare: Loop, pairs: int) -> list[tuple[float, float]]:
    """Run both sides in pairs; return (ours, theirs) in tokens per second."""
    book()
    bare()  # both warm
    seen = []
    for pair in range(pairs):
        if pair % 2:
            ours, theirs = book(), bare()
        else:
            theirs, ours = bare(), book()
        seen.append((ours, theirs))
    return seen


def main() -> int:
    """Run the pairs, print a line per runtime, and say whether each reaches the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("runtimes", nargs="*", metavar="RUNTIME", help=", ".join(RUNTIMES))
    options = parser.parse_args()
    unknown = set(options.runtimes) - set(RUNTIMES)
    if unknown:
        parser.error(f"There is no {', '.join(sorted(unknown))}. There are: {', '.join(RUNTIMES)}.")
    prompt = texts.load("python-topics")[:N_CHARACTERS]
    missed = 0
    for name in options.runtimes or RUNTIMES:
        with RUNTIMES[name](prompt, options.tokens) as (book, bare):
            seen = ratios(book, bare, options.pairs)
        ours, theirs = (statistics.median(side) for side in zip(*seen, strict=True))
        within = [one / other for one, other in seen]
        median = statistics.median(within)
        missed += median < GOAL
        print(
            f"{name}: book {units.quantity(ours, 'tokens/s')}, "
            f"bare {units.quantity(theirs, 'tokens/s')}, "
            f"median ratio {median:.3f} ({min(within):.3f} to {max(within):.3f})",
            flush=True,
        )
    print(f"{options.pairs} pairs of {options.tokens} tokens, goal {GOAL}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
