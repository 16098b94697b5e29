"""llama.cpp through llama-cpp-python.

The chapters load the model themselves, in sight of the reader::

    llm = Llama(model_path=str(path), n_ctx=2048, n_gpu_layers=0, verbose=False)
    engine = LlamaCpp(llm)

:meth:`LlamaCpp.load` does both for programs.

The engine then drives llama.cpp's own C functions. A token costs one ``llama_decode`` and one
``llama_sampler_sample`` here, as in ``llama-bench``, so what is measured is the runtime and not
Python around it.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from guidebook.engines.base import Answer, EngineError, Reported
from guidebook.machine.processes import MemoryUse, memory_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llama_cpp import Llama


class LlamaCpp:
    """A :class:`~guidebook.engines.TokenEngine` around a loaded ``llama_cpp.Llama``."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        n_ctx: int = 2048,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
    ) -> LlamaCpp:
        """Load a GGUF file.

        Parameters
        ----------
        path
            The file.
        n_ctx
            Context length in tokens.
        n_threads
            Threads for reading and for writing; without a number, llama-cpp-python chooses.
        n_gpu_layers
            Layers that go to the GPU; -1 for all.

        Raises
        ------
        EngineError
            The file is missing, not GGUF, or more than the memory can take.
        """
        from llama_cpp import Llama

        try:
            return cls(
                Llama(
                    str(path),
                    n_ctx=n_ctx,
                    n_threads=n_threads,
                    n_threads_batch=n_threads,
                    n_gpu_layers=n_gpu_layers,
                    verbose=False,
                )
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise EngineError(
                f"llama.cpp could not load {path.name}. Check that it is a whole GGUF file, and "
                "that the model and its context fit the memory."
            ) from error

    @property
    def name(self) -> str:
        """Runtime and file name."""
        return f"llama.cpp {Path(self._llama.model_path).name}"

    @property
    def runtime(self) -> str:
        """The package that brings llama.cpp, and its version."""
        import llama_cpp

        return f"llama-cpp-python {llama_cpp.__version__}"

    @property
    def n_ctx(self) -> int:
        """Context length in tokens."""
        return int(self._llama.n_ctx())

    def tokenize(self, text: str) -> list[int]:
        """Turn text into token ids, without a begin-of-sequence token."""
        return list(self._llama.tokenize(text.encode("utf-8"), add_bos=False, special=False))

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model makes of a prompt, its begin-of-sequence included."""
        return len(self._prompt_tokens(text))

    def generate(self, prompt: str, n_generate: int) -> Answer:
        """Continue a text by ``n_generate`` tokens, always taking the most likely one.

        The times in ``reported`` are llama.cpp's own, from ``llama_perf_context``.
        """
        return Answer(self._pieces(self._prompt_tokens(prompt), n_generate))

    def stream(self, prompt: Sequence[int], n_generate: int) -> Iterator[int]:
        """Read the prompt into an empty KV cache, then yield ``n_generate`` greedy tokens.

        Raises
        ------
        EngineError
            Prompt and answer do not fit the context, or llama.cpp refused a batch.
        """
        import llama_cpp

        self._check_room(len(prompt) + n_generate)
        self._clear()
        context = self._llama.ctx
        for start in range(0, len(prompt), self._llama.n_batch):
            part = list(prompt[start : start + self._llama.n_batch])
            tokens = (llama_cpp.llama_token * len(part))(*part)
            self._decode(llama_cpp.llama_batch_get_one(tokens, len(part)))
        sampler = llama_cpp.llama_sampler_init_greedy()
        try:
            one = (llama_cpp.llama_token * 1)()
            for count in range(1, n_generate + 1):
                one[0] = llama_cpp.llama_sampler_sample(sampler, context, -1)
                yield int(one[0])
                if count < n_generate:
                    self._decode(llama_cpp.llama_batch_get_one(one, 1))
        finally:
            llama_cpp.llama_sampler_free(sampler)

    def logits(self, tokens: Sequence[int], first: int = 0) -> npt.NDArray[np.float32]:
        """Return next-token logits at positions ``first`` … end, as float32."""
        import llama_cpp
        import numpy as np

        self._check_room(len(tokens))
        self._clear()
        n_vocab = self._llama.n_vocab()
        rows = np.empty((len(tokens) - first, n_vocab), dtype=np.float32)
        done = 0
        batch = llama_cpp.llama_batch_init(self._llama.n_batch, 0, 1)
        try:
            for start in range(0, len(tokens), self._llama.n_batch):
                part = tokens[start : start + self._llama.n_batch]
                wanted = _fill(batch, part, start, first)
                self._decode(batch)
                if wanted:
                    flat = llama_cpp.llama_get_logits(self._llama.ctx)
                    got = np.ctypeslib.as_array(flat, shape=(wanted, n_vocab))
                    rows[done : done + wanted] = got
                    done += wanted
        finally:
            llama_cpp.llama_batch_free(batch)
        return rows

    def memory(self) -> MemoryUse:
        """Return what this process takes now."""
        return memory_of()

    def close(self) -> None:
        """Free the model's memory; calling it twice does no harm."""
        self._llama.close()

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prompt_tokens(self, text: str) -> list[int]:
        # Special tokens count as such, as they do in a server's raw completions.
        return list(self._llama.tokenize(text.encode("utf-8"), add_bos=True, special=True))

    def _pieces(self, prompt: Sequence[int], n_generate: int) -> Generator[str, None, Reported]:
        import llama_cpp

        context = self._llama.ctx
        llama_cpp.llama_perf_context_reset(context)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in self.stream(prompt, n_generate):
            yield decoder.decode(self._llama.detokenize([token], special=True))
        seen = llama_cpp.llama_perf_context(context)
        return Reported(
            n_prompt=len(prompt),
            n_cached=0,
            n_generated=n_generate,
            prefill_seconds=seen.t_p_eval_ms / 1000,
            decode_seconds=seen.t_eval_ms / 1000,
            n_decoded=n_generate - 1,
            finish_reason="length",
            source="llama_perf_context",
        )

    def _check_room(self, n_tokens: int) -> None:
        if n_tokens > self.n_ctx:
            raise EngineError(
                f"{n_tokens} tokens do not fit the context of {self.n_ctx}: load the model with "
                "a larger n_ctx."
            )

    def _clear(self) -> None:
        import llama_cpp

        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._llama.ctx), False)
        # The high-level object counts tokens itself; it must not believe in the old ones.
        self._llama.reset()

    def _decode(self, batch: Any) -> None:  # noqa: ANN401 - a ctypes structure of llama.cpp
        import llama_cpp

        code = llama_cpp.llama_decode(self._llama.ctx, batch)
        if code != 0:
            raise EngineError(
                f"llama.cpp could not process a batch (llama_decode returned {code})."
            )


def _fill(batch: Any, tokens: Sequence[int], start: int, first: int) -> int:  # noqa: ANN401
    """Put tokens at positions ``start`` … into a batch; return how many logits it asks for."""
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i] = token
        batch.pos[i] = start + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = start + i >= first
    return max(0, start + len(tokens) - max(first, start))
