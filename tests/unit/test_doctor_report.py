"""The report: the root cause first, nothing personal in it, the same in every form."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from guidebook import doctor
from guidebook.doctor.model import Evidence, Finding, Fix
from guidebook.doctor.privacy import Private, private_words
from guidebook.doctor.recorded import RecordedProbe
from guidebook.doctor.report import Report

LONG = "sudo apt-get remove --purge " + " ".join(f"libnvidia-part-{n}-550" for n in range(9))
FINDINGS = (
    Finding("platform.system", "ok", "Ubuntu 24.04."),
    Finding("wsl.folder", "warning", "The project lies on Windows' disk.", why="It is slow."),
    Finding(
        "wsl.linux-driver",
        "problem",
        "A Linux driver is installed.",
        (Evidence("dpkg -l", "\n".join(f"ii line{n} <1>" for n in range(12))),),
        why="It hides the GPU.",
        fix=Fix("Remove it.", (LONG, "wsl.exe --shutdown")),
    ),
    Finding("gpu.nvml", "not applicable", "Later.", because="wsl.linux-driver"),
    Finding("gpu.ecc", "not applicable", "Later.", because="wsl.linux-driver"),
    Finding("gpu.xid", "could not tell", "The log is closed."),
    Finding("python.version", "problem", "Python 3.8 is too old."),
)


def report(*findings: Finding, private: Private | None = None) -> Report:
    titles = {"wsl.linux-driver": "No Linux driver inside WSL"}
    return Report(findings, 1.25, titles, private or Private())


def test_problems_come_first_and_in_the_order_of_the_checks():
    ordered = [one.check for one in report(*FINDINGS).ordered]
    assert ordered[:3] == ["wsl.linux-driver", "python.version", "wsl.folder"]
    assert report(*FINDINGS).first == FINDINGS[2]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((), 0),
        (("ok", "not applicable"), 0),
        (("ok", "could not tell"), 0),
        (("could not tell", "warning"), 1),
        (("warning", "problem"), 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_verdict(verdicts, code):
    made = report(*(Finding(f"gpu.{n}", verdict, "x.") for n, verdict in enumerate(verdicts)))
    assert made.exit_code == code


def test_the_text_shows_everything_and_breaks_no_command():
    text = str(report(*FINDINGS))
    assert text.splitlines()[0].startswith("2 problems, 1 warning, 1 could not be told, 1 is fine")
    assert LONG in text
    assert "Why it matters: It hides the GPU." in text
    assert (
        text.index("wsl.linux-driver]") < text.index("python.version]") < text.index("wsl.folder]")
    )
    assert "gpu.nvml, gpu.ecc" in text
    assert "… 6 more lines" in text
    assert all(len(line) <= 100 for line in text.splitlines() if LONG not in line)


def test_a_report_without_complaints_says_so():
    assert str(report(FINDINGS[0])).startswith("No problems, 1 is fine (1.25 s).")


class Tags(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.classes = set()

    def handle_starttag(self, tag, attributes):
        if tag != "br":
            self.open.append(tag)
        self.classes |= set((dict(attributes).get("class") or "").split())

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_html_is_a_table_that_says_its_verdicts_in_words():
    html = report(*FINDINGS)._repr_html_()
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert "verdict-problem" in tags.classes
    assert "verdict-could-not-tell" in tags.classes
    assert ">Problem</td>" in html
    assert html.count("<caption>") == 2
    assert 'scope="col"' in html
    assert 'scope="row"' in html
    assert "line1 &lt;1&gt;" in html
    assert not re.search(r"color|#[0-9a-f]{3}", html)


def test_the_data_are_plain_and_complete():
    data = report(*FINDINGS).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["exit_code"] == 2
    assert data["verdict"] == "problem"
    first = data["findings"][0]
    assert first["check"] == "wsl.linux-driver"
    assert first["title"] == "No Linux driver inside WSL"
    assert first["fix"]["commands"][1] == "wsl.exe --shutdown"
    assert {one["because"] for one in data["findings"]} == {None, "wsl.linux-driver"}


PLANTED = RecordedProbe(
    {
        "platform": {"system": "linux", "machine": "x86_64", "home": "/home/janedoe"},
        "environment": {
            "USER": "janedoe",
            "HOSTNAME": "secretbox.example.org",
            "USERNAME": "Jane D",
        },
        "files": {"/proc/sys/kernel/hostname": "secretbox\n"},
    }
)
SECRETS = (
    "/home/janedoe/book/.venv",
    "/home/otherone/models",
    "/mnt/c/Users/Jane/AppData",
    r"C:\Users\Jane Doe\AppData",
    "on secretbox.example.org",
    "janedoe@secretbox:~$",
    "GPU-3d7c0f2e-9a41-6b58-c0de-51f2a7e49b10",
    "Serial Number : 1653922001234",
    "<serial>1653922001234</serial>",
    "http://jane:pass1234@proxy.example.com:3128",
    "00:15:5d:4f:a1:b2",
)
LEAKS = re.compile(
    r"jane|otherone|secretbox|3d7c0f2e|1653922001234|pass1234|00:15:5d", re.IGNORECASE
)


def test_nothing_personal_is_in_the_data_or_the_page():
    finding = Finding(
        "gpu.memory",
        "problem",
        f"Found {SECRETS[0]}.",
        tuple(Evidence(f"in {secret}", secret) for secret in SECRETS),
        why="Because of /home/janedoe.",
        fix=Fix("Remove /home/janedoe/x.", ("rm -r /home/janedoe/x",)),
    )
    made = report(finding, private=private_words(PLANTED))
    assert not LEAKS.search(json.dumps(made.to_dict()))
    assert not LEAKS.search(made._repr_html_())
    assert made.to_dict()["findings"][0]["fix"]["commands"] == ["rm -r ~/x"]


def test_the_projects_folder_is_written_so_that_a_shell_in_it_understands() -> None:
    private = Private("/home/me", (), "/srv/books/this")
    assert private.remove("/srv/books/this/.venv/bin/pip list") == "./.venv/bin/pip list"
    assert private.remove("/srv/books/thistle") == "/srv/books/thistle"
    # A folder at the top, such as /opt, says nothing and stands in many paths.
    assert Private(project="/opt").remove("/opt/conda/bin") == "/opt/conda/bin"


def test_the_folder_of_a_virtual_environment_is_the_projects() -> None:
    linux = {"system": "linux", "machine": "x86_64"}
    in_venv = RecordedProbe(
        {"platform": linux | {"prefix": "/srv/books/this/.venv", "base_prefix": "/usr"}}
    )
    conda = RecordedProbe(
        {"platform": linux | {"prefix": "/opt/conda", "base_prefix": "/opt/conda"}}
    )
    assert private_words(in_venv).project == "/srv/books/this"
    assert private_words(conda).project == ""


def test_home_is_short_in_the_text_and_longer_names_are_left():
    private = Private("/home/me")
    assert private.shorten("/home/me/book and /home/me, not /home/meg") == (
        "~/book and ~, not /home/meg"
    )


def test_common_names_are_no_secrets():
    probe = RecordedProbe(
        {"platform": {"system": "linux", "machine": "x86_64"}, "environment": {"USER": "ubuntu"}}
    )
    assert private_words(probe).remove("Ubuntu 24.04, ubuntu") == "Ubuntu 24.04, ubuntu"


def test_checks_are_named_ordered_and_explained():
    found = {}
    for check in doctor.checks():
        assert check.id not in found
        assert check.id.startswith(f"{check.group}.")
        assert check.why.endswith(".")
        assert all(name in found for name in check.depends_on), check.id
        found[check.id] = check
        assert check.title in doctor.explain(check.id)
    order = [check.group for check in doctor.checks()]
    assert order == sorted(order, key=list(dict.fromkeys(order)).index)
    assert list(dict.fromkeys(order)) == [
        "platform",
        "wsl",
        "gpu",
        "toolkit",
        "python",
        "libraries",
        "room",
    ]


@pytest.mark.parametrize("name", ["gpu.nothing", "gpu", ""])
def test_what_cannot_be_explained_is_named(name):
    with pytest.raises(LookupError, match=r"gpu\.driver"):
        doctor.explain(name)


def test_only_what_is_asked_for_is_reported():
    probe = RecordedProbe({"platform": {"system": "darwin", "machine": "arm64"}})
    made = doctor.examine(probe, only=["platform", "toolkit.nvcc"])
    assert {one.check.split(".")[0] for one in made.findings} == {"platform", "toolkit"}
    assert made.of("toolkit.nvcc").verdict == "not applicable"
    with pytest.raises(LookupError):
        made.of("gpu.ecc")
    with pytest.raises(LookupError, match="no check 'gpus'"):
        doctor.examine(probe, only=["gpus"])


def test_an_unknown_model_is_refused_with_near_names():
    probe = RecordedProbe({"platform": {"system": "darwin", "machine": "arm64"}})
    with pytest.raises(LookupError, match="llama"):
        doctor.examine(probe, models=["llama-3.1-9b"])
