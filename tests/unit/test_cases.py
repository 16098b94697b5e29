"""Tables of cases: every row comes back, and a bad one says why."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import cases, planner
from guidebook.catalog import hardware

RAM = planner.DEFAULT_RAM
COLUMNS = (
    "hardware",
    "architecture",
    "quant",
    "weights_bytes",
    "n_devices",
    "n_prompt",
    "n_generate",
    "depth",
    "context",
    "flash_attention",
    "kv_type",
    "n_gpu_layers",
    "n_cpu_moe",
    "kv_offload",
)


def answered(**row):
    return cases.answer_row({"hardware": "rtx 3090", "architecture": "llama-3-8b", **row}, RAM)


def test_an_empty_column_keeps_its_default():
    assert cases.parse(dict.fromkeys(COLUMNS, "") | {"hardware": "a", "architecture": "b"}) == (
        planner.Case("a", "b")
    )


def test_every_column_is_read():
    counts = ("123", "2", "512", "64", "1024", "8192")
    values = ("a", "b", "Q8_0", *counts, "0", "q8_0/f16", "20", "8", "0")
    row = dict(zip(COLUMNS, values, strict=True))
    assert cases.parse(row) == planner.Case(
        "a", "b", "Q8_0", 123, 2, 512, 64, 1024, 8192, False, "q8_0/f16", 20, 8, False
    )
    assert cases.parse(row | {"n_cpu_moe": "Auto"}).n_cpu_moe is None


def test_a_prompt_without_tokens_to_generate_is_prefill():
    row = {"hardware": "a", "architecture": "b", "n_prompt": "512"}
    assert cases.parse(row).phase == "prefill"
    assert cases.parse(row | {"n_generate": "0"}).phase == "prefill"
    assert cases.parse(row | {"n_generate": "128"}).phase == "decode"


def test_other_columns_pass_through_and_the_answer_follows():
    row = answered(id="7", comment='ü, "x"')
    assert (row["id"], row["comment"]) == ("7", 'ü, "x"')
    assert all(name in row for name in cases.ANSWER_COLUMNS)
    assert row["fits"] is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": ""}, "hardware is empty"),
        ({"architecture": " "}, "architecture is empty"),
        ({"n_prompt": "many"}, "n_prompt is 'many', not a whole number"),
        ({"depth": "1.5"}, "depth is '1.5', not a whole number"),
        ({"depth": "nan"}, "not a whole number"),
        ({"context": "inf"}, "not a whole number"),
        ({"flash_attention": "maybe"}, "flash_attention is 'maybe'"),
        ({"kv_offload": "maybe"}, "kv_offload is 'maybe'"),
        ({"n_cpu_moe": "some"}, "n_cpu_moe is 'some', not a whole number"),
        ({"n_cpu_moe": "-3"}, "n_cpu_moe is -3"),
        ({"hardware": "Commodore 64"}, "No device 'Commodore 64'"),
        ({"architecture": "eliza"}, "eliza"),
    ],
)
def test_a_bad_row_says_why_and_keeps_its_columns(changes, said):
    row = answered(id="1", **changes)
    assert said in row["note"]
    assert row["id"] == "1"
    assert row["tokens_per_second"] is None


def test_csv_and_json_hold_the_same():
    rows = [answered(id="1"), answered(id="2", hardware="none such")]
    as_csv, as_json = io.StringIO(), io.StringIO()
    cases.write(rows, as_csv, as_json=False)
    cases.write(rows, as_json, as_json=True)
    from_csv = list(csv.DictReader(io.StringIO(as_csv.getvalue())))
    from_json = json.loads(as_json.getvalue())
    for text, value in zip(from_csv, from_json, strict=True):
        assert text["id"] == value["id"]
        assert text["total_bytes"] == (
            "" if value["total_bytes"] is None else str(value["total_bytes"])
        )
    assert (from_csv[0]["fits"], from_csv[1]["fits"]) == ("true", "")


@pytest.mark.parametrize("rows", [[], [{"hardware": "x", "architecture": "y"}]])
def test_a_table_of_no_or_of_bad_rows_is_written_with_its_columns(rows):
    stream = io.StringIO()
    cases.write(cases.answer_rows(rows, RAM), stream, as_json=False)
    header = stream.getvalue().splitlines()[0].split(",")
    assert {"hardware", "architecture", "tokens_per_second", "note"} <= set(header)


def test_a_file_from_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes(
        "\ufeffid,hardware,architecture\r\n1,RTX 3090,llama-3-8b,too,many\r\n2\r\n".encode()
    )
    first, second = cases.read(path)
    assert first == {"id": "1", "hardware": "RTX 3090", "architecture": "llama-3-8b"}
    assert second == {"id": "2", "hardware": "", "architecture": ""}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"a,b\n1,2\n", "has no column hardware and no column architecture"),
        (b"", "has no column hardware"),
        (b"hardware,architecture\n\xff\xfe\n", "is not a CSV file"),
    ],
)
def test_a_file_that_is_no_table_of_cases_is_refused(tmp_path, content, said):
    path = tmp_path / "cases.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(cases.CasesError, match=said):
        cases.read(path)


@given(st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=12)))
def test_no_text_in_a_row_raises(row):
    assert "note" in cases.answer_row(row, RAM)


@pytest.mark.slow
def test_a_thousand_cases_take_seconds_not_minutes():
    """The bar is 2 s on a quiet machine; a busy one gets five times that."""
    devices = [device.name.upper() for device in hardware.every()]
    models = ("llama-2-7b", "llama-3-8b", "llama-3-70b", "gpt-oss-20b", "qwen2.5-7b")
    rows = [
        {
            "hardware": devices[i % len(devices)],
            "architecture": models[i % len(models)],
            "depth": str(i % 7 * 1024),
            "context": str(16384 if i % 2 else ""),
        }
        for i in range(1000)
    ]
    start = time.perf_counter()
    found = cases.answer_rows(rows, RAM)
    assert time.perf_counter() - start < 10
    assert all(row["total_bytes"] for row in found)


def test_a_row_reads_as_text():
    text = cases.show(answered())
    assert "KV cache" in text
    assert "tokens/s" in text
    assert "unknown" in cases.show(answered(hardware="DDR5-5600 dual channel (2x64-bit)"))
