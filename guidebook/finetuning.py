"""What a fine-tuning experiment needs around its loop: examples, batches, held-out losses.

The examples are questions about Python and answers in one style. They come with every Python, in
the help texts of its own functions, so nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

Pair = tuple[str, str]

# PyTorch's loss skips targets of this value.
_IGNORED = -100
_SENTENCE = re.compile(r"[A-Z][a-z]+ [^`>]{15,80}\.")


def style_pairs() -> tuple[Pair, ...]:
    """Return questions about Python functions, and answers in the style of its documentation.

    Such as ``("What does Python's math.sqrt do?", "math.sqrt: Return the square root of x.")``.
    No sentence is there twice. The pairs differ a little between Python versions.
    """
    import builtins
    import collections
    import math
    import random
    import shutil
    import statistics

    modules = (math, statistics, shutil, builtins)
    classes = (str, list, dict, set, collections.deque, random.Random)
    pairs: dict[str, Pair] = {}
    for owner in (*modules, *classes):
        for name, thing in sorted(vars(owner).items()):
            if name.startswith("_") or not callable(thing) or _is_exception(thing):
                continue
            sentence = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
            if _SENTENCE.fullmatch(sentence):
                full = name if owner is builtins else f"{owner.__name__}.{name}"
                pair = (f"What does Python's {full} do?", f"{full}: {sentence}")
                pairs.setdefault(sentence, pair)
    return tuple(pairs.values())


def split(
    pairs: Sequence[Pair], *, share: float = 1 / 6, seed: int = 0
) -> tuple[list[Pair], list[Pair]]:
    """Shuffle pairs and return those to train on and those to hold out.

    Raises
    ------
    ValueError
        The share leaves one side empty.
    """
    import random

    shuffled = list(pairs)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret
    n_held_out = round(len(shuffled) * share)
    if not 0 < n_held_out < len(shuffled):
        raise ValueError(f"A share of {share:g} of {len(shuffled)} pairs leaves one side empty.")
    return shuffled[n_held_out:], shuffled[:n_held_out]


def tokens(tokenizer: Any, question: str, answer: str = "") -> tuple[list[int], int]:  # noqa: ANN401 - of transformers
    """Turn a conversation into tokens, through the model's chat template.

    Returns
    -------
    tuple
        Token ids, and how many of them are the question's. With an answer they end with the
        token that ends a text; without one the model is to go on.
    """
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    if not answer:
        return list(asked), len(asked)
    told = tokenizer.encode(answer + tokenizer.eos_token, add_special_tokens=False)
    return [*asked, *told], len(asked)


def batch(
    tokenizer: Any,  # noqa: ANN401 - a class of transformers
    pairs: Sequence[Pair],
    device: str | torch.device = "cpu",
) -> dict[str, torch.Tensor]:
    """Make a batch whose loss counts the answers only.

    Shorter conversations are filled up at the end, and the mask hides what was filled.

    Returns
    -------
    dict
        ``input_ids``, ``attention_mask`` and ``labels``, each of shape (pairs, longest).
    """
    import torch

    read = [tokens(tokenizer, *pair) for pair in pairs]
    shape = (len(read), max(len(ids) for ids, _ in read))
    ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, _IGNORED)
    for row, (one, n_asked) in enumerate(read):
        ids[row, : len(one)] = torch.tensor(one)
        mask[row, : len(one)] = 1
        labels[row, n_asked : len(one)] = ids[row, n_asked : len(one)]
    named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in named.items()}


def losses(
    model: Any,  # noqa: ANN401 - a class of transformers or PEFT
    tokenizer: Any,  # noqa: ANN401 - a class of transformers
    pairs: Sequence[Pair],
    at_once: int = 8,
) -> npt.NDArray[np.float64]:
    """Return the loss of each pair's answer, in nats per token, without training.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    pairs
        Questions and answers.
    at_once
        Pairs in a batch. Their logits take ``at_once × tokens × vocabulary × 4`` bytes.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    seen: list[float] = []
    for start in range(0, len(pairs), at_once):
        made = batch(tokenizer, pairs[start : start + at_once], model.device)
        labels = made.pop("labels")[:, 1:]
        with torch.inference_mode():
            logits = model(**made).logits[:, :-1].float()
            each = cross_entropy(
                logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none"
            )
        seen += (each.sum(dim=1) / (labels != _IGNORED).sum(dim=1)).tolist()
    return np.array(seen, dtype=np.float64)


def surprise(
    model: Any,  # noqa: ANN401 - a class of transformers or PEFT
    windows: Sequence[Sequence[int]],
) -> npt.NDArray[np.float32]:
    """Return the surprise of every token but a window's first, in nats, windows on end."""
    import numpy as np
    import torch

    seen = []
    for window in windows:
        ids = torch.tensor([list(window)], device=model.device)
        with torch.inference_mode():
            scores = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        seen.append(-scores.gather(1, ids[0, 1:, None])[:, 0].cpu().numpy())
    return np.concatenate(seen)


def frozen_checksum(model: torch.nn.Module) -> str:
    """Return a SHA-256 over all weights that are not trained, and their scales."""
    import torch

    digest = hashlib.sha256()
    for name, weights in sorted(model.named_parameters()):
        if not weights.requires_grad:
            digest.update(name.encode())
            for tensor in (weights.data, getattr(weights, "absmax", None)):
                if tensor is not None:
                    flat = tensor.detach().cpu().contiguous().flatten()
                    digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_exception(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)
