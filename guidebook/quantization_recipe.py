"""Which tensor type each matrix gets in a file of a given type: llama.cpp's own recipe.

Source: ``llama_tensor_get_type_impl`` and ``tensor_type_fallback`` of llama.cpp's
src/llama-quant.cpp (as in llama-cpp-python 0.3.36), told here category by category.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from guidebook.catalog import quantizations

Category = Literal[
    "embedding",
    "output",
    "attention_q",
    "attention_k",
    "attention_v",
    "attention_output",
    "feed_forward_gate",
    "feed_forward_up",
    "feed_forward_down",
    "other",
    "unquantized",
]

# What a type with blocks of 256 is replaced by where a row doesn't fill such blocks.
_FALLBACK = {
    "IQ1_S": "IQ4_NL",
    "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL",
    "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q2_0": "Q4_0",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
# File types below three bits have rules of their own.
_TINY = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
_LARGER_TINY = frozenset({"IQ2_S", "IQ2_M"})
_EMBEDDING = {
    "IQ1_S": "Q2_K",
    "IQ1_M": "Q2_K",
    "IQ2_XXS": "Q2_K",
    "IQ2_XS": "Q2_K",
    "IQ2_S": "IQ3_S",
    "IQ2_M": "IQ3_S",
    "IQ3_XXS": "IQ3_S",
    "TQ1_0": "Q4_K",
    "TQ2_0": "Q4_K",
    "Q2_0": "Q4_K",
}
_ATTENTION_OUTPUT = {
    "Q2_K": "Q3_K",
    "IQ3_XXS": "IQ3_S",
    "Q3_K_M": "Q4_K",
    "Q3_K_L": "Q5_K",
    "IQ3_M": "Q4_K",
}
_ATTENTION_OUTPUT_OF_EIGHT_EXPERTS = frozenset(
    {
        *("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"),
        *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    }
)


@dataclass(frozen=True)
class Recipe:
    """A file type applied to one model.

    Attributes
    ----------
    file_type
        For example ``Q4_K_M``.
    family
        As GGUF names it.
    n_layers, n_experts
        Of the model.
    n_queries_per_kv
        Query heads that share one key/value head.
    tied_embeddings
        The output matrix is the embedding table.
    imatrix
        Quantized with an importance matrix; some rules are stricter without.
    """

    file_type: quantizations.FileType
    family: str
    n_layers: int
    n_experts: int
    n_queries_per_kv: int
    tied_embeddings: bool
    imatrix: bool

    def tensor_type(
        self,
        category: Category,
        columns: int,
        *,
        stacked: bool = False,
        layer: int = 0,
        rank: int = 0,
        count: int = 1,
    ) -> quantizations.TensorType:
        """Return the type of one matrix.

        Parameters
        ----------
        category
            What it is for; ``"unquantized"`` for norms, routers and other small tensors.
        columns
            Inputs of the matrix: each row must fill whole blocks.
        stacked
            Several matrices in one tensor, as experts are.
        layer
            Number of its layer.
        rank, count
            Its place among the tensors of its category in the file's order, and how many there
            are. Not the layer's number where some layers have none, or two.
        """
        if category == "unquantized":
            return quantizations.tensor_type("F32")
        base = quantizations.tensor_type(self.file_type.base_type)
        if not base.is_quantized:
            return base
        name = self.file_type.name
        if category == "output" or (category == "embedding" and self.tied_embeddings):
            wanted = self._output(columns)
        elif name == "MXFP4_MOE":
            wanted = "MXFP4" if stacked else "Q8_0"
        elif category == "embedding":
            wanted = _EMBEDDING.get(name, base.name)
        elif name in _TINY:
            wanted = self._tiny(category, rank)
        else:
            wanted = self._usual(category, layer, rank, count)
        return _fitting(wanted, columns)

    def _usual(self, category: Category, layer: int, rank: int, count: int) -> str:
        name, base = self.file_type.name, self.file_type.base_type
        # In files with experts, llama.cpp counts feed-forward matrices by their layer.
        index = layer if self.n_experts > 1 else rank
        match category:
            case "attention_v":
                return self._attention_v(rank, count)
            case "attention_k" if self.n_experts == 8:
                return "Q8_0"
            case "attention_q" | "attention_k":
                return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(name, base)
            case "feed_forward_down":
                return self._feed_forward_down(index)
            case "attention_output":
                return self._attention_output()
            case "feed_forward_gate" | "feed_forward_up" if name == "IQ3_XS":
                inner = self.n_layers // 8 <= index < 7 * self.n_layers // 8
                return "IQ3_XXS" if inner else base
        return base

    def _output(self, columns: int) -> str:
        base = quantizations.tensor_type(self.file_type.base_type)
        ragged = columns % base.block_weights != 0
        if self.file_type.name == "MXFP4_MOE" or self.family == "falcon" or ragged:
            return "Q8_0"
        if self.file_type.name in _TINY | {"IQ3_XXS"}:
            return "Q5_K"
        return "Q8_0" if base.name == "Q8_0" else "Q6_K"

    def _tiny(self, category: Category, index: int) -> str:
        name, base = self.file_type.name, self.file_type.base_type
        better = "IQ3_S" if name in _LARGER_TINY else "Q2_K"
        match category:
            case "attention_v":
                spared = self.n_queries_per_kv >= 4 or self.n_experts >= 4
                return "Q4_K" if spared else better
            case "attention_k" if self.n_experts == 8:
                return "Q4_K"
            case "feed_forward_down" if index < self.n_layers // 8:
                return better
            case "attention_output" if self.n_experts == 8:
                return "Q5_K"
            case "attention_output" if name in _LARGER_TINY:
                return "IQ3_S"
            case "attention_output" if name in {"IQ1_S", "IQ1_M"}:
                return "IQ2_XXS"
        return base

    def _attention_v(self, index: int, count: int) -> str:
        name, wanted = self.file_type.name, self.file_type.base_type
        shared = self.n_queries_per_kv >= 4
        match name:
            case "Q2_K":
                wanted = "Q4_K" if shared else "Q3_K"
            case "IQ3_XXS" if not shared and not self.imatrix:
                wanted = "IQ3_S"
            case "Q2_K_S" | "IQ3_XXS" | "IQ3_XS" | "IQ3_S" if shared:
                wanted = "Q4_K"
            case "IQ3_M":
                wanted = "Q4_K"
            case "Q3_K_M":
                wanted = "Q5_K" if index < 2 else "Q4_K"
            case "Q3_K_L":
                wanted = "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if shared:
                wanted = "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _more_bits(index, count):
                wanted = "Q6_K"
            case "Q4_K_S" if index < 4:
                wanted = "Q5_K"
        # llama.cpp calls these 70B: 80 layers, whose value matrices are an eighth of the queries'.
        is_70b = self.n_layers == 80 and (
            self.family == "qwen2" or (self.family == "llama" and self.n_queries_per_kv > 1)
        )
        if is_70b and wanted in {"Q3_K", "Q4_K"}:
            wanted = "Q5_K"
        return "Q8_0" if self.n_experts == 8 else wanted

    def _feed_forward_down(self, index: int) -> str:
        name, base = self.file_type.name, self.file_type.base_type
        more = _more_bits(index, self.n_layers)
        first_eighth = index < self.n_layers // 8
        first_sixteenth = index < self.n_layers // 16
        falcon = self.family == "falcon"
        match name:
            case "Q2_K":
                return "Q3_K"
            case "Q2_K_S" if first_eighth:
                return "Q4_K"
            case "IQ3_XXS" if not self.imatrix:
                return "Q4_K" if first_eighth else "Q3_K"
            case "Q3_K_M" if first_sixteenth:
                return "Q5_K"
            case "Q3_K_M" if more or not falcon:
                return "Q4_K"
            case "IQ3_M" if first_eighth or (self.n_experts == 8 and more):
                return "Q4_K"
            case "Q3_K_L":
                return "Q4_K" if falcon else "Q5_K"
            case "Q4_K_M" if falcon:
                return "Q6_K" if first_sixteenth else "Q5_K" if more else base
            case "Q4_K_M" | "Q5_K_M" if more:
                return "Q6_K"
            case "IQ4_NL" | "IQ4_XS" if first_eighth and not self.imatrix:
                return "Q5_K"
            case "Q4_K_S" if first_eighth and not falcon:
                return "Q5_K"
            case "Q4_0" | "Q5_0" if first_eighth and self.imatrix:
                return "Q4_1" if name == "Q4_0" else "Q5_1"
        return base

    def _attention_output(self) -> str:
        name, base = self.file_type.name, self.file_type.base_type
        if self.family == "falcon":
            return "Q4_K" if name == "Q3_K_L" else base
        if self.n_experts == 8:
            return "Q5_K" if name in _ATTENTION_OUTPUT_OF_EIGHT_EXPERTS else base
        return _ATTENTION_OUTPUT.get(name, base)


def _more_bits(index: int, count: int) -> bool:
    """Whether a layer is among those that get a better type: first, last and every third."""
    first = count // 8
    return index < first or index >= 7 * count // 8 or (index - first) % 3 == 2


def _fitting(name: str, columns: int) -> quantizations.TensorType:
    wanted = quantizations.tensor_type(name)
    if columns % wanted.block_weights == 0:
        return wanted
    smaller = quantizations.tensor_type(_FALLBACK.get(name, name))
    return smaller if columns % smaller.block_weights == 0 else quantizations.tensor_type("F16")
