"""The CUDA toolkit: which one compiles here, and whether driver, GPU and compiler go with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidebook.doctor import compatibility, fixes, nvidia, packages
from guidebook.doctor.facts import Facts
from guidebook.doctor.model import (
    HERE,
    Check,
    Evidence,
    Finding,
    Fix,
    Verdict,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.nvidia import version
from guidebook.doctor.probe import Output, Probe

_NVCC = "toolkit.nvcc"
_PATHS = "toolkit.paths"
_PACKAGES = "toolkit.packages"
_DRIVER = "toolkit.driver"
_CAPABILITY = "toolkit.capability"
_COMPILER = "toolkit.compiler"
_COMPILE = "toolkit.compile"

_VERSION_SECONDS = 2.0
_COMPILE_SECONDS = 6.0
_FILE = "device.cu"

# The guide's deviceQuery, small: it computes something, and says on what.
DEVICE_QUERY = r"""
#include <cstdio>
__global__ void add(const float *a, const float *b, float *c) {
  c[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}
static int failed(cudaError_t error, const char *step) {
  if (error == cudaSuccess) return 0;
  printf("%s: %s\n", step, cudaGetErrorString(error));
  return 1;
}
int main() {
  int count = 0, driver = 0, runtime = 0;
  if (failed(cudaGetDeviceCount(&count), "cudaGetDeviceCount")) return 2;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  for (int i = 0; i < count; i++) {
    cudaDeviceProp p;
    if (failed(cudaGetDeviceProperties(&p, i), "cudaGetDeviceProperties")) return 3;
    printf("device %d: %s, compute capability %d.%d, %d multiprocessors, %.1f GiB\n", i, p.name,
           p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem / 1073741824.0);
  }
  float *m;
  if (failed(cudaMallocManaged(&m, 96 * sizeof(float)), "cudaMallocManaged")) return 4;
  for (int i = 0; i < 32; i++) { m[i] = i; m[32 + i] = 2 * i; m[64 + i] = -1; }
  add<<<1, 32>>>(m, m + 32, m + 64);
  if (failed(cudaGetLastError(), "launch")) return 5;
  if (failed(cudaDeviceSynchronize(), "cudaDeviceSynchronize")) return 6;
  for (int i = 0; i < 32; i++)
    if (m[64 + i] != 3 * i) { printf("wrong sum\n"); return 7; }
  printf("32 sums are right; driver %d.%d, runtime %d.%d\n", driver / 1000, driver % 1000 / 10,
         runtime / 1000, runtime % 1000 / 10);
  return 0;
}
"""


@dataclass(frozen=True)
class Toolkit:
    """An nvcc, and what it says."""

    path: str
    version: str | None
    output: Output
    on_path: bool

    @property
    def folder(self) -> str:
        """The toolkit's own folder."""
        return self.path.removesuffix("/nvcc").removesuffix("/bin")


def find(probe: Probe) -> tuple[Toolkit, ...]:
    """Find the CUDA compilers, the one that a shell would start first.

    The same program under several names counts once.
    """
    folders = (probe.environment("PATH") or "").split(":")
    first = [f"{folder}/nvcc" for folder in folders if folder]
    others = [*probe.glob("/usr/local/cuda*/bin/nvcc"), *probe.glob("/opt/cuda*/bin/nvcc")]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := probe.environment(name):
            others.append(f"{home}/bin/nvcc")
    found: dict[str, Toolkit] = {}
    for number, path in enumerate((*first, *others)):
        real = probe.resolve(path)
        if real is None or real in found:
            continue
        output = probe.run((path, "--version"), time_limit=_VERSION_SECONDS)
        found[real] = Toolkit(
            path,
            nvidia.nvcc_version(output.text) if output.ok else None,
            output,
            number < len(first),
        )
    return tuple(found.values())


def chosen(toolkits: tuple[Toolkit, ...]) -> Toolkit | None:
    """Return the toolkit that a build would take."""
    return next((one for one in toolkits if one.version), None)


def _without(check: str, facts: Facts, toolkits: tuple[Toolkit, ...] = ()) -> Finding:
    if facts.is_mac:
        return Finding(check, "not applicable", "There is no CUDA on a Mac.")
    if toolkits:
        return Finding(check, "not applicable", "The CUDA compiler does not tell its version.")
    return Finding(check, "not applicable", "No CUDA toolkit is installed.")


def _windows(check: str) -> Finding:
    return Finding(check, "not applicable", "The toolkit is looked at on Linux only.")


def _nvcc(probe: Probe, facts: Facts) -> Finding:
    if facts.is_mac:
        return _without(_NVCC, facts)
    if not facts.is_linux:
        return _windows(_NVCC)
    toolkits = find(probe)
    best = chosen(toolkits)
    if best is None:
        if toolkits:
            return could_not_tell(_NVCC, f"{toolkits[0].path} --version", toolkits[0].output)
        summary = "No CUDA toolkit is installed; only programs that are compiled here need one."
        fix = None
        if facts.has_nvidia:
            fix = fixes.install_toolkit(facts, "To compile llama.cpp or flash-attn here:")
        return Finding(_NVCC, "not applicable", summary, fix=fix)
    others = [one.version for one in toolkits if one.version and one.version != best.version]
    more = f"; also installed: {', '.join(others)}" if others else ""
    idle = "" if facts.has_nvidia else ", though no NVIDIA GPU answers"
    return Finding(
        _NVCC,
        "ok",
        f"nvcc of CUDA {best.version} is installed{idle}{more}.",
        tuple(evidence_of(f"{one.path} --version", one.output) for one in toolkits),
    )


def _paths(probe: Probe, facts: Facts) -> Finding:
    if not facts.is_linux:
        return _without(_PATHS, facts) if facts.is_mac else _windows(_PATHS)
    toolkits = find(probe)
    best = chosen(toolkits)
    libraries = [one for one in (probe.environment("LD_LIBRARY_PATH") or "").split(":") if one]
    stubs = [one for one in libraries if one.rstrip("/").endswith("/stubs")]
    if stubs:
        return Finding(
            _PATHS,
            "problem",
            "LD_LIBRARY_PATH holds a folder 'stubs': programs load an empty libcuda from there.",
            (Evidence("LD_LIBRARY_PATH", ":".join(libraries)),),
            fix=Fix(
                "Delete that folder from the line in ~/.bashrc that sets it, and open a new shell.",
                ("grep -n LD_LIBRARY_PATH ~/.bashrc ~/.profile", "nano ~/.bashrc"),
                HERE,
            ),
        )
    if best is None:
        return _without(_PATHS, facts, toolkits)
    if not best.on_path:
        return Finding(
            _PATHS,
            "warning",
            f"CUDA {best.version} is in {best.folder}, but its nvcc is not on the search path.",
            (Evidence("PATH", probe.environment("PATH") or "(empty)"),),
            fix=Fix("Add it.", fixes.add_to_path(best.folder), HERE),
        )
    differing = [one for one in libraries if _named(one) not in (None, best.version)]
    if differing:
        return Finding(
            _PATHS,
            "warning",
            f"nvcc is CUDA {best.version}, but LD_LIBRARY_PATH names CUDA {_named(differing[0])}.",
            (Evidence("LD_LIBRARY_PATH", ":".join(libraries)), Evidence("nvcc", best.path)),
            fix=Fix(
                "Let both name the same toolkit, in ~/.bashrc.",
                ("grep -n cuda ~/.bashrc ~/.profile", "nano ~/.bashrc"),
                HERE,
            ),
        )
    home = probe.environment("CUDA_HOME") or probe.environment("CUDA_PATH")
    if home and not probe.exists(f"{home}/bin/nvcc"):
        return Finding(
            _PATHS,
            "warning",
            f"CUDA_HOME is {home}, where there is no nvcc.",
            (Evidence("CUDA_HOME", home), Evidence("nvcc", best.path)),
            fix=Fix(
                "Correct it in ~/.bashrc.",
                (f"echo 'export CUDA_HOME={best.folder}' >> ~/.bashrc", "source ~/.bashrc"),
                HERE,
            ),
        )
    return Finding(
        _PATHS, "ok", f"A shell finds nvcc of CUDA {best.version}.", (Evidence("nvcc", best.path),)
    )


def _named(folder: str) -> str | None:
    match = re.search(r"/cuda-(\d+\.\d+)(?:/|$)", folder)
    return match[1] if match else None


def _packages(probe: Probe, facts: Facts) -> Finding:
    if not facts.is_linux:
        return _without(_PACKAGES, facts) if facts.is_mac else _windows(_PACKAGES)
    listed = packages.ask(probe)
    if listed.status == "missing":
        return Finding(_PACKAGES, "not applicable", "This system has no Debian packages.")
    if not listed.ok:
        return could_not_tell(_PACKAGES, packages.COMMAND, listed)
    everything = packages.installed(listed)
    metas = packages.meta(everything)
    distribution = [one for one in everything if one.name == "nvidia-cuda-toolkit"]
    toolkit = packages.toolkit_version(everything)
    if metas and (facts.in_wsl or facts.container):
        names = " ".join(one.name for one in metas)
        keep = f"cuda-toolkit-{(toolkit or '13.0').replace('.', '-')}"
        return Finding(
            _PACKAGES,
            "problem" if facts.in_wsl else "warning",
            f"The meta-package {metas[0].name} is installed: it brings a driver, but that is the "
            f"{'host' if facts.container else 'Windows side'}'s.",
            (quote(packages.COMMAND, "\n".join(one.line for one in metas)),),
            fix=Fix(
                "Keep the toolkit and remove the rest.",
                (
                    f"sudo apt-get install {keep}",
                    f"sudo apt-get remove --purge {names}",
                    "sudo apt-get autoremove --purge",
                ),
                HERE,
            ),
        )
    if distribution and toolkit:
        return Finding(
            _PACKAGES,
            "warning",
            f"Two toolkits: the distribution's {distribution[0].version} and NVIDIA's {toolkit}.",
            (quote(packages.COMMAND, distribution[0].line),),
            fix=Fix(
                "Remove the distribution's, which is older and comes first on the search path.",
                ("sudo apt-get remove --purge nvidia-cuda-toolkit",),
                HERE,
            ),
        )
    found = [one.name for one in (*distribution, *metas)]
    found += [one.name for one in everything if one.name.startswith("cuda-toolkit-")]
    if not found:
        return Finding(_PACKAGES, "ok", "No package of the system brings a CUDA toolkit.")
    return Finding(_PACKAGES, "ok", f"CUDA comes from the packages {', '.join(found[:4])}.")


def _driver(probe: Probe, facts: Facts) -> Finding:
    toolkits = find(probe) if facts.is_linux else ()
    best = chosen(toolkits)
    if best is None or best.version is None:
        return _without(_DRIVER, facts, toolkits)
    supported = facts.cuda_version
    if not facts.has_nvidia:
        return Finding(_DRIVER, "not applicable", "No NVIDIA driver to compare the toolkit with.")
    if supported is None:
        return Finding(_DRIVER, "could not tell", "Which CUDA the driver supports is not known.")
    given = compatibility.as_version(best.version)
    evidence = (
        evidence_of(f"{best.path} --version", best.output),
        Evidence(facts.smi, f"driver {facts.driver}, CUDA up to {facts.cuda}"),
    )
    if given <= supported:
        return Finding(
            _DRIVER,
            "ok",
            f"The driver (CUDA {facts.cuda}) runs what CUDA {best.version} compiles.",
            evidence,
        )
    fitting = compatibility.toolkit_for(supported, facts.capability)
    least = compatibility.least_driver(best.version, windows=facts.in_wsl) or fixes.RECENT_DRIVER
    other = fixes.update_driver(facts, "Or keep the toolkit:", least).text
    fix = fixes.install_toolkit(
        facts, f"Install the toolkit that goes with this driver. {other}", fitting
    )
    if given[0] > supported[0]:
        return Finding(
            _DRIVER,
            "problem",
            f"The toolkit is newer than the driver: CUDA {best.version} against {facts.cuda}. "
            "What it compiles does not start.",
            evidence,
            fix=fix,
        )
    return Finding(
        _DRIVER,
        "warning",
        f"The toolkit is newer than the driver: CUDA {best.version} against {facts.cuda}. Compiled "
        "programs run only if they hold machine code for this GPU.",
        evidence,
        fix=fix,
    )


def _capability(probe: Probe, facts: Facts) -> Finding:
    toolkits = find(probe) if facts.is_linux else ()
    best = chosen(toolkits)
    if best is None or best.version is None:
        return _without(_CAPABILITY, facts, toolkits)
    lowest = facts.capability
    span = compatibility.toolkits(lowest)
    if lowest is None or span is None:
        what = "No NVIDIA GPU to compile for." if not facts.has_nvidia else ""
        return (
            Finding(_CAPABILITY, "not applicable", what)
            if what
            else Finding(
                _CAPABILITY, "could not tell", "The GPU's compute capability is not known."
            )
        )
    text = "{}.{}".format(*lowest)
    evidence = (evidence_of(f"{best.path} --version", best.output),)
    if compatibility.compiles(best.version, lowest):
        return Finding(
            _CAPABILITY,
            "ok",
            f"CUDA {best.version} compiles for compute capability {text}.",
            evidence,
        )
    first, last = span
    old = compatibility.as_version(best.version) < compatibility.as_version(first)
    need = f"{first} or newer" if old else f"{last} or older"
    return Finding(
        _CAPABILITY,
        "problem",
        f"CUDA {best.version} does not compile for compute capability {text}: that takes {need}.",
        evidence,
        fix=fixes.install_toolkit(facts, "Install a toolkit that knows this GPU."),
    )


def _compiler(probe: Probe, facts: Facts) -> Finding:
    toolkits = find(probe) if facts.is_linux else ()
    best = chosen(toolkits)
    if best is None or best.version is None:
        return _without(_COMPILER, facts, toolkits)
    flags = probe.environment("NVCC_PREPEND_FLAGS") or ""
    named = re.search(r"-(?:ccbin|-compiler-bindir)[ =](\S+)", flags)
    program = named[1] if named else probe.environment("NVCC_CCBIN") or "g++"
    output = probe.run((program, "--version"))
    command = f"{program} --version"
    severe: Verdict = "problem" if facts.has_nvidia else "warning"
    if output.status == "missing":
        return Finding(
            _COMPILER,
            severe,
            f"nvcc needs a C++ compiler, and there is no {program}.",
            (evidence_of(command, output),),
            fix=Fix("Install one.", ("sudo apt-get install -y build-essential",), HERE),
        )
    heading = output.text.splitlines()[0] if output.text else ""
    evidence = (Evidence(command, heading),)
    if output.ok and "clang" in heading.lower():
        return Finding(_COMPILER, "could not tell", f"The host compiler is {heading}.", evidence)
    numbers = version(re.sub(r"^.*?\)\s*", "", heading))
    if not output.ok or numbers is None:
        return could_not_tell(_COMPILER, command, output)
    newest = compatibility.newest_gcc(best.version)
    if newest is None:
        return Finding(
            _COMPILER,
            "could not tell",
            f"Which GCC CUDA {best.version} accepts is not known; this is {numbers[0]}.",
            evidence,
        )
    if numbers[0] > newest:
        return Finding(
            _COMPILER,
            severe,
            f"GCC {numbers[0]} is too new for CUDA {best.version}, which accepts up to {newest}.",
            evidence,
            fix=Fix(
                f"Install GCC {newest} beside it and let nvcc take that one.",
                (
                    f"sudo apt-get install -y g++-{newest}",
                    f"echo 'export NVCC_CCBIN=/usr/bin/g++-{newest}' >> ~/.bashrc",
                    "source ~/.bashrc",
                ),
                HERE,
            ),
        )
    return Finding(
        _COMPILER,
        "ok",
        f"GCC {numbers[0]} goes with CUDA {best.version}, which accepts up to {newest}.",
        evidence,
    )


def _compile(probe: Probe, facts: Facts) -> Finding:
    toolkits = find(probe) if facts.is_linux else ()
    best = chosen(toolkits)
    if best is None or best.version is None:
        return _without(_COMPILE, facts, toolkits)
    if not facts.has_nvidia:
        return Finding(_COMPILE, "not applicable", "No NVIDIA GPU to run a compiled program on.")
    output = probe.run(
        (best.path, "-run", _FILE), time_limit=_COMPILE_SECONDS, inputs={_FILE: DEVICE_QUERY}
    )
    command = f"nvcc -run {_FILE}"
    evidence = (evidence_of(command, output),)
    if output.ok:
        device = next((one for one in output.text.splitlines() if one.startswith("device ")), "")
        return Finding(
            _COMPILE, "ok", f"A CUDA program compiles and computes here: {device[10:]}.", evidence
        )
    if output.status != "failed":
        return could_not_tell(_COMPILE, command, output)
    said = output.both.lower()
    if "unsupported gnu version" in said:
        newest = compatibility.newest_gcc(best.version)
        summary = f"nvcc refuses the host compiler: too new for CUDA {best.version}."
        fix = Fix("Install an older one.", (f"sudo apt-get install -y g++-{newest or 13}",), HERE)
    elif "insufficient" in said or "unsupported toolchain" in said:
        summary = "A compiled program does not start: the driver is older than the toolkit."
        fix = fixes.update_driver(facts, "Update the driver.")
    elif "no kernel image" in said:
        summary = "A compiled program has no code for this GPU."
        fix = fixes.install_toolkit(facts, "Install a toolkit that knows this GPU.")
    elif "stub library" in said:
        summary = "A compiled program loads an empty libcuda."
        fix = Fix("Delete 'stubs' from LD_LIBRARY_PATH.", ("unset LD_LIBRARY_PATH",), HERE)
    else:
        summary = "A small CUDA program does not compile or run here."
        fix = Fix("Read what nvcc says, or install the toolkit again.", ("nvcc --version",), HERE)
    return Finding(_COMPILE, "problem", summary, evidence, fix=fix)


CHECKS = (
    Check(
        id=_NVCC,
        title="CUDA compiler",
        group="toolkit",
        why="Compiling llama.cpp for the GPU, or flash-attn, takes a toolkit; ready-made "
        "packages do not.",
        run=_nvcc,
        depends_on=("wsl.version",),
        explain="Looks for nvcc on the search path, in /usr/local/cuda*, in /opt/cuda* and in "
        "CUDA_HOME, and asks each for its version. "
        "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/",
    ),
    Check(
        id=_PATHS,
        title="Search paths for CUDA",
        group="toolkit",
        why="A build takes the first nvcc it finds, and a program the first library.",
        run=_paths,
        depends_on=("wsl.version",),
        explain="Reads PATH, LD_LIBRARY_PATH and CUDA_HOME. Looks for a toolkit that is "
        "installed but not on the path, for two versions at once, and for a folder "
        "'stubs', whose libcuda is empty.",
    ),
    Check(
        id=_PACKAGES,
        title="Packages of the toolkit",
        group="toolkit",
        why="The packages cuda and cuda-drivers bring a driver; inside WSL or a container it "
        "breaks the GPU.",
        run=_packages,
        depends_on=("wsl.version", "wsl.linux-driver"),
        explain="Looks in dpkg -l for NVIDIA's meta-packages and for the distribution's own "
        "toolkit. https://docs.nvidia.com/cuda/wsl-user-guide/",
    ),
    Check(
        id=_DRIVER,
        title="Toolkit and driver",
        group="toolkit",
        why="A program needs a driver that is at least as new as the toolkit that compiled it.",
        run=_driver,
        depends_on=(_NVCC, "gpu.nvidia-smi"),
        explain="Compares nvcc's version with the highest CUDA version that the driver supports. "
        "A newer major version does not start; a newer minor one mostly runs ('minor "
        "version compatibility'). https://docs.nvidia.com/deploy/cuda-compatibility/",
    ),
    Check(
        id=_CAPABILITY,
        title="Toolkit and GPU",
        group="toolkit",
        why="A toolkit compiles for the generations of GPUs that it knows.",
        run=_capability,
        depends_on=(_NVCC, "gpu.nvidia-smi"),
        explain="Looks up the first and the last toolkit for the GPU's compute capability: an "
        "RTX 50 takes 12.8 or newer, a GTX 10 takes 12.9 or older. "
        "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/",
    ),
    Check(
        id=_COMPILER,
        title="Host compiler",
        group="toolkit",
        why="nvcc hands half of its work to the system's C++ compiler and refuses one that is "
        "too new.",
        run=_compiler,
        depends_on=(_NVCC,),
        explain="Asks g++, or the compiler named in NVCC_PREPEND_FLAGS or NVCC_CCBIN, for its "
        "version and looks up the newest one that the toolkit accepts. "
        "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/#host-compiler-support-policy",
    ),
    Check(
        id=_COMPILE,
        title="Compile and run",
        group="toolkit",
        why="This is the proof: toolkit, compiler, driver and GPU work together.",
        run=_compile,
        depends_on=(_NVCC, _PATHS, _DRIVER, _CAPABILITY, _COMPILER, "gpu.nvidia-smi"),
        explain="Compiles a program of 40 lines with nvcc, runs it (it lists the devices and "
        "computes 32 sums on one), and removes it. It takes six seconds at most.",
    ),
)
