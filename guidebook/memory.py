"""Memory that a model needs besides its weights."""

from __future__ import annotations

from guidebook.architecture import Architecture


def kv_cache_bytes(
    architecture: Architecture, n_tokens: int, bytes_per_element: float = 2.0
) -> int:
    """Return the size of the KV cache in bytes.

    Every layer keeps one key and one value vector per token and key/value head:
    ``2 × layers × KV heads × head size × tokens × bytes per number``.

    Parameters
    ----------
    architecture
        The model's shape. All layers are taken to attend to the whole context.
    n_tokens
        Context length the cache is allocated for, in tokens.
    bytes_per_element
        2 for the f16 cache that llama.cpp uses by default, 34/32 for q8_0.

    Raises
    ------
    ValueError
        ``n_tokens`` is negative.
    """
    if n_tokens < 0:
        raise ValueError(f"A context cannot hold {n_tokens} tokens.")
    elements = 2 * architecture.n_layers * architecture.n_kv_heads * architecture.head_size
    return round(elements * n_tokens * bytes_per_element)
