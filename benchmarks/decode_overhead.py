"""How far the book's decode speed is from a bare llama.cpp loop in the same process.

Usage: .venv/bin/python benchmarks/decode_overhead.py [--pairs 21] [--tokens 96]

Both loops decode the same tokens with the same loaded model. They alternate, and which of them
goes first alternates too, so that a slow moment of the machine hits both. The result is the median
of the ratios within pairs; the exit code is 1 if it is below 0.97.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import llama_cpp
from llama_cpp import Llama

from guidebook import machine, measure, models, texts, units
from guidebook.engines import LlamaCpp

GOAL = 0.97


def bare_loop(llama: Llama, prompt: Sequence[int], n_generate: int) -> float:
    """Decode with llama.cpp's own functions and nothing else; return tokens/s after the first."""
    context = llama.ctx
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
    tokens = (llama_cpp.llama_token * len(prompt))(*prompt)
    llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(prompt)))
    sampler = llama_cpp.llama_sampler_init_greedy()
    one = (llama_cpp.llama_token * 1)(llama_cpp.llama_sampler_sample(sampler, context, -1))
    start = time.perf_counter()
    for _ in range(n_generate - 1):
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1))
        one[0] = llama_cpp.llama_sampler_sample(sampler, context, -1)
    seconds = time.perf_counter() - start
    llama_cpp.llama_sampler_free(sampler)
    return (n_generate - 1) / seconds


def main() -> int:
    """Run the pairs, print the table, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    threads = machine.usable_threads()
    llama = Llama(
        str(models.resolve("embedded").path),
        n_ctx=2048,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    engine = LlamaCpp(llama)
    prompt = engine.tokenize(texts.load("python-topics"))[:256]

    def book() -> float:
        seen = measure.throughput(engine, prompt, options.tokens, repetitions=1, warm_up=0)
        return seen.decode.median

    def bare() -> float:
        return bare_loop(llama, prompt, options.tokens)

    book()
    bare()  # both warm
    ratios = []
    for pair in range(options.pairs):
        if pair % 2:
            ours, theirs = book(), bare()
        else:
            theirs, ours = bare(), book()
        ratios.append(ours / theirs)
        print(
            f"pair {pair + 1}: book {units.quantity(ours, 'tokens/s')}, "
            f"bare {units.quantity(theirs, 'tokens/s')}, ratio {ours / theirs:.3f}"
        )
    engine.close()
    median = statistics.median(ratios)
    print(
        f"median ratio {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}; "
        f"{len(ratios)} pairs; {threads} threads), goal {GOAL}"
    )
    return 0 if median >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
