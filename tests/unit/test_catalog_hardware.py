"""The hardware catalog: complete rows, and names found as people write them."""

from __future__ import annotations

import contextlib
import csv
import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import units
from guidebook.catalog import hardware

COLUMNS = (
    "name,aliases,vendor,kind,memory_gb,bandwidth_gbs,fp16_tensor_tflops,fp32_tflops,cores,multiprocessors,"
    "boost_clock_mhz,tdp_w,psu_w,launch_usd,launch_date,compute_capability,note,source,as_of,"
    "unverified"
)
ROW = "A card,,nvidia,discrete,24,936.2,,35.6,,,,,,,,8.6,,a data sheet,2025-12,"
GUIDE = (
    "GeForce RTX 3080 10GB",
    "GeForce RTX 3090",
    "GeForce RTX 4080 SUPER",
    "GeForce RTX 4090",
    "GeForce RTX 5090",
    "RTX A5000",
    "RTX A6000",
    "Apple M4 (10c)",
    "Apple M4 Pro (20c)",
    "Apple M4 Max (40c)",
    "Apple M3 Ultra (80c)",
    "NVIDIA DGX Spark (GB10)",
    "NVIDIA DGX Station (GB300)",
)


@pytest.mark.parametrize("name", GUIDE)
def test_every_device_of_the_guide_is_in_the_catalog(name):
    assert hardware.find(name).bandwidth > 0


def test_every_row_has_a_source_and_a_date():
    for device in hardware.every():
        assert device.source, device.name
        assert re.fullmatch(r"20\d\d-\d\d", device.as_of), device.name


def test_no_name_occurs_twice():
    names = [
        name.casefold() for device in hardware.every() for name in (device.name, *device.aliases)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("column", ["source", "as_of", "bandwidth_gbs", "vendor", "kind"])
def test_a_row_without_what_it_must_have_is_rejected(column):
    values = dict(zip(COLUMNS.split(","), ROW.split(","), strict=True)) | {column: ""}
    with pytest.raises(ValueError, match=f"A card.*{column}"):
        hardware.parse([COLUMNS, ",".join(values.values())])


def test_a_row_with_words_where_a_number_belongs_is_rejected():
    with pytest.raises(ValueError, match=r"A card.*memory_gb is 'lots'"):
        hardware.parse([COLUMNS, ROW.replace(",24,", ",lots,")])


def test_a_row_is_read_with_its_units():
    (device,) = hardware.parse([COLUMNS, ROW])
    assert device.memory_bytes == 24 * units.GIB
    assert device.bandwidth == 936.2e9
    assert device.fp32_flops == pytest.approx(35.6e12)
    assert device.tensor_flops is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("geforce rtx 3090", "GeForce RTX 3090"),
        ("NVIDIA GeForce RTX 3090", "GeForce RTX 3090"),
        ("RTX 3090", "GeForce RTX 3090"),
        ("5090", "GeForce RTX 5090"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "GeForce RTX 4070 Mobile"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("dgx spark", "NVIDIA DGX Spark (GB10)"),
        ("Mac mini M4", "Apple M4 (10c)"),
        ("mac studio m3 ultra", "Apple M3 Ultra (80c)"),
        ("Tesla T4", "T4"),
        ("AMD Radeon RX 7900 XTX", "Radeon RX 7900 XTX"),
    ],
)
def test_a_device_is_found_as_drivers_and_people_call_it(name, found):
    assert hardware.find(name).name == found


def test_the_memory_decides_between_two_cards_of_one_name():
    name = "NVIDIA GeForce RTX 3080"
    assert hardware.find(name, 10 * units.GIB).name == "GeForce RTX 3080 10GB"
    assert hardware.find(name, 12 * units.GIB).name == "GeForce RTX 3080 12GB"
    with pytest.raises(LookupError, match="10GB or GeForce RTX 3080 12GB"):
        hardware.find(name)


def test_memory_that_fits_two_cards_equally_decides_nothing():
    with pytest.raises(LookupError, match="H100"):
        hardware.find("NVIDIA H100", 80 * units.GIB)


def test_a_machine_with_less_memory_than_its_chip_can_have_is_found_by_name():
    small = hardware.find("Mac Studio M3 Ultra 96 GB (60c)")
    assert small.memory_bytes == 96 * units.GIB
    assert hardware.find("Apple M3 Ultra (60c)").memory_bytes > small.memory_bytes


def test_an_unknown_device_is_answered_with_near_ones():
    with pytest.raises(LookupError, match="GeForce RTX 4090"):
        hardware.find("GeForce RTX 4090 Ultra")


@given(st.sampled_from(hardware.every()), st.booleans())
def test_every_device_is_found_by_its_name_in_any_case(device, upper):
    name = device.name.upper() if upper else device.name.lower()
    assert hardware.find(name) is device


@given(st.text(max_size=40))
def test_any_text_is_a_device_or_a_lookup_error(text):
    with contextlib.suppress(LookupError):
        assert hardware.find(text) in hardware.every()


def test_the_file_holds_what_is_read():
    text = resources.files("guidebook.catalog").joinpath("hardware.csv").read_text("utf-8")
    assert len(list(csv.DictReader(text.splitlines()))) == len(hardware.every()) >= 150
