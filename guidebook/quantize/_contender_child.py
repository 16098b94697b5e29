"""The child process of :func:`guidebook.quantize.contenders.run`: it measures one contender.

Its only argument is a file with the job. It reports each reading as a line of JSON as soon as it
has it, so that what was measured before a failure is kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from guidebook.engines import TokenEngine

    Floats = npt.NDArray[np.float32]

_LEAST_CONTEXT = 512


def main(arguments: list[str]) -> None:
    """Do the job, and say in one line what prevented the rest of it, if something did."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    with Path(job["report"]).open("w", encoding="utf-8") as report:

        def say(event: str, **values: object) -> None:
            report.write(json.dumps({"event": event, **values}) + "\n")
            report.flush()

        try:
            _measure(job["contender"], job["test"], job["log_probs"], say)
        except MemoryError:
            say("failed", message="The memory is full. Close programs, or take a smaller model.")
        except Exception as error:
            # The comparison goes on with the next contender, and says what became of this one.
            source = Path(job["contender"]["source"])
            say("failed", message=_sentence(error).replace(str(source), source.name))


def _measure(
    contender: Mapping[str, Any],
    test: Mapping[str, Any],
    log_probs: str,
    say: Any,  # noqa: ANN401 - a function
) -> None:
    import numpy as np

    from guidebook import measure
    from guidebook.measure import tasks

    _import_libraries(contender)
    with measure.peak_memory() as peak:
        start = time.perf_counter()
        engine, weights_bytes = _load(contender, test)
        say("ready", seconds=time.perf_counter() - start, weights_bytes=weights_bytes)
        seen = measure.throughput(engine, test["prompt"], test["n_generate"], test["repetitions"])
        vram = _vram_bytes(contender, test, engine)
    say("speed", prefill=seen.prefill.samples, decode=seen.decode.samples)
    growth = peak.growth_bytes if vram is None else vram
    say("memory", before_bytes=peak.before_bytes, growth_bytes=growth)
    # Mapped, not read: the reference is no part of what this way of holding the model takes.
    expected = np.load(log_probs, mmap_mode="r")
    reference = measure.Reference(
        tuple(tuple(window) for window in test["windows"]), tuple(expected)
    )
    remembering = cast("TokenEngine", Remembering(engine, reference.windows))
    say("quality", **asdict(measure.compare(remembering, reference)))
    if test["questions"]:
        answers = tasks.score(remembering, _questions(test))
        say("task", right=answers.right)
    engine.close()


class Remembering:
    """An engine that keeps the logits of the windows it has read.

    A question about a window's beginning is answered from them: what follows a token does not
    change what a model makes of it.
    """

    def __init__(self, engine: TokenEngine, windows: Sequence[Sequence[int]]) -> None:
        self._engine = engine
        self._windows = [tuple(window) for window in windows]
        self._kept: dict[int, tuple[int, Floats]] = {}

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._engine.name

    def logits(self, tokens: Sequence[int], first: int = 0) -> Floats:
        """Return next-token logits at positions ``first`` … end, computed only once."""
        wanted = tuple(tokens)
        for number, (start, rows) in self._kept.items():
            if first >= start and self._windows[number][: len(wanted)] == wanted:
                return rows[first - start : len(wanted) - start]
        rows = self._engine.logits(tokens, first)
        if wanted in self._windows:
            self._kept[self._windows.index(wanted)] = (first, rows)
        return rows


def _questions(test: Mapping[str, Any]) -> list[Any]:
    from guidebook.measure import tasks

    return [
        tasks.Question(
            context=tuple(test["windows"][one["window"]][: one["position"]]),
            choices=tuple((token,) for token in one["choices"]),
            answer=one["answer"],
        )
        for one in test["questions"]
    ]


# --- loading -----------------------------------------------------------------------------------


def _import_libraries(contender: Mapping[str, Any]) -> None:
    """Import what loading needs, so that it counts as the libraries' memory and time."""
    if contender["engine"] == "llama.cpp":
        import llama_cpp  # noqa: F401

        return
    import torch  # noqa: F401

    from guidebook import quiet

    # bitsandbytes writes a line for each product, which takes time.
    quiet.silence("transformers", "bitsandbytes", "torchao", "torch.utils._pytree")
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    for name in contender["needs"]:
        import_module(name)


def _load(contender: Mapping[str, Any], test: Mapping[str, Any]) -> tuple[TokenEngine, int | None]:
    from guidebook.engines import LlamaCpp, Transformers

    source = Path(contender["source"])
    if contender["engine"] == "llama.cpp":
        n_ctx = max(
            _LEAST_CONTEXT, len(test["windows"][0]), len(test["prompt"]) + test["n_generate"]
        )
        return LlamaCpp.load(
            source,
            n_ctx=n_ctx,
            n_threads=test["n_threads"],
            n_gpu_layers=test["n_gpu_layers"],
        ), None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(test["n_threads"])
    torch.set_grad_enabled(False)
    config = _config(contender["config"], contender["options"])
    # Left out rather than None: transformers 5.17 would take None for a configuration of its own,
    # and load a checkpoint that is packed already without reading its matrices.
    given = {} if config is None else {"quantization_config": config}
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        **given,
        dtype=contender["dtype"],
        device_map={"": test["device"]},
        use_safetensors=True,
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    held = held_bytes(model, rest_in_16_bits=bool(contender["config"]))
    return Transformers(model, tokenizer, contender["name"]), held


def _config(name: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - many classes
    """Return the object that tells transformers how to quantize while loading."""
    import transformers

    if not name:
        return None
    own = getattr(transformers, name, None)
    if own is not None:
        return own(**options)
    quantization: Any = import_module("torchao.quantization")  # it has no types
    return transformers.TorchAoConfig(getattr(quantization, name)(**options))


def held_bytes(model: torch.nn.Module, *, rest_in_16_bits: bool) -> int:
    """Add up what a model's weights take in memory, each tensor once.

    Parameters
    ----------
    model
        A loaded model; quantized by bitsandbytes, torchao, or not at all.
    rest_in_16_bits
        Count what is not quantized in 16 bits, whatever it has here: that is how such models are
        saved, and the type in which the rest is held belongs to the device, not to the method.
    """
    from guidebook.measure.weights_held import weights_held

    seen: set[int] = set()
    packed = plain = n_plain = 0
    for tensor in (*model.parameters(), *model.buffers()):
        parts = list(_parts(tensor.data))
        if parts:
            packed += sum(part.nbytes for part in parts)
        elif tensor.is_floating_point() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            plain += tensor.nbytes
            n_plain += tensor.numel()
    if not packed:
        found = weights_held(model)
        packed = found.quantized_bytes + found.scale_bytes
        plain, n_plain = found.other_bytes, found.n_other
    return packed + (2 * n_plain if rest_in_16_bits else plain)


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors inside one of torchao's; nothing for any other."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return
    names, _ = flatten()
    for name in names:
        inner = getattr(tensor, name)
        deeper = list(_parts(inner))
        yield from deeper or [inner]


def _vram_bytes(
    contender: Mapping[str, Any], test: Mapping[str, Any], engine: TokenEngine
) -> int | None:
    """Return what the model took on a GPU, or ``None`` if it was in RAM."""
    if contender["engine"] == "llama.cpp":
        return engine.memory().vram_bytes if test["n_gpu_layers"] else None
    if not test["device"].startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated())


def _sentence(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), "").strip().rstrip(".")
    kind = type(error).__name__
    if not line:
        return f"{kind}, without a word."
    return f"{line}." if kind.endswith("EngineError") else f"{kind}: {line}."


if __name__ == "__main__":
    main(sys.argv[1:])
