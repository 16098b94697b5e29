"""Commands that several fixes share, written for the system they are to be typed on."""

from __future__ import annotations

from guidebook.doctor import compatibility
from guidebook.doctor.facts import Facts
from guidebook.doctor.model import HERE, POWERSHELL, Fix

SHUTDOWN = "wsl --shutdown"
_REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos"
_KEYRING = "cuda-keyring_1.1-1_all.deb"
_DRIVERS = "https://www.nvidia.com/drivers"
# For packages that are built for CUDA 13, as most are now.
RECENT_DRIVER = "580"


def restart_wsl(text: str) -> Fix:
    """Say to do something to Windows' side of WSL and to restart it."""
    return Fix(text, ("wsl --update", SHUTDOWN), POWERSHELL)


def edit_wslconfig(*lines: str, text: str) -> Fix:
    """Say to write lines under ``[wsl2]`` in Windows' file .wslconfig."""
    wanted = ", ".join(lines)
    return Fix(
        f"{text} Under [wsl2] in the file that opens, write {wanted}; save, and restart WSL.",
        ('notepad "$env:USERPROFILE\\.wslconfig"', SHUTDOWN),
        POWERSHELL,
    )


def edit_wsl_conf(section: str, line: str, text: str) -> Fix:
    """Say to write a line in /etc/wsl.conf of this distribution."""
    return Fix(
        f"{text} Under [{section}] in the file that opens, write {line}; save, and restart WSL.",
        ("sudo nano /etc/wsl.conf", "wsl.exe --shutdown"),
        HERE,
    )


def update_driver(facts: Facts, reason: str, least: str = RECENT_DRIVER) -> Fix:
    """Say how to install an NVIDIA driver of at least a version on this system."""
    if facts.in_wsl or facts.os == "windows":
        return Fix(
            f"{reason} Install NVIDIA's driver {least} or newer for Windows, with the NVIDIA app "
            f"or from {_DRIVERS}; never a Linux driver inside WSL. Then restart WSL.",
            (SHUTDOWN,),
            POWERSHELL,
        )
    if facts.container:
        return Fix(
            f"{reason} The driver is the host's: install {least} or newer there.",
            where="the host of this container",
        )
    commands = {
        "ubuntu": ("sudo ubuntu-drivers install", "sudo reboot"),
        "linuxmint": ("sudo ubuntu-drivers install", "sudo reboot"),
        "pop": ("sudo apt-get install system76-driver-nvidia", "sudo reboot"),
        "debian": (
            "sudo apt-get install linux-headers-amd64 nvidia-driver firmware-misc-nonfree",
            "sudo reboot",
        ),
        "fedora": ("sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda", "sudo reboot"),
        "arch": ("sudo pacman -S nvidia-open", "sudo reboot"),
    }.get(facts.distribution or "", ())
    notes = {
        "debian": " (from Debian's section non-free)",
        "fedora": " (from the repository RPM Fusion)",
    }.get(facts.distribution or "", "" if commands else f" from {_DRIVERS}")
    return Fix(f"{reason} Install NVIDIA's driver {least} or newer{notes} and restart.", commands)


def install_toolkit(facts: Facts, text: str, version: str | None = None) -> Fix:
    """Say how to install a CUDA toolkit, and nothing else, on this system.

    Parameters
    ----------
    facts
        The machine.
    text
        Why, a sentence.
    version
        Such as ``12.8``; None: the newest that driver and GPU go with.
    """
    wanted = version or compatibility.toolkit_for(facts.cuda_version, facts.capability) or "13.0"
    repository = _repository(facts)
    if repository is None:
        return Fix(
            f"{text} Take CUDA {wanted} from https://developer.nvidia.com/cuda-toolkit-archive "
            "and leave its driver out.",
        )
    package = f"cuda-toolkit-{wanted.replace('.', '-')}"
    return Fix(
        f"{text} Take CUDA {wanted} from NVIDIA's repository: the package {package}, never cuda or "
        "cuda-drivers, which bring a driver.",
        (
            f"wget {_REPOSITORIES}/{repository}/{_KEYRING}",
            f"sudo dpkg -i {_KEYRING}",
            "sudo apt-get update",
            f"sudo apt-get install -y {package}",
            *add_to_path(f"/usr/local/cuda-{wanted}"),
        ),
    )


def add_to_path(folder: str) -> tuple[str, ...]:
    """Return commands that put a toolkit on the search paths of every new shell."""
    return (
        f"echo 'export PATH={folder}/bin:$PATH' >> ~/.bashrc",
        f"echo 'export LD_LIBRARY_PATH={folder}/lib64:$LD_LIBRARY_PATH' >> ~/.bashrc",
        "source ~/.bashrc",
    )


def add_to_search_path(folder: str) -> tuple[str, ...]:
    """Return commands that let every new shell find the programs in a folder."""
    return (f"echo 'export PATH={folder}:$PATH' >> ~/.bashrc", "source ~/.bashrc")


def _repository(facts: Facts) -> str | None:
    """Return the folder of NVIDIA's package repository for this system."""
    processor = {"x86_64": "x86_64", "aarch64": "sbsa"}.get(facts.architecture)
    if processor is None or facts.distribution_version is None:
        return None
    if facts.os == "wsl2" and facts.distribution == "ubuntu":
        return f"wsl-ubuntu/{processor}"
    if facts.os != "linux":
        return None
    number = facts.distribution_version.replace(".", "")
    if facts.distribution == "ubuntu":
        return f"ubuntu{number}/{processor}"
    if facts.distribution == "debian" and processor == "x86_64":
        return f"debian{number}/x86_64"
    return None
