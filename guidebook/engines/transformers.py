"""Models in PyTorch, through Hugging Face transformers.

A chapter can load the model itself, in sight of the reader::

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    engine = Transformers(model, AutoTokenizer.from_pretrained(folder))

:meth:`Transformers.load` does both for programs, and says in a sentence what is in the way.

The engine calls the model once per token and takes the most likely token. It does not use
``model.generate``, which adds its own work for every token: masks, samplers, stopping rules.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from guidebook.engines.base import Answer, EngineError, Reported
from guidebook.machine.processes import MemoryUse, memory_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

DType = Literal["float32", "bfloat16", "float16", "auto"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]

# Positions whose logits exist at once inside the model. Those of a large vocabulary (262,144)
# take 0.27 GB as float32.
_CHUNK = 256
# Decoding a token alone can lose the space before it, so a few tokens go with it.
_LOOK_BACK = 5
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Transformers:
    """A :class:`~guidebook.engines.TokenEngine` around a transformers model and its tokenizer.

    Parameters
    ----------
    model
        A loaded causal language model.
    tokenizer
        Its tokenizer.
    name
        What messages and tables call it; without one, the name of its folder.

    Raises
    ------
    EngineError
        The model keeps no key-value cache that can be passed from step to step.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "") -> None:  # noqa: ANN401
        import inspect

        self._model = model
        self._tokenizer = tokenizer
        self._name = name or Path(str(model.config._name_or_path)).name
        self._threads_before: int | None = None
        known = inspect.signature(model.forward).parameters
        if "past_key_values" not in known:
            raise EngineError(
                f"{self._name} ({model.config.model_type}) keeps no key-value cache, and the book "
                "measures models that do. Take a transformer, such as model='embedded'."
            )
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        dtype: DType = "float32",
        attn_implementation: Attention = "sdpa",
        n_threads: int | None = None,
        quantization_config: Any = None,  # noqa: ANN401 - one of transformers' many classes
        name: str = "",
    ) -> Transformers:
        """Load a checkpoint: safetensors only, and no code from its folder.

        Parameters
        ----------
        source
            A folder with ``config.json``, a tokenizer and safetensors, a Hugging Face id, or
            ``"embedded"``. Only an id that is not in the cache yet needs the network.
        device
            ``"auto"``: an NVIDIA or AMD GPU, else Apple's, else the processor. Or ``"cpu"``,
            ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype
            Type of the weights in memory; ``"auto"``: as in the file.
        attn_implementation
            PyTorch's fused attention, plain matrix products, or the package flash-attn.
        n_threads
            PyTorch's threads in this process, until the engine is closed; without a number,
            PyTorch chooses.
        quantization_config
            Such as ``BitsAndBytesConfig(load_in_4bit=True)``.
        name
            What messages and tables call the model.

        Raises
        ------
        EngineError
            The checkpoint, the device, a package or the memory is missing.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = _device(device)
        _check_type(dtype)
        _check_attention(attn_implementation, place, dtype)
        folder, found_name = _find(source)
        name = name or found_name
        threads_before = torch.get_num_threads()
        try:
            with _quiet():
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                model, info = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=dtype,
                    device_map={"": str(place)},
                    attn_implementation=attn_implementation,
                    quantization_config=quantization_config,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        # A checkpoint is foreign data: transformers raises whatever its reader stumbled over.
        except Exception as error:
            # Messages are published with a notebook, and a path would name a home folder.
            said = str(error).replace(str(folder), name)
            raise EngineError(_why_not_loaded(name, place, error, said)) from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise EngineError(
                f"The checkpoint {name} is incomplete: {len(missing)} tensors are missing, such as "
                f"{missing[0]}. Fetch it again."
            )
        engine = cls(model, tokenizer, name)
        if n_threads is not None:
            torch.set_num_threads(n_threads)
            engine._threads_before = threads_before
        return engine

    @property
    def name(self) -> str:
        """Runtime, model, and the type that it computes in."""
        return f"transformers {self._name} {self.dtype}"

    @property
    def runtime(self) -> str:
        """The versions of transformers and of PyTorch."""
        import torch
        import transformers

        return f"transformers {transformers.__version__}, PyTorch {torch.__version__}"

    @property
    def device(self) -> str:
        """Where the model is: ``cpu``, ``cuda:0``, ``mps:0``."""
        return str(self._open().device)

    @property
    def dtype(self) -> str:
        """The type that the model computes in, such as ``bfloat16``."""
        return str(self._open().dtype).removeprefix("torch.")

    @property
    def n_ctx(self) -> int:
        """Context length in tokens that the model was trained for.

        The cache grows with the text: nothing is set aside for a context.
        """
        config = self._open().config.get_text_config(decoder=True)
        length = getattr(config, "max_position_embeddings", None)
        return int(length or self._tokenizer.model_max_length)

    def tokenize(self, text: str) -> list[int]:
        """Turn text into token ids, without a begin-of-sequence token."""
        self._open()
        return self._encode(text, add_special_tokens=False, split_special_tokens=True)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model makes of a prompt, its begin-of-sequence included."""
        return len(self._prompt_tokens(text))

    def generate(self, prompt: str, n_generate: int) -> Answer:
        """Continue a text by ``n_generate`` tokens, always taking the most likely one.

        transformers counts and times nothing: ``reported`` holds the tokenizer's counts.
        """
        return Answer(self._pieces(self._prompt_tokens(prompt), n_generate))

    def stream(self, prompt: Sequence[int], n_generate: int) -> Iterator[int]:
        """Read the prompt into an empty KV cache, then yield ``n_generate`` greedy tokens.

        An end-of-sequence token does not end it.

        Raises
        ------
        EngineError
            The prompt is empty, or it and the answer are more than the context or the memory.
        """
        import torch

        self._check(prompt, len(prompt) + n_generate)
        model = self._open()
        step = torch.tensor([list(prompt)], device=model.device)
        cache = None
        for _ in range(n_generate):
            logits, cache = self._forward(step, cache, self._only_last)
            step = logits[:, -1].argmax(dim=-1, keepdim=True)
            # Reading the token waits for the GPU. That belongs to the time of the token.
            yield int(step)

    def logits(self, tokens: Sequence[int], first: int = 0) -> npt.NDArray[np.float32]:
        """Return next-token logits at positions ``first`` … end, as float32.

        The text goes through the model in chunks, which share a KV cache, so that the model's
        own copy of the logits stays small.
        """
        import numpy as np
        import torch

        self._check(tokens, len(tokens))
        model = self._open()
        ids = torch.tensor([list(tokens)], device=model.device)
        rows: npt.NDArray[np.float32] | None = None
        cache = None
        for start, end in _chunks(len(tokens), first):
            wanted = start >= first
            keep = {} if wanted else self._only_last
            logits, cache = self._forward(ids[:, start:end], cache, keep)
            if rows is None:
                rows = np.empty((len(tokens) - first, logits.shape[-1]), dtype=np.float32)
            if wanted:
                rows[start - first : end - first] = logits[0].float().cpu().numpy()
        assert rows is not None  # noqa: S101 - there is at least one token, hence one chunk
        return rows

    def memory(self) -> MemoryUse:
        """Return what this process takes now.

        Where the driver does not say what the process holds of an NVIDIA GPU, PyTorch's own
        count of its tensors stands in.
        """
        import torch

        use = memory_of()
        device = self._open().device
        if device.type == "cuda" and use.vram_bytes is None:
            return MemoryUse(use.rss_bytes, torch.cuda.memory_allocated(device))
        return use

    def close(self) -> None:
        """Free the model's memory, on a GPU too; calling it twice does no harm."""
        import torch

        self._model = self._tokenizer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
        _trim_heap()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
            self._threads_before = None

    def __enter__(self) -> Transformers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> Any:  # noqa: ANN401 - a model class of transformers
        if self._model is None:
            raise EngineError(f"{self._name} is closed. Load it again.")
        return self._model

    def _encode(self, text: str, **options: bool) -> list[int]:
        # The tokenizer would warn of long texts; the engine refuses what does not fit.
        return list(self._tokenizer.encode(text, verbose=False, **options))

    def _prompt_tokens(self, text: str) -> list[int]:
        # Special tokens count as such, as they do in a server's raw completions.
        self._open()
        return self._encode(text)

    def _pieces(self, prompt: Sequence[int], n_generate: int) -> Generator[str, None, Reported]:
        shown = list(prompt[-_LOOK_BACK:])
        pending: list[int] = []
        for token in self.stream(prompt, n_generate):
            pending.append(token)
            before, after = self._text(shown), self._text(shown + pending)
            if after.endswith(_UNFINISHED):
                yield ""
                continue
            yield after[len(before) :]
            shown = (shown + pending)[-_LOOK_BACK:]
            pending = []
        return Reported(
            n_prompt=len(prompt),
            n_cached=0,
            n_generated=n_generate,
            finish_reason="length",
            source="tokenizer",
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def _check(self, tokens: Sequence[int], n_tokens: int) -> None:
        if not tokens:
            raise EngineError("The prompt holds no tokens. Give it some text.")
        # On a GPU, an unknown token would end every later computation of the process too.
        n_vocab = self._open().get_input_embeddings().num_embeddings
        if not 0 <= min(tokens) <= max(tokens) < n_vocab:
            raise EngineError(
                f"A token lies outside the vocabulary of {n_vocab} tokens. Take the tokens from "
                "this engine's own tokenize()."
            )
        if n_tokens > self.n_ctx:
            raise EngineError(
                f"{n_tokens} tokens do not fit the context of {self.n_ctx} that {self._name} was "
                "trained for. Shorten the prompt or the answer."
            )

    def _forward(
        self,
        ids: torch.Tensor,
        cache: Any,  # noqa: ANN401 - a cache class of transformers
        keep: dict[str, int],
    ) -> tuple[torch.Tensor, Any]:
        """Run the model over new tokens; return their logits and the longer cache."""
        import torch

        model = self._open()
        try:
            # Around each step, not around the loop: its caller runs between the steps.
            with torch.inference_mode():
                seen = model(input_ids=ids, past_key_values=cache, use_cache=True, **keep)
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise EngineError(
                    f"{self._name} has no memory left on {self.device} for {ids.shape[1]} more "
                    "tokens. Shorten the prompt, or load the model with dtype='bfloat16'."
                ) from error
            raise EngineError(
                f"{self._name} could not compute on {self.device}: {_first_line(str(error))}"
            ) from error
        return seen.logits, seen.past_key_values


# --- loading ---------------------------------------------------------------------------------


def _find(source: str | Path) -> tuple[Path, str]:
    """Return the folder of a checkpoint, and its name."""
    from guidebook import models

    try:
        found = models.resolve(str(source), "transformers")
    except models.ModelError as error:
        raise EngineError(str(error)) from error
    return found.path, found.name


def _device(wanted: str) -> torch.device:
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda", "mps"}:
        raise EngineError(f"There is no device {wanted!r}. Use 'auto', 'cpu', 'cuda' or 'mps'.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EngineError("'mps' is the GPU of an Apple-silicon Mac. Use device='cpu' here.")
    if device.type == "cuda":
        _check_cuda(device)
    return device


def _check_cuda(device: torch.device) -> None:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        raise EngineError(
            f"This PyTorch ({torch.__version__}) is a build for the processor: it cannot use a "
            "GPU. Install the build for your GPU (chapter 22), or use device='cpu'."
        )
    if not torch.cuda.is_available():
        raise EngineError(
            "PyTorch finds no GPU. Look at what 'guidebook doctor' says about the driver, or use "
            "device='cpu'."
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise EngineError(f"There is no {device}: this machine has {count}, counted from cuda:0.")


def _check_type(dtype: str) -> None:
    if dtype not in get_args(DType):
        raise EngineError(f"There is no dtype {dtype!r}. Use one of {_listed(get_args(DType))}.")


def _check_attention(attention: str, device: torch.device, dtype: str) -> None:
    if attention not in get_args(Attention):
        raise EngineError(
            f"There is no attention {attention!r}. Use one of {_listed(get_args(Attention))}."
        )
    if attention != "flash_attention_2":
        return
    if device.type != "cuda":
        raise EngineError(
            f"flash_attention_2 runs on GPUs only, and the model goes to {device}. Use "
            "attn_implementation='sdpa'."
        )
    if dtype == "float32":
        raise EngineError("flash_attention_2 has no float32. Use dtype='bfloat16' or 'float16'.")
    # Without the package, transformers would fetch a compiled one from the network.
    if importlib.util.find_spec("flash_attn") is None:
        raise EngineError(
            "flash_attention_2 needs the package flash-attn, which is not installed. "
            "requirements-gpu.txt says how; or use attn_implementation='sdpa'."
        )


def _why_not_loaded(name: str, device: torch.device, error: Exception, said: str) -> str:
    if _is_out_of_memory(error):
        return (
            f"{name} does not fit the memory of {device}. Use dtype='bfloat16', a "
            "quantization_config, or a smaller model."
        )
    if "trust_remote_code" in said:
        return (
            f"{name} comes with code of its own, and the book runs no code from a model's folder. "
            "Take a model that transformers knows, or its GGUF form."
        )
    if "scaled_dot_product_attention" in said:
        return f"{name} has no fused attention. Use attn_implementation='eager'."
    return (
        f"transformers could not load {name} ({type(error).__name__}: {_first_line(said)}). Check "
        "that config.json, the tokenizer and the safetensors are whole."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The processor's and Apple's allocators raise a plain RuntimeError.
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings away: what matters becomes an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _trim_heap() -> None:
    """Hand freed memory back to the system.

    Tensors are read in several threads, and glibc keeps what is freed in each thread's heap: of
    the embedded model's 540 MB, 110 MB would come back.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # another C library may not have it
        trim(0)


# --- small things ----------------------------------------------------------------------------


def _chunks(n_tokens: int, first: int) -> Iterator[tuple[int, int]]:
    """Yield spans: one for the positions whose logits nobody wants, then chunk after chunk."""
    if first:
        yield 0, first
    for start in range(first, n_tokens, _CHUNK):
        yield start, min(start + _CHUNK, n_tokens)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
