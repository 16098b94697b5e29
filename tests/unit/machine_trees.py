"""Small fake machines for the tests of ``guidebook.machine``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "machine"


def recorded(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def plant(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files below a folder that stands for ``/``."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def answers(table: Mapping[str, str]):
    """Stand in for running programs: the answer by the start of the command line."""

    def run(command: Sequence[str]) -> str | None:
        line = " ".join(command)
        return next((text for start, text in table.items() if line.startswith(start)), None)

    return run


def topology(siblings: Sequence[str]) -> dict[str, str]:
    """Write /sys entries for cores that share a physical core as listed."""
    files = {"sys/devices/system/cpu/online": f"0-{len(siblings) - 1}\n"}
    for number, text in enumerate(siblings):
        files[f"sys/devices/system/cpu/cpu{number}/topology/core_cpus_list"] = text + "\n"
    return files


def cgroup2(path: str, groups: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Write a version-2 control group tree with this process in the group ``path``."""
    files = {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": "31 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n",
    }
    for group, entries in groups.items():
        for name, text in entries.items():
            files[f"sys/fs/cgroup/{group.strip('/')}/{name}".replace("//", "/")] = text + "\n"
    return files
