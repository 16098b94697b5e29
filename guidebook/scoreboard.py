"""The planner and other tools on the same published measurements, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from guidebook import calibration, peers, units, weights
from guidebook.calibration import Check, Observation
from guidebook.catalog import models

_TABLES = {
    "llamacpp_scoreboards_llama2_7b_q4_0": "llama.cpp scoreboards",
    "llamacpp_4167_apple_llama2_7b": "llama.cpp #4167",
    "llamacpp_15396_gptoss": "llama.cpp #15396",
    "geerling_ollama_power": "geerlingguy/ai-benchmarks",
}
_PEERS = tuple(
    peer
    for peer in peers.PEERS
    if not (peer.decode is peers.not_estimated and peer.prefill is peers.not_estimated)
)


def summary(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Return mean absolute errors by table, backend and phase, the planner's first.

    The planner's are those of predictions for left-out devices. A peer's column is empty where it
    gives no estimate.
    """
    groups: dict[tuple[str, str, str, str], list[Check]] = {}
    for check in checks:
        o = check.observation
        kind = "experts" if o.architecture.is_moe else "dense"
        groups.setdefault((_TABLES[o.table], o.device.backend, o.phase, kind), []).append(check)
    return [
        {
            "measurements": table,
            "backend": backend,
            "what": f"{phase}, {kind}",
            "rows": str(len(members)),
            "planner": units.percent(calibration.mean_absolute_error(members)),
            **{peer.name: _error(peer, members) for peer in _PEERS},
        }
        for (table, backend, phase, kind), members in groups.items()
    ]


def devices(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Return one row per measurement: the speed, the prediction and its error."""
    return [
        {
            "device": check.observation.device.name,
            "backend": check.observation.device.backend,
            "model": f"{check.observation.model} {check.observation.quant}",
            "what": f"{check.observation.phase} {check.observation.n_tokens}",
            "measured": units.number(check.observation.tokens_per_second),
            "predicted": units.number(check.predicted),
            "error": f"{check.error:+.0%}",
            "measurements": _TABLES[check.observation.table],
        }
        for check in checks
    ]


def peer_case(o: Observation) -> peers.Case:
    """Return a measurement as the plain numbers that other tools ask for."""
    a = o.architecture
    account = weights.account(a, o.quant, o.weights_bytes)
    return peers.Case(
        n_weights=account.n_weights,
        n_active_weights=(models.find(o.model).n_active_weights if a.is_moe else account.n_weights),
        bits_per_weight=account.bits_per_weight,
        weights_bytes=account.total_bytes,
        n_layers=a.n_layers,
        n_kv_heads=a.n_kv_heads,
        head_size=a.head_size,
        n_vocab=a.n_vocab,
        context=max(512, o.n_tokens),
        depth=0,
        bandwidth=o.device.bandwidth,
        tensor_flops=o.device.tensor_flops,
        backend=o.device.backend,
        unified=o.device.kind == "unified",
        quant=o.quant,
        hidden_size=a.hidden_size,
        n_heads=a.n_heads,
        tied_embeddings=a.tied_embeddings,
        n_experts=a.n_experts,
        n_experts_used=a.n_experts_used,
        expert_feed_forward_size=a.expert_feed_forward_size,
        shared_feed_forward_size=a.shared_feed_forward_size,
        family=a.name,
        mla_width=a.kv_lora_rank + a.rope_head_size,
    )


def _error(peer: peers.Peer, members: Sequence[Check]) -> str:
    errors = []
    for check in members:
        o = check.observation
        estimator = peer.decode if o.phase == "decode" else peer.prefill
        predicted = estimator(peer_case(o))
        if predicted is not None:
            errors.append(abs(predicted / o.tokens_per_second - 1))
    return units.percent(sum(errors) / len(errors)) if errors else "–"
