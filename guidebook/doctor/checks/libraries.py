"""Checks of the libraries: each is there, built for this machine, and really computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from guidebook.doctor import compatibility, environment, fixes, installed, torch_builds
from guidebook.doctor.checks import pytorch, toolkit
from guidebook.doctor.checks.pytorch import PACKAGES, not_installed
from guidebook.doctor.checks.room import hf_home
from guidebook.doctor.environment import Environment
from guidebook.doctor.facts import Facts
from guidebook.doctor.installed import Installed
from guidebook.doctor.model import (
    Check,
    Early,
    Evidence,
    Finding,
    Fix,
    Verdict,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.nvidia import version
from guidebook.doctor.probe import Probe
from guidebook.doctor.torch_builds import dotted
from guidebook.doctor.trials import FLASH_ATTENTION, LLAMA_CPP, TORCH, last_words, said

_ASKED = "importlib.metadata"
# What the chapters import.
NEEDED = (
    "torch",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "llama-cpp-python",
    "gguf",
    "safetensors",
    "huggingface-hub",
    "numpy",
)
OLDEST_TRANSFORMERS = (5,)
_REQUIREMENTS = "install -r requirements.txt -c constraints.txt"
# What a processor answers to code that was compiled for another one.
_ILLEGAL_INSTRUCTION = (-4, 132, 0xC000001D, -1073741795)
_GENERATIONS: Mapping[int, str] = {5: "Maxwell", 6: "Pascal"}
# A 4-bit product against the same product with the weights unpacked first.
_LARGEST_DEVIATION = 0.01
# Four bits lose about a tenth of a product of normally distributed numbers.
_LARGEST_LOSS = 0.2


def _packages(probe: Probe, facts: Facts) -> Finding:
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(PACKAGES, _ASKED, output)
    seen = (_versions(packages),)
    missing = [name for name in NEEDED if packages.version(name) is None]
    found = environment.find(probe, facts)
    if missing:
        summary = f"Not installed: {', '.join(missing)}."
        return Finding(PACKAGES, "problem", summary, seen, fix=_install_all(found, facts, missing))
    if packages.conflicts:
        lines = [
            f"{one.name} {one.version} wants {one.wanted}, found {one.have or 'none'}"
            for one in packages.conflicts
        ]
        return Finding(
            PACKAGES,
            "warning",
            f"Versions do not fit: {'; '.join(lines)}.",
            tuple(Evidence(_ASKED, line) for line in lines),
            fix=found.install("Install the versions that the book pins.", _REQUIREMENTS),
        )
    return Finding(PACKAGES, "ok", f"The book's {len(NEEDED)} libraries are installed.", seen)


def _transformers(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.transformers"
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, output)
    text = packages.version("transformers")
    if text is None:
        return not_installed(check, "transformers")
    seen = (Evidence(_ASKED, f"transformers {text}"),)
    if (version(text) or ()) < OLDEST_TRANSFORMERS:
        fix = environment.find(probe, facts).install("Install the book's version.", _REQUIREMENTS)
        summary = f"transformers {text} is older than the book's examples, which need 5."
        return Finding(check, "warning", summary, seen, fix=fix)
    return Finding(check, "ok", f"transformers {text}.", seen)


def _accelerate(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.accelerate"
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, output)
    text = packages.version("accelerate")
    if text is None:
        return not_installed(check, "accelerate")
    folder = f"{hf_home(probe)}/accelerate"
    for name in ("default_config.yaml", "default_config.json"):
        written = probe.read(f"{folder}/{name}")
        if written is not None:
            break
    else:
        summary = f"accelerate {text}; no configuration, so it decides at each start."
        return Finding(check, "ok", summary, (Evidence(folder, "no default_config.yaml"),))
    seen = (quote(f"{folder}/{name}", written),)
    wrong = _wrong_settings(_settings(written), facts)
    if wrong:
        summary = f"accelerate's configuration does not suit this machine: {'; '.join(wrong)}."
        fix = Fix(
            "Answer its questions again, or let it write a default.",
            (f"rm {folder}/{name}", "accelerate config default"),
        )
        return Finding(check, "warning", summary, seen, fix=fix)
    return Finding(check, "ok", f"accelerate {text}, with a configuration that fits.", seen)


def _bitsandbytes(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.bitsandbytes"
    _, packages = installed.ask(probe)
    text = (packages.version("bitsandbytes") if packages else None) or ""
    if packages is not None and not text:
        return not_installed(check, "bitsandbytes")
    least = compatibility.least_capability("bitsandbytes")
    if facts.capability is not None and facts.capability < least:
        summary = f"bitsandbytes needs compute capability {dotted(least)}; "
        summary += f"the GPU has {dotted(facts.capability)}."
        fix = Fix("Use GGUF files with llama.cpp instead: they run on this GPU.")
        return Finding(check, "problem", summary, fix=fix)
    answer = probe.python(TORCH)
    tried = said(answer).get("bitsandbytes")
    found = environment.find(probe, facts)
    if tried is None and answer.status != "failed":
        return could_not_tell(check, "import bitsandbytes", answer)
    if tried is None or "error" in tried:
        words = str(tried["error"]) if tried else last_words(answer)
        summary = f"bitsandbytes {text} cannot compute: {words.splitlines()[0]}"
        fix = found.install("Install its newest release.", "install --upgrade bitsandbytes")
        return Finding(check, "problem", summary, (quote("import bitsandbytes", words),), fix=fix)
    off, loss = tried["deviation"], tried["loss"]
    words = f"{off:.1e} off the product with unpacked weights, {loss:.1%} off the exact one"
    seen = (Evidence("a product with 4-bit weights", words),)
    if not (off < _LARGEST_DEVIATION and loss < _LARGEST_LOSS):
        summary = f"bitsandbytes {text} computes wrong: {max(off, loss):.2g} off."
        again = f"install --force-reinstall --no-deps bitsandbytes=={text}"
        return Finding(
            check, "problem", summary, seen, fix=found.install("Install it again.", again)
        )
    on = "processor" if tried["device"] == "cpu" else "GPU"
    summary = f"bitsandbytes {text} multiplies 4-bit weights on the {on}."
    return Finding(check, "ok", summary, seen)


def _llama_cpp(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.llama-cpp"
    _, packages = installed.ask(probe)
    text = (packages.version("llama-cpp-python") if packages else None) or ""
    if packages is not None and not text:
        return not_installed(check, "llama-cpp-python")
    answer = probe.python(LLAMA_CPP)
    tried = said(answer).get("llama_cpp")
    gpu = "CUDA" if facts.has_nvidia else "Metal" if facts.os == "macos-arm" else ""
    again = _llama_again(probe, facts, text, gpu)
    name = facts.gpus[0].name if facts.gpus else "Mac's GPU"
    if tried is None:
        if answer.status != "failed":
            return could_not_tell(check, "import llama_cpp", answer)
        summary = f"llama-cpp-python {text} cannot be imported: {last_words(answer)}"
        if answer.code in _ILLEGAL_INSTRUCTION:
            summary = f"llama-cpp-python {text} was compiled for another processor."
        seen = (evidence_of("import llama_cpp", answer),)
        return Finding(check, "problem", summary, seen, fix=again)
    words = f"{tried['gpu']}; parts: {', '.join(tried['parts']) or 'one'}"
    seen = (Evidence("llama_supports_gpu_offload()", words),)
    if tried["gpu"]:
        return Finding(check, "ok", f"llama-cpp-python {text} can use the GPU.", seen)
    if not gpu:
        summary = f"llama-cpp-python {text} runs on the processor; no GPU was found for it."
        return Finding(check, "ok", summary, seen)
    if gpu.lower() in tried["parts"]:
        summary = f"llama-cpp-python {text} has {gpu}, but does not find the {name}."
        fix = Fix("Look first at what the checks of the GPU and of PyTorch say.")
        return Finding(check, "problem", summary, seen, fix=fix)
    summary = f"llama-cpp-python {text} was built without {gpu}: "
    summary += f"it never uses the {name}, and does not say so."
    return Finding(check, "problem", summary, seen, fix=again)


def _flash_attention(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.flash-attention"
    listed, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, listed)
    text = packages.version("flash-attn")
    obstacle = _obstacle(facts)
    if text is None:
        if obstacle:
            summary = (
                f"FlashAttention-2 cannot work here: {obstacle}. PyTorch's own attention does."
            )
            return Finding(check, "not applicable", summary)
        compiler = toolkit.chosen(toolkit.find(probe)) if facts.is_linux else None
        how = "" if compiler else ", and cannot be compiled without nvcc"
        summary = f"flash-attn is not installed{how}; PyTorch's own attention does the same."
        return Finding(check, "ok", summary)
    answer = probe.python(FLASH_ATTENTION)
    tried = said(answer).get("flash_attention")
    seen = (evidence_of("import flash_attn", answer),)
    found = environment.find(probe, facts)
    remove = Fix(
        "Remove it. transformers then uses PyTorch's own attention "
        '(attn_implementation="sdpa"), which is the default.',
        (f"{found.pip} uninstall --yes flash-attn",),
        found.shell,
    )
    if obstacle:
        verdict: Verdict = "problem" if facts.has_nvidia else "warning"
        summary = f"flash-attn {text} is installed but cannot work here: {obstacle}."
        return Finding(check, verdict, summary, seen, fix=remove)
    if tried is None:
        if answer.status != "failed":
            return could_not_tell(check, "import flash_attn", answer)
        summary = f"flash-attn {text} does not fit PyTorch: {last_words(answer)}"
        return Finding(check, "problem", summary, seen, fix=_flash_again(found, text))
    if tried.get("computes"):
        return Finding(check, "ok", f"flash-attn {text} computes on the GPU.", seen)
    words = str(tried.get("error") or "a wrong result").splitlines()[0]
    return Finding(check, "problem", f"flash-attn does not compute: {words}", seen, fix=remove)


def _versions(packages: Installed) -> Evidence:
    named = [(name, packages.version(name)) for name in NEEDED]
    return Evidence(_ASKED, ", ".join(f"{name} {text or '–'}" for name, text in named))


def _install_all(found: Environment, facts: Facts, missing: list[str]) -> Fix:
    text = "In the book's folder, install what it pins."
    wanted = torch_builds.install(facts) if "torch" in missing else None
    if wanted is None or facts.is_mac:
        return found.install(text, _REQUIREMENTS)
    text += " PyTorch comes first, in the build for this machine."
    return found.install(text, f"install {wanted}", _REQUIREMENTS)


def _settings(text: str) -> dict[str, str]:
    """Read the plain settings of accelerate's file, YAML or JSON."""
    pairs = re.findall(r"""^\s*"?(\w+)"?\s*:\s*"?([^",\n{]+?)"?,?\s*$""", text, re.MULTILINE)
    return {name: value.strip().lower() for name, value in pairs}


