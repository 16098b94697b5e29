"""The importance matrix: how large the inputs of each weight are on real text.

A matrix computes ``y = W x``. If column ``j`` of ``W`` is off by ``e``, the output is off by
``e · x_j``, so its squared error is ``e² · x_j²``. The mean of ``x_j²`` over a text therefore says
how much an error in column ``j`` costs. llama.cpp's ``llama-imatrix`` collects the same sums
(https://github.com/ggml-org/llama.cpp/pull/4861).

Here PyTorch computes the model, and a hook on each matrix adds up the squares of what goes in.
llama.cpp's files store the rows of the query and key matrices in another order than transformers.
The columns, which are the inputs, have the same order in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Importance:
    """Mean squares of the inputs of a model's matrices.

    Attributes
    ----------
    mean_squares
        By the name of the tensor in a GGUF file, ``blk.0.attn_q.weight``: one value for each
        column of the matrix, shape (columns,).
    n_tokens
        Tokens that the means are over.
    """

    mean_squares: Mapping[str, Floats]
    n_tokens: int


def collect(model: Any, windows: Sequence[Sequence[int]]) -> Importance:  # noqa: ANN401
    """Run a model over text and add up the squares of every matrix's inputs.

    As ``llama-imatrix`` does, it leaves the output matrix out. With tied embeddings that is the
    embedding table.

    Parameters
    ----------
    model
        A loaded causal language model of transformers.
    windows
        Token ids, one sequence per window. Each is read from its beginning, without the others.

    Raises
    ------
    ValueError
        There is no text, the model has no matrix that llama.cpp knows, or it computed infinity.
    """
    import numpy as np
    import torch

    n_tokens = sum(len(window) for window in windows)
    if not n_tokens:
        raise ValueError("An importance matrix needs text: give at least one window of tokens.")
    matrices = dict(_matrices(model))
    if not matrices:
        raise ValueError(
            f"llama.cpp has no names for the matrices of {type(model).__name__}. Take a model that "
            "it can run, such as one of the Llama family."
        )
    sums = {
        name: torch.zeros(matrix.in_features, dtype=torch.float64, device=model.device)
        for name, matrix in matrices.items()
    }
    with _watched(matrices, sums), torch.inference_mode():
        for window in windows:
            # The model without its last matrix: its output is not needed.
            model.base_model(torch.tensor([list(window)], device=model.device), use_cache=False)
    mean_squares = {
        name: (total / n_tokens).cpu().numpy().astype(np.float32) for name, total in sums.items()
    }
    infinite = [name for name, values in mean_squares.items() if not np.isfinite(values).all()]
    if infinite:
        raise ValueError(
            f"The inputs of {infinite[0]} are not finite. Load the model in float32 or bfloat16."
        )
    return Importance(mean_squares, n_tokens)


def weighted_error(weights: Floats, rounded: Floats, importance: Floats) -> float:
    """Return the error that rounding a matrix makes in its output, relative to the output.

    It is the root of ``Σ x_j² (w_ij - r_ij)²`` over ``Σ x_j² w_ij²``, which takes the inputs as
    uncorrelated; 0 is no error, 1 as much error as output.

    Parameters
    ----------
    weights, rounded
        Shape (rows, columns).
    importance
        Mean squares of the inputs ``x_j``, shape (columns,).
    """
    import numpy as np

    lost = (np.square(weights - rounded, dtype=np.float64) * importance).sum()
    whole = (np.square(weights, dtype=np.float64) * importance).sum()
    return float(np.sqrt(lost / whole))


def _matrices(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:  # noqa: ANN401
    """Yield the layers' matrices with the names that they have in a GGUF file."""
    import torch
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    config = model.config.get_text_config(decoder=True)
    families = {name: family for family, name in MODEL_ARCH_NAMES.items()}
    # transformers and llama.cpp name most families alike; Mistral's is Llama's in llama.cpp.
    family = families.get(config.model_type, MODEL_ARCH.LLAMA)
    names = get_tensor_name_map(family, config.num_hidden_layers)
    for module_name, module in model.named_modules():
        name = names.get_name(module_name) or ""
        if isinstance(module, torch.nn.Linear) and name.startswith("blk."):
            yield f"{name}.weight", module


@contextmanager
def _watched(
    matrices: Mapping[str, torch.nn.Linear], sums: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    def adder(total: torch.Tensor) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def add(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:  # noqa: ANN401
            rows = inputs[0].reshape(-1, len(total)).float()
            total.add_(rows.square().sum(dim=0, dtype=total.dtype))

        return add

    hooks = [
        matrix.register_forward_pre_hook(adder(sums[name])) for name, matrix in matrices.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
