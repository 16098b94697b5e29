"""The tools that run models locally: whether they are here, and what to type to use them.

Sources of the commands: docs.ollama.com, lmstudio.ai/docs/cli, docs.vllm.ai, docs.docker.com,
docs/install.md of llama.cpp, the package index.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from guidebook.doctor.facts import Facts
from guidebook.doctor.probe import Output, Probe

VersionOf = Callable[[str], str | None]

_NUMBER = re.compile(r"(\d+\.\d+[\w.+-]*)")
_DOCKER_VERSION = re.compile(r'"Version": *"v?([^"]+)"')
_LLAMA_CPP_BUILD = re.compile(r"version: (\d+)")
_WINDOWS_PROGRAMS = "/mnt/*/Users/*/AppData/Local/Programs"


@dataclass(frozen=True)
class Tool:
    """A tool that runs models.

    Attributes
    ----------
    name
        As its makers write it.
    installed
        Whether it is here.
    version
        ``None`` if it is not here, or does not say.
    start
        The command that starts its server, or a phrase where there is no server.
    install
        The command that installs it on this system.
    on_windows
        In WSL: what to know about it on Windows, where it runs as well; empty otherwise.
    """

    name: str
    installed: bool
    version: str | None
    start: str
    install: str
    on_windows: str = ""

    @property
    def next_step(self) -> str:
        """What to type to use it."""
        return self.start if self.installed else self.install


def look(probe: Probe, facts: Facts, version_of: VersionOf) -> tuple[Tool, ...]:
    """Look for each tool.

    Parameters
    ----------
    probe
        The machine.
    facts
        Which system it is.
    version_of
        The version of a package of this Python, by its name on the package index; None if it is
        not installed.
    """
    lms = _lms_commands(probe)
    for command in (_OLLAMA, _LLAMA_SERVER, *lms):
        probe.begin(command)
    tools = [
        _ollama(probe, facts),
        _lm_studio(probe, facts, lms),
        _package(
            "llama-cpp-python",
            version_of,
            "python -m llama_cpp.server --model FILE.gguf --interrupt_requests False",
            "pip install 'llama-cpp-python[server]'",
        ),
        _llama_cpp(probe, facts),
        _package(
            "transformers",
            version_of,
            "in Python, without a server",
            "pip install transformers torch",
        ),
    ]
    if facts.is_linux:
        start, install = "vllm serve MODEL", "pip install vllm, in an environment of its own"
        tools.append(_package("vllm", version_of, start, install, name="vLLM"))
    if facts.os == "macos-arm":
        start = "mlx_lm.server --model MODEL"
        tools.append(_package("mlx-lm", version_of, start, "pip install mlx-lm", name="MLX LM"))
    return (*tools, _docker(probe, facts))


_OLLAMA = ("ollama", "--version")
_LLAMA_SERVER = ("llama-server", "--version")
# Where the docker command looks for the part that runs models. That part is asked itself, because
# many a `docker model` command installs and starts the runner if there is none yet.
_DOCKER_PLACES = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/Applications/Docker.app/Contents/Resources/cli-plugins",
)


def _lms_commands(probe: Probe) -> tuple[tuple[str, ...], ...]:
    home = probe.platform().home
    # The program lies in the user's folder before `lms bootstrap` puts it on the path.
    places = ("lms", f"{home}/.lmstudio/bin/lms", f"{home}/.cache/lm-studio/bin/lms")
    return tuple((place, "version") for place in places)


def _ollama(probe: Probe, facts: Facts) -> Tool:
    output = probe.run(_OLLAMA)
    has_app = facts.is_mac and probe.exists("/Applications/Ollama.app")
    install = {
        True: "brew install ollama, or ollama.com/download",
        False: "curl -fsSL https://ollama.com/install.sh | sh",
    }[facts.is_mac]
    return Tool(
        "Ollama",
        output.status != "missing" or has_app,
        _number(output),
        "open -a Ollama" if has_app else "ollama serve",
        "ollama.com/download" if facts.os == "windows" else install,
        _on_windows(probe, facts, "Ollama/ollama.exe", "winget install Ollama.Ollama"),
    )


def _lm_studio(probe: Probe, facts: Facts, commands: tuple[tuple[str, ...], ...]) -> Tool:
    found = [probe.run(command) for command in commands]
    output = next((one for one in found if one.status != "missing"), Output("missing"))
    has_app = facts.is_mac and probe.exists("/Applications/LM Studio.app")
    return Tool(
        "LM Studio",
        output.status != "missing" or has_app,
        _number(output),
        "lms server start, or in the app: Developer, Start server",
        "lmstudio.ai/download"
        if facts.is_mac or facts.os == "windows"
        else "curl -fsSL https://lmstudio.ai/install.sh | bash",
        _on_windows(probe, facts, "LM Studio/LM Studio.exe", "lmstudio.ai/download"),
    )


def _llama_cpp(probe: Probe, facts: Facts) -> Tool:
    output = probe.run(_LLAMA_SERVER)
    build = _LLAMA_CPP_BUILD.search(output.both)
    return Tool(
        "llama.cpp",
        output.status != "missing",
        f"b{build[1]}" if build else None,
        "llama-server -m FILE.gguf",
        "winget install llama.cpp" if facts.os == "windows" else "brew install llama.cpp",
    )


def _docker(probe: Probe, facts: Facts) -> Tool:
    places = [f"{place}/docker-model" for place in _DOCKER_PLACES]
    path = next((found for place in places if (found := probe.resolve(place))), None)
    version = None
    if path is not None:
        version = _number(probe.run((path, "docker-cli-plugin-metadata")), _DOCKER_VERSION)
    has_desktop = facts.os != "linux"
    return Tool(
        "Docker Model Runner",
        path is not None,
        version,
        "docker desktop enable model-runner --tcp 12434"
        if has_desktop
        else "docker model run MODEL",
        "docker.com, Docker Desktop" if has_desktop else "sudo apt-get install docker-model-plugin",
    )


def _package(package: str, version_of: VersionOf, start: str, install: str, name: str = "") -> Tool:
    version = version_of(package)
    return Tool(name or package, version is not None, version, start, install)


def _on_windows(probe: Probe, facts: Facts, program: str, install: str) -> str:
    if not facts.in_wsl:
        return ""
    return "installed" if probe.glob(f"{_WINDOWS_PROGRAMS}/{program}") else install


def _number(output: Output, pattern: re.Pattern[str] = _NUMBER) -> str | None:
    # Programs that find no server of theirs say so first, and still tell their version.
    found = pattern.search(output.both)
    return found[1] if found else None