def _wrong_settings(settings: Mapping[str, str], facts: Facts) -> list[str]:
    wrong = []
    gpus = len(facts.gpus)
    if settings.get("use_cpu") == "true" and gpus:
        wrong.append("it uses the processor, though there is a GPU")
    wanted = settings.get("num_processes", "")
    if settings.get("distributed_type") == "multi_gpu" and wanted.isdigit() and int(wanted) > gpus:
        wrong.append(f"it starts {wanted} processes on {gpus} GPU(s)")
    least = {"bf16": (8, 0), "fp8": (8, 9)}.get(settings.get("mixed_precision", ""))
    if least and facts.capability is not None and facts.capability < least:
        wrong.append(f"{settings['mixed_precision']} needs compute capability {dotted(least)}")
    return wrong


def _llama_again(probe: Probe, facts: Facts, text: str, gpu: str) -> Fix:
    """Say how to compile llama-cpp-python for the GPU of this machine."""
    pinned = f"llama-cpp-python=={text}" if text else "llama-cpp-python"
    fix = environment.find(probe, facts).install(
        "Compile it again, for this machine; it takes some minutes.",
        f"install --force-reinstall --no-cache-dir --no-deps {pinned}",
        cmake=f"-DGGML_{gpu.upper()}=on" if gpu else "",
    )
    if gpu != "CUDA" or not facts.is_linux:
        return fix
    compiler = toolkit.chosen(toolkit.find(probe))
    if compiler is None:
        first = fixes.install_toolkit(facts, "It is compiled with nvcc, which is missing.")
        return replace(
            first, text=f"{first.text} {fix.text}", commands=first.commands + fix.commands
        )
    if not compiler.on_path:
        *before, last = fix.commands
        return replace(fix, commands=(*before, f"CUDACXX={compiler.path} {last}"))
    return fix


