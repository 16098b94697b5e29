"""Checks of PyTorch: it computes, and on the GPU that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from guidebook.doctor import environment, fixes, installed, torch_builds
from guidebook.doctor.facts import Facts
from guidebook.doctor.installed import CONDA_NAMES, Installed
from guidebook.doctor.model import (
    Check,
    Early,
    Evidence,
    Finding,
    Fix,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.nvidia import Version, version
from guidebook.doctor.probe import Output, Probe
from guidebook.doctor.torch_builds import dotted
from guidebook.doctor.trials import TORCH, last_words, said

PACKAGES = "libraries.packages"
_PLACES = {"cuda": "the NVIDIA GPU", "mps": "the Mac's GPU", "cpu": "the processor"}


def _torch(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.torch"
    _, packages = installed.ask(probe)
    if packages is not None and packages.version("torch") is None:
        return not_installed(check, "PyTorch")
    answer = probe.python(TORCH)
    found = said(answer)
    again = torch_again(environment.find(probe, facts), facts, packages)
    if "torch" not in found:
        if answer.status != "failed":
            return could_not_tell(check, "import torch", answer)
        summary = f"PyTorch cannot be imported: {last_words(answer)}"
        return Finding(check, "problem", summary, (evidence_of("import torch", answer),), fix=again)
    torch, product = found["torch"], found.get("product", {})
    seen = (_build(torch),)
    if product.get("right"):
        on = _PLACES[product["device"]] if not torch["hip"] else "an AMD GPU"
        return Finding(check, "ok", f"PyTorch {torch['version']} computes on {on}.", seen)
    if product.get("device") == "cpu":
        summary = f"PyTorch {torch['version']} does not compute: {_reason(answer)}"
        return Finding(check, "problem", summary, seen, fix=again)
    # What it cannot do on a GPU has checks of its own.
    return Finding(check, "ok", f"PyTorch {torch['version']} can be imported.", seen)


def _visible(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.visible-gpus"
    if not facts.has_nvidia:
        return Finding(check, "not applicable", "There is no NVIDIA GPU that answers.")
    text = probe.environment("CUDA_VISIBLE_DEVICES")
    if text is None:
        return Finding(check, "ok", "CUDA_VISIBLE_DEVICES is not set: programs see every GPU.")
    seen = (Evidence("$CUDA_VISIBLE_DEVICES", text or "(empty)"),)
    if text.strip() in ("", "-1", "NoDevFiles"):
        found = environment.find(probe, facts)
        command = "Remove-Item Env:CUDA_VISIBLE_DEVICES"
        fix = Fix(
            "Unset it, and look where it is set.",
            (command if found.windows else "unset CUDA_VISIBLE_DEVICES",),
            found.shell,
        )
        summary = "CUDA_VISIBLE_DEVICES hides every GPU from programs."
        return Finding(check, "problem", summary, seen, fix=fix)
    return Finding(check, "ok", f"CUDA_VISIBLE_DEVICES lets programs see: {text}.", seen)


def _torch_build(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.torch-build"
    first = _for_gpu(check, probe, facts)
    if isinstance(first, Finding):
        return first
    if first["cuda"]:
        summary = f"PyTorch {first['version']} is built for CUDA {first['cuda']}."
        return Finding(check, "ok", summary, (_build(first),))
    gpu = facts.gpus[0].name
    summary = (
        f"PyTorch {first['version']} is built for the processor only: it never uses the {gpu}."
    )
    if first["hip"]:
        summary = f"PyTorch {first['version']} is built for AMD GPUs: it never uses the {gpu}."
    return _wrong_build(check, summary, probe, facts, first)


def _torch_driver(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.torch-driver"
    first = _for_gpu(check, probe, facts)
    if isinstance(first, Finding):
        return first
    built, driver = version(first["cuda"]), facts.cuda_version
    if built is None or driver is None:
        return Finding(check, "could not tell", "The driver's highest CUDA version is not known.")
    seen = (_build(first), Evidence(facts.smi, f"driver {facts.driver}, CUDA {facts.cuda}"))
    if not torch_builds.suits_driver(built, driver):
        summary = (
            f"PyTorch {first['version']} needs a driver for CUDA {built[0]}; "
            f"driver {facts.driver} supports up to {facts.cuda}."
        )
        return _wrong_build(check, summary, probe, facts, first, seen)
    summary = f"Driver {facts.driver} (CUDA {facts.cuda}) runs PyTorch's CUDA {first['cuda']}."
    return Finding(check, "ok", summary, seen)


def _torch_capability(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.torch-capability"
    first = _for_gpu(check, probe, facts)
    if isinstance(first, Finding):
        return first
    seen = (
        Evidence("torch.cuda.get_arch_list()", " ".join(first["architectures"]) or "(nothing)"),
    )
    code, portable = _architectures(first["architectures"])
    if not code and not portable:
        return Finding(check, "could not tell", "PyTorch does not say what it is built for.", seen)
    for gpu in facts.gpus:
        wanted = gpu.compute_capability
        if wanted is None or torch_builds.covers(code, wanted):
            continue
        if any(one <= wanted for one in portable):
            continue
        summary = (
            f"The {gpu.name} has compute capability {dotted(wanted)}; "
            f"PyTorch {first['version']} has code for {dotted(min(code))} to {dotted(max(code))}."
        )
        return _wrong_build(check, summary, probe, facts, first, seen)
    known = [dotted(gpu.compute_capability) for gpu in facts.gpus if gpu.compute_capability]
    if not known:
        return Finding(check, "could not tell", "The GPU's compute capability is not known.", seen)
    summary = f"PyTorch {first['version']} has code for compute capability {', '.join(known)}."
    return Finding(check, "ok", summary, seen)


def _torch_gpu(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.torch-gpu"
    first = _for_gpu(check, probe, facts)
    if isinstance(first, Finding):
        return first
    answer = probe.python(TORCH)
    product = said(answer).get("product", {})
    if not first["available"]:
        words = "; ".join(first["warnings"]) or "torch.cuda.is_available() is False"
        return Finding(
            check,
            "problem",
            "nvidia-smi shows the GPU, but PyTorch does not find it.",
            (quote("torch.cuda.is_available()", words), _build(first)),
            fix=Fix("Restart the computer: after an update the old driver may still be loaded."),
        )
    if product.get("right"):
        names = ", ".join(name for name, _ in first["devices"])
        return Finding(check, "ok", f"PyTorch computes on: {names}.", (_build(first),))
    if not product and answer.status == "timed out":
        return could_not_tell(check, "a product on the GPU", answer)
    summary = f"PyTorch finds the GPU, but does not compute on it: {_reason(answer)}"
    fix = Fix(
        "Look whether its memory is full (nvidia-smi), then restart the computer.", ("nvidia-smi",)
    )
    return Finding(check, "problem", summary, (evidence_of("torch", answer),), fix=fix)


def _mps(probe: Probe, facts: Facts) -> Finding:
    check = "libraries.mps"
    if not facts.is_mac:
        return Finding(check, "not applicable", "Metal exists on Macs only.")
    if facts.os == "macos-intel":
        return Finding(check, "not applicable", "PyTorch's Metal support is for Apple chips.")
    answer = probe.python(TORCH)
    found = said(answer)
    if "torch" not in found:
        return could_not_tell(check, "import torch", answer)
    torch = found["torch"]
    seen = (_build(torch),)
    if torch["mps"] and found.get("product", {}).get("right"):
        return Finding(check, "ok", "PyTorch computes on the Mac's GPU (Metal).", seen)
    if not torch["mps_built"]:
        summary = f"PyTorch {torch['version']} is built without Metal."
        fix = torch_again(environment.find(probe, facts), facts, None)
        return Finding(check, "problem", summary, seen, fix=fix)
    text = "Update macOS: PyTorch's Metal support needs version 14 or newer. It stays out of reach "
    text += "in a container or a virtual machine."
    summary = "PyTorch has Metal, but does not compute on the GPU."
    return Finding(check, "problem", summary, seen, fix=Fix(text, ("softwareupdate --list",)))


def _for_gpu(check: str, probe: Probe, facts: Facts) -> Mapping[str, Any] | Finding:
    """Return what PyTorch says of its build, where there is an NVIDIA GPU to compare it with."""
    if not facts.has_nvidia:
        return Finding(check, "not applicable", "There is no NVIDIA GPU that answers.")
    _, packages = installed.ask(probe)
    if packages is not None and packages.version("torch") is None:
        return not_installed(check, "PyTorch")
    answer = probe.python(TORCH)
    return said(answer).get("torch") or could_not_tell(check, "import torch", answer)


def _reason(answer: Output) -> str:
    """Return the first line of what went wrong with the product of two matrices."""
    product = said(answer).get("product")
    if product is None:
        return last_words(answer)
    return (str(product.get("error", "")).splitlines() or ["a wrong result"])[0]


def not_installed(check: str, name: str) -> Finding:
    """Say that a library is missing, which has a check of its own."""
    return Finding(check, "not applicable", f"{name} is not installed.", because=PACKAGES)


def _build(torch: Mapping[str, Any]) -> Evidence:
    kinds = {"CUDA": torch["cuda"], "ROCm": torch["hip"], "Metal": torch["mps_built"]}
    made = [f"{kind} {of if of is not True else ''}".strip() for kind, of in kinds.items() if of]
    text = f"{torch['version']}, built for {' and '.join(made) or 'the processor only'}"
    return Evidence("torch.version", text)


def _architectures(names: list[str]) -> tuple[list[Version], list[Version]]:
    """Split ``sm_86`` (machine code) from ``compute_90`` (code for that or any later GPU)."""
    found: dict[str, list[Version]] = {"sm": [], "compute": []}
    for name in names:
        if parts := re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name):
            found[parts[1]].append((int(parts[2]), int(parts[3])))
    return found["sm"], found["compute"]


def _wrong_build(
    check: str,
    summary: str,
    probe: Probe,
    facts: Facts,
    first: Mapping[str, Any],
    seen: tuple[Evidence, ...] = (),
) -> Finding:
    found = environment.find(probe, facts)
    _, packages = installed.ask(probe)
    fix = torch_again(found, facts, packages, first["version"])
    return Finding(check, "problem", summary, seen or (_build(first),), fix=fix)


def torch_again(
    found: environment.Environment, facts: Facts, packages: Installed | None, text: str = ""
) -> Fix:
    """Say how to install the build of PyTorch that suits this machine.

    Parameters
    ----------
    text
        The version that is installed, where it is known better than from the packages.
    """
    packages = packages or Installed()
    beside = [name for name in ("torchvision", "torchaudio") if packages.version(name)]
    wanted = torch_builds.install(facts, text or packages.version("torch") or "", beside)
    if wanted is None:
        return fixes.update_driver(facts, "No build of PyTorch suits this GPU with this driver.")
    what = "for the processor" if "+cpu" in wanted else "for this system"
    if facts.has_nvidia:
        what = f"for this GPU and driver (CUDA up to {facts.cuda})"
    fix = found.install(f"Install the build of PyTorch {what}.", f"install {wanted}")
    names = {name for name, *_ in packages.conda if CONDA_NAMES.get(name) == "torch"}
    if found.kind != "conda" or not names:
        return fix
    # conda's PyTorch ended with 2.5.1, and pip cannot take away what conda knows of it.
    first = [f"conda remove {found.option} --yes {' '.join(sorted(names))}"]
    if any(one.name == "torch" and one.installer != "conda" for one in packages.distributions):
        first.append(f"{found.pip} uninstall --yes torch")
    return replace(fix, commands=(*first, *fix.commands))


_TORCH = Early(TORCH)

CHECKS: tuple[Check, ...] = (
    Check(
        id="libraries.torch",
        title="PyTorch",
        group="libraries",
        why="Part 4 of the book, transformers and bitsandbytes all compute with PyTorch.",
        run=_torch,
        explain="Imports torch in a process of its own, and multiplies two small matrices. An "
        "import that fails is a problem: the last line of the error is shown.",
        depends_on=("python.architecture", "python.conda-and-pip"),
        early=(_TORCH,),
    ),
    Check(
        id="libraries.visible-gpus",
        title="Programs may see the GPU",
        group="libraries",
        why="One variable hides GPUs from every program that uses CUDA, without a message.",
        run=_visible,
        explain="Reads CUDA_VISIBLE_DEVICES. Empty or -1 hides every GPU; numbers or names let "
        "programs see those only.",
    ),
    Check(
        id="libraries.torch-build",
        title="PyTorch is built for the GPU",
        group="libraries",
        why="A build for the processor runs without any error, 10 to 100 times slower.",
        run=_torch_build,
        explain="Where an NVIDIA GPU answers, torch.version.cuda must name a CUDA version. `pip "
        "install torch` on Windows gives the build for the processor, and so does the index "
        "whl/cpu. The index in the fix is that of the newest CUDA version that the driver supports "
        "and this release is built for.",
        depends_on=("libraries.torch",),
        early=(_TORCH,),
    ),
    Check(
        id="libraries.torch-driver",
        title="PyTorch's CUDA and the driver",
        group="libraries",
        why="A driver runs programs for its own CUDA version and older ones, not for a newer "
        "major one.",
        run=_torch_driver,
        explain="Compares torch.version.cuda with the highest CUDA version of the driver. Within "
        "one major version any driver will do (NVIDIA's minor version compatibility); "
        "PyTorch brings its own CUDA libraries, so the toolkit does not matter here.",
        depends_on=("libraries.torch-build",),
        early=(_TORCH,),
    ),
    Check(
        id="libraries.torch-capability",
        title="PyTorch has code for this GPU",
        group="libraries",
        why="Without machine code for the GPU the first operation fails: "
        "no kernel image is available for execution on the device.",
        run=_torch_capability,
        explain="Compares the GPU's compute capability with torch.cuda.get_arch_list(). Code for "
        "8.6 (sm_86) runs on 8.6 and 8.9, not on 9.0; portable code (compute_90) runs on "
        "anything later. RTX 50 cards (12.0) need a build for CUDA 12.8 or newer; cards "
        "before Turing (7.5) need one for CUDA 12.6, which ends with PyTorch 2.14.",
        depends_on=("libraries.torch-build",),
        early=(_TORCH,),
    ),
    Check(
        id="libraries.torch-gpu",
        title="PyTorch computes on the GPU",
        group="libraries",
        why="Only a computation shows that driver, build and GPU work together.",
        run=_torch_gpu,
        explain="Multiplies two small matrices on the GPU in a process of its own.",
        depends_on=(
            "libraries.visible-gpus",
            "libraries.torch-driver",
            "libraries.torch-capability",
        ),
        early=(_TORCH,),
    ),
    Check(
        id="libraries.mps",
        title="PyTorch reaches the Mac's GPU",
        group="libraries",
        why="On an Apple chip the GPU computes several times faster than the processor.",
        run=_mps,
        explain="On an Apple chip, asks torch.backends.mps whether it is built and available, and "
        "multiplies two small matrices there.",
        depends_on=("libraries.torch",),
        early=(_TORCH,),
    ),
)
