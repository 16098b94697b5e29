"""How much memory llama.cpp's compute graph takes, by allocating one as llama.cpp does.

While a batch is computed, every intermediate result needs a place. llama.cpp plans these places
before the first token: it walks through the graph of operations, puts each result into the
best-fitting free block, and frees a result after its last use. The highest address it reaches is
the size of the *compute buffer*.

This module repeats that plan for a few layers of each kind; more layers reuse the same places.

Sources: ggml/src/ggml-alloc.c (the allocator), src/llama-graph.cpp and src/models/*.cpp (the
graph) of llama.cpp, as vendored in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guidebook.architecture import Architecture

_F32 = 4
_F16 = 2
_I32 = 4
_I64 = 8
# Families that pick the rows to answer for after the last layer, not inside it, and keep what
# they pick from: the layer's result, or what the final norm makes of it.
_PICK_BEFORE_NORM = frozenset({"gpt-oss"})
_PICK_AFTER_NORM = frozenset({"gemma4", "nemotron_h", "qwen35", "qwen35moe", "qwen3next"})
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Shape:
    """What the graph of one batch depends on, besides the architecture.

    Attributes
    ----------
    n_tokens
        Tokens of the batch (``n_ubatch``).
    n_outputs
        Rows of logits that are computed.
    n_kv, n_kv_window
        Cells of the KV cache that full layers and window layers look at.
    flash_attention
        Attention without written-out scores; the mask is then f16.
    rotate_k, rotate_v
        Sides of the rotation that llama.cpp applies before it quantizes keys and values; 0: none.
    copy_k, copy_v
        The device's flash attention works on a 16-bit copy of one layer's keys, or values.
    host_embedding
        The embedding table is looked up on the host: its rows arrive as an input.
    alignment
        Every place starts at a multiple of this.
    """

    n_tokens: int
    n_outputs: int
    n_kv: int
    n_kv_window: int = 0
    flash_attention: bool = True
    rotate_k: int = 0
    rotate_v: int = 0
    copy_k: bool = False
    copy_v: bool = False
    host_embedding: bool = False
    alignment: int = 32


class _Tensor:
    """A place in memory: views of one result are one tensor."""

    __slots__ = ("offset", "size", "uses")

    def __init__(self, size: int) -> None:
        self.size = size
        self.uses = 0
        self.offset = -1


class _Graph:
    """A list of operations in the order in which llama.cpp runs them."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._inputs: list[_Tensor] = []
        self._steps: list[tuple[_Tensor, tuple[_Tensor, ...], bool]] = []

    def input(self, size: int) -> _Tensor:
        """Add a tensor that has its place before the first operation."""
        tensor = _Tensor(self._aligned(size))
        self._inputs.append(tensor)
        return tensor

    def op(self, size: int, *sources: _Tensor, inplace: bool = False) -> _Tensor:
        """Add an operation; ``inplace``: it may overwrite a source of its own size."""
        tensor = _Tensor(self._aligned(size))
        for source in sources:
            source.uses += 1
        self._steps.append((tensor, sources, inplace))
        return tensor

    def peak(self) -> int:
        """Allocate all and return the highest address reached."""
        blocks = _Blocks()
        for tensor in self._inputs:
            tensor.offset = blocks.take(tensor.size)
        for tensor, sources, inplace in self._steps:
            if inplace:
                for source in sources:
                    if source.uses == 1 and source.size == tensor.size and source.offset >= 0:
                        tensor.offset = source.offset
                        source.offset = -1
                        break
            if tensor.offset < 0:
                tensor.offset = blocks.take(tensor.size)
            for source in sources:
                source.uses -= 1
                if source.uses == 0 and source.offset >= 0:
                    blocks.give(source.offset, source.size)
                    source.offset = -1
        return blocks.highest

    def _aligned(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment


class _Blocks:
    """Free blocks by rising address, the last without end (``ggml_dyn_tallocr``)."""

    def __init__(self) -> None:
        self._free = [[0, _ENDLESS]]
        self.highest = 0

    def take(self, size: int) -> int:
        """Return the address of the best-fitting block."""
        free = self._free
        best = len(free) - 1
        best_size = _ENDLESS
        for i in range(best):
            if size <= free[i][1] <= best_size:
                best, best_size = i, free[i][1]
        block = free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del free[best]
        self.highest = max(self.highest, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a block, and join it with its neighbours."""
        if not size:
            return
        free = self._free
        i = 0
        while i < len(free) and free[i][0] < offset:
            i += 1
        if i < len(free) and offset + size == free[i][0]:
            free[i][0] = offset
            free[i][1] += size
        else:
            free.insert(i, [offset, size])
        if i and free[i - 1][0] + free[i - 1][1] == free[i][0]:
            free[i - 1][1] += free[i][1]
            del free[i]


def peak_bytes(architecture: Architecture, shape: Shape) -> int:
    """Return the bytes of the compute buffer that a graph of this shape needs."""
    return _Builder(architecture, shape).build()


class _Builder:
    def __init__(self, architecture: Architecture, shape: Shape) -> None:
        self.a = architecture
        self.s = shape
        self.g = _Graph(shape.alignment)

    def build(self) -> int:
        a, s, g = self.a, self.s, self.g
        hidden = a.hidden_size * _F32
        if s.host_embedding:
            stream = g.input(s.n_tokens * hidden)
        else:
            tokens = g.input(s.n_tokens * _I32)
            g.input(s.n_tokens * hidden)  # for batches of vectors instead of tokens; never freed
            stream = g.op(s.n_tokens * hidden, tokens)
        positions = g.input(s.n_tokens * _I32)
        self._inputs(positions)
        out_ids = g.input(s.n_outputs * _I32)
        plan = _layer_plan(a)
        for kind, is_expert in plan[:-1]:
            stream = self._layer(stream, kind, is_expert, None)
        kind, is_expert = plan[-1]
        is_late = a.name in _PICK_BEFORE_NORM | _PICK_AFTER_NORM
        stream = self._layer(stream, kind, is_expert, None if is_late else out_ids)
        if a.name in _PICK_AFTER_NORM:
            stream = self._norm(stream, s.n_tokens * hidden)
        if is_late:
            stream.uses += 1  # an output of the graph: never freed
            stream = g.op(s.n_outputs * hidden, stream, out_ids)
        norm = stream
        if a.name not in _PICK_AFTER_NORM:
            norm = self._norm(stream, s.n_outputs * hidden)
        g.op(s.n_outputs * a.n_vocab * _F32, norm)
        return g.peak()

    def _inputs(self, positions: _Tensor) -> None:
        a, s, g = self.a, self.s, self.g
        mask = _F16 if s.flash_attention else _F32
        # Without flash attention values are stored transposed: one index per number.
        per_value = 1 if s.flash_attention else a.n_kv_heads * a.v_head_size
        self.positions = positions
        self.rotate_k = g.input(s.rotate_k**2 * _F32) if s.rotate_k else None
        self.rotate_v = g.input(s.rotate_v**2 * _F32) if s.rotate_v else None
        self.masks: dict[str, tuple[_Tensor, ...]] = {}
        # Inputs lie in the order in which layers first ask for them; a window layer comes first.
        kinds = (("window", a.n_window_layers, s.n_kv_window), ("full", a.n_full_layers, s.n_kv))
        for kind, layers, cells in kinds:
            if layers and cells:
                keys = g.input(s.n_tokens * _I64)
                values = g.input(0 if a.is_mla else s.n_tokens * per_value * _I64)
                self.masks[kind] = (keys, values, g.input(cells * s.n_tokens * mask))

    def _norm(self, x: _Tensor, size: int) -> _Tensor:
        normed = self.g.op(size, x, inplace=True)
        return self.g.op(size, normed, inplace=True)

    def _layer(
        self, stream: _Tensor, kind: str, is_expert: bool, out_ids: _Tensor | None
    ) -> _Tensor:
        a, s, g = self.a, self.s, self.g
        hidden = a.hidden_size * _F32
        x = self._norm(stream, s.n_tokens * hidden)
        if kind == "recurrent":
            mixed = self._recurrent(x)
        elif a.is_mla:
            mixed = self._latent_attention(x)
        else:
            mixed = self._attention(x, kind)
        rows = s.n_tokens
        if out_ids is not None:
            rows = s.n_outputs
            mixed = g.op(rows * hidden, mixed, out_ids)
            stream = g.op(rows * hidden, stream, out_ids)
        middle = g.op(rows * hidden, mixed, stream, inplace=True)
        x = self._norm(middle, rows * hidden)
        out = self._experts(x, rows) if is_expert else self._dense(x, rows, a.feed_forward_size)
        return g.op(rows * hidden, out, middle, inplace=True)

    def _attention(self, x: _Tensor, kind: str) -> _Tensor:
        a, s, g = self.a, self.s, self.g
        window = kind == "window"
        heads = (a.window_kv_heads if window else 0) or a.n_kv_heads
        size = (a.window_head_size if window else 0) or a.head_size
        v_size = (a.window_head_size if window else 0) or a.v_head_size
        n = s.n_tokens
        q_bytes, k_bytes = n * a.n_heads * size * _F32, n * heads * size * _F32
        v_bytes, o_bytes = n * heads * v_size * _F32, n * a.n_heads * v_size * _F32
        keys, values, mask = self.masks[kind]
        query, gate = g.op(q_bytes * (1 + a.gated_attention), x), None
        if a.gated_attention:
            both = query
            query = self._norm(both, q_bytes)
        query = g.op(q_bytes, query, self.positions)
        if self.rotate_k:
            query = g.op(q_bytes, self.rotate_k, query)

        def make_value() -> _Tensor:
            value = g.op(v_bytes, x)
            return g.op(v_bytes, self.rotate_v, value) if self.rotate_v else value

        # Models with window layers compute keys before values, the others after them.
        value = None if a.n_window_layers else make_value()
        key = g.op(k_bytes, x)
        key = g.op(k_bytes, key, self.positions)
        if self.rotate_k:
            key = g.op(k_bytes, self.rotate_k, key)
        value = value or make_value()
        if a.gated_attention:
            gate = g.op(q_bytes, both)
        g.op(0, key, keys)
        g.op(0, value, values)
        cells = s.n_kv_window if window else s.n_kv
        if s.flash_attention:
            per_cell = s.copy_k * heads * size + s.copy_v * heads * v_size
            out = g.op(o_bytes + cells * per_cell * _F16, query, mask)
        else:
            scores = g.op(a.n_heads * n * cells * _F32, query)
            scores = g.op(scores.size, scores, mask, inplace=True)
            out = g.op(o_bytes, scores)
            out = g.op(o_bytes, out)
        if self.rotate_v:
            out = g.op(o_bytes, self.rotate_v, out)
        if gate is not None:
            out = g.op(o_bytes, out, gate, inplace=True)
        return g.op(n * a.hidden_size * _F32, out)

    def _latent_attention(self, x: _Tensor) -> _Tensor:
        a, s, g = self.a, self.s, self.g
        n = s.n_tokens * _F32
        latent, rope, heads = a.kv_lora_rank, a.rope_head_size, a.n_heads
        keys, _, mask = self.masks["full"]
        query = self._norm(g.op(n * a.q_lora_rank, x), n * a.q_lora_rank) if a.q_lora_rank else x
        query = g.op(n * heads * a.head_size, query)
        # The head's two parts: one goes through the key matrix into latent space, one is rotated.
        absorbed = g.op(n * heads * latent, query)
        rotated = g.op(n * heads * rope, query, self.positions)
        query = g.op(n * heads * (latent + rope), absorbed, rotated)
        compressed = g.op(n * (latent + rope), x)
        normed = self._norm(compressed, n * latent)
        k_rope = g.op(n * rope, compressed, self.positions)
        value = normed
        key = g.op(n * (latent + rope), normed, k_rope)
        g.op(0, key, keys, value)
        if s.flash_attention:
            # Values are a view of the keys, so one copy serves both.
            copy = s.copy_k * s.n_kv * (latent + rope) * _F16
            out = g.op(n * heads * latent + copy, query, mask)
        else:
            # There is no transposed value cache; the latent part of the keys is transposed here.
            transposed = g.op(s.n_kv * latent * _F16)
            scores = g.op(n * heads * s.n_kv, query)
            scores = g.op(scores.size, scores, mask, inplace=True)
            out = g.op(n * heads * latent, transposed, scores)
        out = g.op(n * heads * a.v_head_size, out)
        out = g.op(n * heads * a.v_head_size, out)
        return g.op(n * a.hidden_size, out)

    def _recurrent(self, x: _Tensor) -> _Tensor:
        """Add a mixer, roughly: all its projections, and as much again for their convolution."""
        a, s, g = self.a, self.s, self.g
        wide = s.n_tokens * (a.recurrent_weights // a.hidden_size) * _F32
        projected = g.op(wide, x)
        mixed = g.op(wide, projected)
        return g.op(s.n_tokens * a.hidden_size * _F32, mixed)

    def _dense(self, x: _Tensor, rows: int, width: int) -> _Tensor:
        a, g = self.a, self.g
        wide = rows * width * _F32
        if a.gated:
            gate = g.op(wide, x)
            up = g.op(wide, x)
            inner = g.op(wide, gate, up)
        else:
            inner = g.op(wide, x)
            inner = g.op(wide, inner, inplace=True)
        return g.op(rows * a.hidden_size * _F32, inner)

    def _experts(self, x: _Tensor, rows: int) -> _Tensor:
        a, g = self.a, self.g
        hidden = rows * a.hidden_size * _F32
        used = a.n_experts_used
        logits = g.op(rows * a.n_experts * _F32, x)
        chosen = g.op(rows * a.n_experts * _I32, logits)
        weights = g.op(rows * used * _F32, logits, chosen)
        wide = rows * used * a.expert_feed_forward_size * _F32
        up = g.op(wide, x, chosen)
        gate = g.op(wide, x, chosen)
        inner = g.op(wide, gate, up)
        down = g.op(used * hidden, inner, chosen)
        down = g.op(used * hidden, down, weights, inplace=True)
        out = g.op(hidden, down)
        if a.shared_feed_forward_size:
            shared = self._dense(x, rows, a.shared_feed_forward_size)
            out = g.op(hidden, out, shared, inplace=True)
        return out


def _layer_plan(a: Architecture) -> Sequence[tuple[str, bool]]:
    """Return a short stack of layers that reaches the same peak as the whole model.

    Kind of attention and whether the feed-forward network is one of experts, in the model's
    order. Which kind comes last matters: a mask is freed after its last use.
    """
    kinds = ["full"] * min(a.n_full_layers, 2)
    if 0 < a.n_full_layers < a.n_layers:
        # Of every so many layers the last sees the whole context (load_swa_pattern and others).
        interval = a.n_layers // a.n_full_layers
        other = "window" if a.n_window_layers else "recurrent"
        others = [other] * min(interval - 1, 2)
        kinds = [*others, "full"] * 2 + others[: a.n_layers % interval]
    elif not a.n_full_layers:
        kinds = ["window" if a.n_window_layers else "recurrent"] * 2
    plan = [(kind, a.is_moe) for kind in kinds]
    if a.is_moe and a.n_dense_layers:
        plan.insert(0, (kinds[0], False))
    return plan