def _flash_again(found: Environment, text: str) -> Fix:
    return found.install(
        "Compile it again against the PyTorch that is installed (10 minutes to 2 hours, with "
        "nvcc), or remove it: PyTorch's own attention does the same.",
        "install --force-reinstall --no-deps --no-cache-dir --no-build-isolation "
        f"flash-attn=={text}",
    )


def _obstacle(facts: Facts) -> str:
    """Say what keeps FlashAttention-2 from working; empty: nothing."""
    if facts.is_mac:
        return "Macs have no CUDA"
    if not facts.has_nvidia:
        return "it needs an NVIDIA GPU"
    least = compatibility.least_capability("flash-attn")
    gpu = next((one for one in facts.gpus if one.compute_capability == facts.capability), None)
    if gpu is None or facts.capability is None or facts.capability >= least:
        return ""
    generation = _GENERATIONS.get(facts.capability[0])
    if facts.capability[0] == 7:
        generation = "Turing" if facts.capability[1] == 5 else "Volta"
    return (
        f"the {gpu.name} has compute capability {dotted(facts.capability)}"
        f"{f' ({generation})' if generation else ''}, and it needs {dotted(least)}"
    )


_INSTALLED = Early(installed.CODE)

CHECKS: tuple[Check, ...] = (
    Check(
        id=PACKAGES,
        title="The book's libraries",
        group="libraries",
        why="A missing library ends a chapter at its first cell; versions that do not fit fail "
        "later, with errors that name something else.",
        run=_packages,
        explain="Reads the list of installed packages, and what each of the book's wants of the "
        "others (as `pip check` does). A missing one is a problem, one that gets another "
        "version than it wants a warning.",
        early=(_INSTALLED,),
    ),
    *pytorch.CHECKS,
    Check(
        id="libraries.transformers",
        title="transformers",
        group="libraries",
        why="Chapters load models as transformers 5 does; version 4 names some things differently.",
        run=_transformers,
        explain="Reads the version. Below 5 is a warning.",
        early=(_INSTALLED,),
    ),
    Check(
        id="libraries.accelerate",
        title="accelerate and its configuration",
        group="libraries",
        why="accelerate starts programs as its configuration says, also when the machine has "
        "changed.",
        run=_accelerate,
        explain="Looks for default_config.yaml in Hugging Face's folder. None is fine: accelerate "
        "then decides by itself. One that leaves a GPU unused, wants more GPUs than there "
        "are, or a number format that the GPU lacks is a warning.",
        early=(_INSTALLED,),
    ),
    Check(
        id="libraries.bitsandbytes",
        title="bitsandbytes computes with 4 bits",
        group="libraries",
        why="bitsandbytes can often be imported where its compiled part is missing or wrong.",
        run=_bitsandbytes,
        explain="Packs 64 × 64 random weights into 4 bits (NF4), multiplies with them, and "
        "compares with the product of the unpacked weights: more than 1 % off is a "
        "problem. It takes the GPU if PyTorch has one. NVIDIA GPUs need compute "
        "capability 6.0.",
        depends_on=("libraries.torch", "libraries.torch-gpu"),
        early=(Early(TORCH),),
    ),
    Check(
        id="libraries.llama-cpp",
        title="llama-cpp-python is built for the GPU",
        group="libraries",
        why="Built without CUDA or Metal it takes n_gpu_layers, ignores it, and runs on the "
        "processor.",
        run=_llama_cpp,
        explain="Imports llama_cpp in a process of its own and calls llama_supports_gpu_offload(). "
        "False is a problem where there is an NVIDIA GPU or an Apple chip. pip compiles for "
        "the processor unless CMAKE_ARGS says otherwise, and takes an earlier build from its "
        "cache unless --no-cache-dir forbids it. A build from another computer can end with "
        "an illegal instruction.",
        depends_on=("python.architecture", "libraries.visible-gpus"),
        early=(Early(LLAMA_CPP),),
    ),
    Check(
        id="libraries.flash-attention",
        title="flash-attn",
        group="libraries",
        why="transformers fails when asked for flash_attention_2 on a GPU that cannot do it; "
        "PyTorch's own attention works everywhere.",
        run=_flash_attention,
        explain="FlashAttention-2 needs an NVIDIA GPU of compute capability 8.0 (Ampere) or newer "
        "and fp16 or bf16; a T4 or RTX 20 (7.5, Turing) cannot run it. It comes as "
        "source: compiling needs nvcc. Where it is installed and could work, it computes "
        "a small attention. No chapter needs it: PyTorch's scaled_dot_product_attention "
        "has the same method built in.",
        depends_on=("libraries.torch", "libraries.torch-gpu"),
        early=(_INSTALLED, Early(FLASH_ATTENTION, lambda facts: facts.has_nvidia)),
    ),
)
