"""A record holds what was found and nothing that names a person, a computer or an account."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from run_results import CHAPTERS, LAPTOP, record_of, results_of, write_run

from guidebook import anonymous, claims, machine, records, results
from guidebook.catalog import hardware, models
from guidebook.machine import system
from guidebook.records import Found, RecordError

ROOT = Path(__file__).resolve().parents[2]

# A person, a computer, and what belongs to them. The names are such that nothing else holds them.
USER, HOST = "zaphodb", "heart-of-gold-2"
WORDS = (HOST, USER)
SECRETS = {
    "user name": USER,
    "host name": HOST,
    "home path": f"/home/{USER}/models/x.gguf",
    "path with spaces": "/Users/Zarniwoop Vann/models/x.gguf",
    "Windows path": r"C:\Users\Zarniwoop Vann\x.gguf",
    "path on a share": r"\\magrathea\zarniwoop",
    "path in WSL": "/mnt/c/Users/Zarniwoop/x",
    "working folder": "/srv/zarniwoop/book",
    "home": "~/zarniwoop",
    "address": "http://zarniwoop:pw@magrathea:11434/v1",
    "e-mail address": "zarniwoop.vann@example.org",
    "login": "zarniwoop@magrathea",
    "host in a network": "zarniwoop.local",
    "MAC": "9c:b6:d0:1a:2b:3c",
    "IPv4": "192.168.178.23",
    "IPv6": "fe80::9eb6:d0ff:fe1a:2b3c",
    "name by address": "ip-172-31-42-17",
    "UUID": "4c4c4544-0042-3510-8052-b9c04f4e5a31",
    "GPU's UUID": "GPU-5e71a100-0dec-afe5-0123-456789abcdef",
    "Hugging Face token": "hf_ZarniwoopVannHarlAbcd",
    "OpenAI key": "sk-proj-zarniwoop0123456789",
    "GitHub token": "ghp_Zarniwoop0123456789abcdef",
    "AWS key": "AKIAZARNIWOOP1234567",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ6In0.s1gn",
    "labelled serial": "Serial Number: ZW-77-VH",
    "serial of a GPU": "1321020034567",
    "serial of a laptop": "PF2ZWVH7",
    "serial of a Mac": "C02ZW1VHJGH5",
    "machine id": "5e71a1000decafe5c0ffee0123456789",
}


def planted(secret: str) -> dict[str, Any]:
    """Return valid results with a secret in every text that a results file can hold."""
    content = results_of("42-quantization-gguf")
    content["guidebook"] += f"+{secret}"
    content["parameters"] |= {"model": secret, "device": secret, "own": secret, secret: 1}
    content["machine"] = _with(content["machine"], secret)
    content["machine"] |= {"hostname": secret, "serial": secret, secret: secret}
    content["machine"]["software"]["packages"] |= {secret: "1.0", "torch": f"2.13.0+{secret}"}
    readings = content["measurements"]
    content["measurements"] = {
        f"{name} of {secret}": {**one, "unit": f"{one['unit']} {secret}"}
        for name, one in readings.items()
    }
    content["claims"][0]["because"] = secret
    content["claims"][0]["evidence"][secret] = 1.0
    content["claims"].append({**content["claims"][0], "id": secret})
    results.validate(content)
    return content


def _with(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return f"{value} {secret}"
    if isinstance(value, dict):
        return {name: _with(item, secret) for name, item in value.items()}
    return [_with(item, secret) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_every_text_of_the_results_is_not_in_the_record(secret: str, tmp_path: Path):
    run = write_run(tmp_path / "run", planted(secret))
    record = records.make(records.read(run), words=WORDS)
    path = records.save(record, tmp_path / "record.json")
    text = path.read_text(encoding="utf-8").lower()
    for part in (secret, "zarniwoop", "vann", "magrathea", USER):
        assert part.lower() not in text
    assert "i7-11700KF".lower() in text  # what may be said is still there
    assert len(record.measurements) == 2
    assert records.load(path) == record


def users() -> st.SearchStrategy[str]:
    return st.from_regex(r"zqx[a-z]{2,8}", fullmatch=True)


def secrets() -> st.SearchStrategy[tuple[str, str]]:
    """Return a text that names somebody, and the part of it that must not be left."""
    hexes = st.text("0123456789abcdef", min_size=12, max_size=12)
    return st.one_of(
        users().map(lambda name: (f"/home/{name}/x y/z", name)),
        users().map(lambda name: (f"/Users/A {name}/m.gguf", name)),
        users().map(lambda name: (rf"D:\Users\{name} b\m.gguf", name)),
        users().map(lambda name: (f"{name}@example.org", name)),
        users().map(lambda name: (f"root@{name}", name)),
        users().map(lambda name: (f"https://{name}.example.org/x", name)),
        users().map(lambda name: (f"{name}.local", name)),
        users().map(lambda name: (f"hf_{name}AbcdEfgh", name)),
        hexes.map(lambda h: (":".join(h[i : i + 2] for i in range(0, 12, 2)),) * 2),
        hexes.map(lambda h: (f"{h[:8]}-{h[8:]}-4abc-8abc-{h}", h[8:] + "-4abc")),
        st.tuples(*[st.integers(0, 255)] * 4).map(lambda four: (".".join(map(str, four)),) * 2),
    )


@given(secrets(), st.sampled_from([" ", "=", ": ", "(", "'", ", ", "_"]), st.sampled_from("ab "))
@settings(max_examples=100)
def test_whatever_stands_around_it_a_secret_is_taken_out(secret, before, after):
    text, part = secret
    shown = anonymous.clean(f"decode of x{before}{text} {after}")
    assert part not in shown
    assert anonymous.is_clean(shown)


@given(st.text())
@example("ip-1-2-3-4-5")
@example("a/…/b")
def test_taking_out_twice_takes_out_nothing_more(text: str):
    once = anonymous.clean(text, WORDS)
    assert anonymous.clean(once, WORDS) == once


@pytest.mark.parametrize(
    "text",
    [
        "Intel(R) Core(TM) i7-11700KF CPU @ 3.60GHz",
        "AMD EPYC 7763 64-Core Processor",
        "AMD Ryzen Threadripper PRO 7995WX 96-Cores",
        "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz",
        "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)",
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA H100 80GB HBM3",
        "Quadro RTX 6000/8000",
        "Radeon RX 6800/6800 XT / 6900 XT",
        "decode of LM Studio server on Windows 2",
        "prefill of transformers bfloat16",
        "decode_LLM.int8()",
        "decode_q2_k_imatrix",
        "tokens/s",
    ],
)
def test_names_of_hardware_and_measurements_stay_as_they_are(text: str):
    assert anonymous.clean(text) == text


def test_the_books_own_words_stay_as_they_are():
    texts = [device.name for device in hardware.every()]
    texts += [model.name for model in models.all()]
    texts += [claim.needs for claim in claims.ledger().values()]
    assert [text for text in texts if not anonymous.is_clean(text)] == []


def test_the_names_of_this_user_and_host_are_known(monkeypatch: pytest.MonkeyPatch):
    anonymous.names_here.cache_clear()
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("HOSTNAME", HOST)
    try:
        assert {USER, HOST} <= set(anonymous.names_here())
    finally:
        anonymous.names_here.cache_clear()


def test_by_default_a_record_is_made_without_this_users_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(anonymous, "names_here", lambda: (USER,))
    here = {**LAPTOP, "cpu": {**LAPTOP["cpu"], "model": f"{USER}'s processor"}}
    content = results_of("11-your-machine", machine=here)
    record = records.make(Found({"11-your-machine": content}, {}))
    assert record.hardware.cpu == "…'s processor"


def test_two_readings_that_lose_their_addresses_stay_two():
    readings = {
        f"decode of http://h{number}:1/": ("tokens/s", [1.0, 2.0, 3.0 + number])
        for number in range(3)
    }
    record = record_of(results_of("11-your-machine", readings=readings))
    names = [reading.name for reading in record.measurements]
    assert names == ["decode of …", "decode of … (2)", "decode of … (3)"]
    assert [reading.measured.high for reading in record.measurements] == [3, 4, 5]


# --- What a record holds ----------------------------------------------------------------------


def test_a_record_holds_the_machine_the_versions_and_what_came_out():
    record = record_of()
    here = record.hardware
    assert str(here) == (
        "NVIDIA GeForce RTX 3080, Intel(R) Core(TM) i7-11700KF @ 3.60GHz, 8 cores, 32 GiB of "
        "memory, WSL 2"
    )
    assert (here.gpus[0].memory_gib, here.gpus[0].compute_capability) == (10, "8.6")
    assert record.software == {
        "Python": "3.12.3",
        "torch": "2.13.0+cu130",
        "numpy": "2.4.6",
        "GPU driver": "581.29",
        "CUDA of the driver": "13.0",
    }
    assert [run.chapter for run in record.chapters] == list(CHAPTERS)
    wanted = [claim for chapter in CHAPTERS for claim in claims.of_chapter(chapter)]
    assert {verdict.id for verdict in record.claims} == {claim.id for claim in wanted}
    assert record.count(claims.Outcome.HELD) == len(wanted)
    assert {verdict.needs for verdict in record.claims} == {claim.needs for claim in wanted}
    first = record.measurements[0].measured
    assert (first.median, first.low, first.high, first.unit) == (100, 99, 101, "tokens/s")
    assert record.file_name == "nvidia-geforce-rtx-3080-2026-11-23.json"


def test_a_record_knows_the_day_and_not_the_time():
    text = json.dumps(record_of().to_dict())
    assert "2026-11-23" in text
    assert "12:34" not in text


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("embedded", "embedded"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("zaphodb/heart-of-gold-7b-secret", "Hugging Face model "),
        ("zaphods-own.gguf", "local file "),
        ("/home/zaphodb/zaphods-own.gguf", "local file "),
        (r"C:\zaphod\zaphods-own.gguf", "local file "),
        ("some-folder", "local file "),
    ],
)
def test_a_model_is_a_name_of_the_catalog_or_a_hash(model: str, shown: str):
    found = records.shared_model(model)
    assert found.startswith(shown)
    assert "zaphod" not in found


def test_a_file_has_the_same_hash_wherever_it_lies():
    names = ["/a/x.gguf", "x.gguf", r"C:\b\x.gguf"]
    assert len({records.shared_model(name) for name in names}) == 1
    assert records.shared_model("y.gguf") != records.shared_model("x.gguf")


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("2.13.0", "2.13.0"),
        ("2.13.0+cu130", "2.13.0+cu130"),
        ("2.14.0.dev20261101+rocm7.1", "2.14.0.dev20261101+rocm7.1"),
        ("0.3.36+built.by.zaphod", "0.3.36"),
        ("2.8.3.post1", "2.8.3.post1"),
    ],
)
def test_of_a_version_only_what_releases_carry_is_kept(version: str, kept: str):
    software = {"python": "3.12.3", "packages": {"torch": version}}
    content = results_of("11-your-machine", machine={**LAPTOP, "software": software})
    assert record_of(content).software["torch"] == kept


def test_a_library_that_changed_between_chapters_has_both_versions():
    old = {"python": "3.12.3", "packages": {"torch": "2.12.1"}}
    record = record_of(
        results_of(CHAPTERS[0], machine={**LAPTOP, "software": old}), results_of(CHAPTERS[1])
    )
    assert record.software["torch"] == "2.12.1 and 2.13.0+cu130"
    records.validate(record.to_dict())


def test_what_is_not_known_of_a_machine_is_null_and_valid():
    record = record_of(results_of("11-your-machine", machine={}, readings={}))
    records.validate(record.to_dict())
    assert record.hardware.cpu is None
    assert str(record.hardware) == "a processor of unknown model"


def test_the_fixed_words_are_those_that_a_machine_is_described_by():
    assert {name for _, name in system._FIRMWARE} <= set(records.HYPERVISORS)
    assert set(system._SYSTEMD.values()) <= set(records.HYPERVISORS)
    assert {name for _, name in system._RUNTIMES} <= set(records.CONTAINERS)


def test_this_machine_can_be_recorded():
    content = results_of("11-your-machine", machine=machine.to_dict(machine.describe()))
    record = records.make(Found({"11-your-machine": content}, {}))
    records.validate(record.to_dict())
    home = str(Path.home())
    assert len(home) < 2 or home not in json.dumps(record.to_dict())


# --- Which results are taken ------------------------------------------------------------------


def test_results_of_two_machines_do_not_make_one_record():
    other = {**LAPTOP, "gpus": []}
    with pytest.raises(RecordError, match="come from 2 machines"):
        record_of(results_of(CHAPTERS[0]), results_of(CHAPTERS[1], machine=other))


def test_another_share_of_the_same_machine_is_the_same_machine():
    less = {**LAPTOP, "memory": {"effective_total_bytes": 16 * 1024**3}}
    record = record_of(
        results_of(CHAPTERS[0], machine=less, created="2026-11-24T00:00:00Z"),
        results_of(CHAPTERS[1]),
    )
    assert record.hardware.ram_gib == 16  # the newest
    assert record.created.isoformat() == "2026-11-24"


def test_damaged_and_foreign_files_are_named_and_the_others_are_read(tmp_path: Path):
    run = write_run(tmp_path)
    (run / "results" / "12-bottlenecks.json").write_text("{")
    (run / "results" / "my-notes.json").write_text("{}")
    wrong = json.dumps(results_of("11-your-machine"))
    (run / "results" / "13-three-paths.json").write_text(wrong)
    found = records.read(run)
    assert list(found.results) == list(CHAPTERS)
    assert found.problems == {
        "12-bottlenecks": "results file cannot be used",
        "13-three-paths": "results file is about another chapter",
    }
    assert any(sentence.startswith("my-notes.json") for sentence in found.left_out)


def test_a_claim_that_the_ledger_does_not_know_is_named_and_left_out(tmp_path: Path):
    content = results_of("11-your-machine")
    content["claims"].append({**content["claims"][0], "id": "11-gone"})
    found = records.read(write_run(tmp_path, content))
    assert "'11-gone'" in found.left_out[0]
    assert "11-gone" not in {verdict.id for verdict in records.make(found).claims}


def test_no_folder_and_no_results_are_a_sentence(tmp_path: Path):
    with pytest.raises(RecordError, match="There is no folder"):
        records.read(tmp_path / "no")
    with pytest.raises(RecordError, match="no results"):
        records.make(records.read(tmp_path))


# --- Files ------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(tmp_path: Path):
    record = record_of()
    path = records.save(record, tmp_path / "new" / "a.json")
    assert records.load(path) == record
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostname": "x"}, "top level"),
        ({"schema_version": 2}, "schema_version"),
        ({"created": "2026-11-23T12:00:00Z"}, "created"),
        ({"commit": "secret"}, "commit"),
        ({"chapters": []}, "chapters"),
        ({"software": {"torch": "built by zaphod"}}, "software/torch"),
    ],
)
def test_a_record_that_is_not_valid_is_refused_with_the_place(change, said, tmp_path: Path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**record_of().to_dict(), **change}))
    with pytest.raises(RecordError, match=rf"bad\.json.*{said}"):
        records.load(path)


@pytest.mark.parametrize("secret", [SECRETS["home path"], SECRETS["MAC"], SECRETS["IPv4"]])
def test_a_record_that_names_somebody_is_neither_loaded_nor_saved(secret: str, tmp_path: Path):
    data = record_of().to_dict()
    data["hardware"]["cpu"] = f"a processor of {secret}"
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match="may name a person or a computer at hardware/cpu"):
        records.load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_record_is_a_sentence_that_names_it(content: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=r"x\.json"):
        records.load(path)


def test_all_records_of_a_folder_come_oldest_first(tmp_path: Path):
    late = record_of(results_of("11-your-machine", created="2026-12-01T00:00:00Z"))
    records.save(late, tmp_path / "a.json")
    records.save(record_of(), tmp_path / "b.json")
    assert list(records.load_all(tmp_path)) == ["b", "a"]
    assert records.load_all(tmp_path / "none") == {}


def test_the_commit_is_that_of_the_checkout_or_unknown(monkeypatch: pytest.MonkeyPatch):
    answers = {"rev-parse": "0" * 39 + "a", "status": ""}
    monkeypatch.setattr(records, "_git", lambda _, command, *__: answers[command])
    monkeypatch.setattr(Path, "exists", lambda _: True)
    assert record_of().commit == "0" * 39 + "a"
    answers["status"] = " M guidebook/records.py"
    assert record_of().commit == "0" * 39 + "a+changes"
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert record_of().commit is None


def test_git_that_is_missing_or_fails_makes_the_commit_unknown(monkeypatch, tmp_path: Path):
    assert records._git(tmp_path / "no", "status") is None
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert records._git(tmp_path, "status") is None


def test_every_record_of_the_book_is_valid_and_names_nobody():
    for name, record in records.load_all(ROOT / "records").items():
        assert record.claims, name
