"""Graphics processors are found through their drivers, and a missing driver is no error."""

from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from machine_trees import answers, plant, recorded

from guidebook.machine import gpu

GIB = 1024**3


class NvmlError(Exception):
    pass


def nvml(**replaced):
    """Stand in for the module pynvml with one RTX 3080."""

    def fail(*_args):
        raise NvmlError("Not Supported")

    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "570.133.07",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
        "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 3080",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(
            total=10 * GIB, free=9 * GIB, used=1 * GIB
        ),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: [8, 6],
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 320_000,
    }
    functions |= {name: fail if new is None else new for name, new in replaced.items()}
    return SimpleNamespace(**functions)


RTX_3080 = gpu.Gpu(
    name="NVIDIA GeForce RTX 3080",
    kind="cuda",
    memory_total_bytes=10 * GIB,
    memory_free_bytes=9 * GIB,
    unified=False,
    driver="570.133.07",
    cuda_driver_version="12.8",
    compute_capability=(8, 6),
    power_limit_w=320.0,
)


def test_an_nvidia_card_is_read_in_full():
    assert gpu.from_nvml(nvml()) == (RTX_3080,)


def test_names_that_an_old_package_gives_as_bytes_are_read():
    old = nvml(
        nvmlDeviceGetName=lambda handle: b"NVIDIA GeForce RTX 3080",
        nvmlSystemGetDriverVersion=lambda: b"570.133.07",
    )
    assert gpu.from_nvml(old) == (RTX_3080,)


def test_without_package_or_driver_nothing_is_found():
    assert gpu.from_nvml(None) == ()
    assert gpu.from_nvml(nvml(nvmlInit=None)) == ()
    assert gpu.from_nvml(nvml(nvmlDeviceGetCount=None)) == ()


def test_what_a_card_does_not_answer_is_unknown():
    found = gpu.from_nvml(
        nvml(
            nvmlSystemGetDriverVersion=None,
            nvmlSystemGetCudaDriverVersion_v2=None,
            nvmlDeviceGetName=None,
            nvmlDeviceGetCudaComputeCapability=None,
            nvmlDeviceGetEnforcedPowerLimit=None,
        )
    )
    assert found == (gpu.Gpu("NVIDIA GPU", "cuda", 10 * GIB, 9 * GIB),)


def test_a_chip_that_cannot_say_its_memory_shares_the_processors():
    (found,) = gpu.from_nvml(nvml(nvmlDeviceGetMemoryInfo=None))
    assert found.unified
    assert found.memory_total_bytes is None


def test_a_card_that_fell_off_the_bus_does_not_hide_the_other():
    def handle(index):
        if index == 0:
            raise NvmlError("GPU is lost")
        return index

    found = gpu.from_nvml(nvml(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle))
    assert found == (RTX_3080,)


def test_a_card_that_gives_garbage_does_not_hide_the_other_and_nvml_is_closed():
    closed = []
    capabilities = {"handle 0": (), "handle 1": (8, 6)}
    found = gpu.from_nvml(
        nvml(
            nvmlShutdown=lambda: closed.append(True),
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetCudaComputeCapability=capabilities.get,
        )
    )
    assert found == (RTX_3080,)
    assert closed == [True]


def amd_card(**extra) -> dict[str, str]:
    folder = "sys/class/drm/card0/device"
    return {
        f"{folder}/vendor": "0x1002\n",
        f"{folder}/device": "0x744c\n",
        f"{folder}/mem_info_vram_total": f"{24 * GIB}\n",
        f"{folder}/mem_info_vram_used": f"{1 * GIB}\n",
        f"{folder}/uevent": "DRIVER=amdgpu\nPCI_ID=1002:744C\nPCI_SLOT_NAME=0000:03:00.0\n",
        "usr/share/misc/pci.ids": recorded("pci.ids"),
        **extra,
    }


def test_an_amd_card_with_its_compute_driver_is_a_rocm_card(tmp_path: Path):
    root = plant(tmp_path, amd_card(**{"dev/kfd": ""}))
    assert gpu.from_drm(root) == (
        gpu.Gpu(
            name="AMD Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]",
            kind="rocm",
            memory_total_bytes=24 * GIB,
            memory_free_bytes=23 * GIB,
            driver="amdgpu",
        ),
    )


def test_an_amd_card_without_its_compute_driver_is_another_card(tmp_path: Path):
    (found,) = gpu.from_drm(plant(tmp_path, amd_card()))
    assert found.kind == "other"


def test_a_card_that_no_list_names_is_called_by_its_number(tmp_path: Path):
    files = amd_card()
    del files["usr/share/misc/pci.ids"]
    (found,) = gpu.from_drm(plant(tmp_path, files))
    assert found.name == "AMD GPU 744c"


def test_an_nvidia_card_without_a_driver_that_answers_is_still_seen(tmp_path: Path):
    folder = "sys/class/drm/card1/device"
    files = {
        f"{folder}/vendor": "0x10de\n",
        f"{folder}/device": "0x2206\n",
        f"{folder}/uevent": "DRIVER=nouveau\nPCI_SLOT_NAME=0000:01:00.0\n",
        "usr/share/hwdata/pci.ids": recorded("pci.ids"),
    }
    (found,) = gpu.from_drm(plant(tmp_path, files))
    assert found == gpu.Gpu("NVIDIA GA102 [GeForce RTX 3080]", "other", driver="nouveau")


def test_intels_built_in_graphics_share_memory_and_its_cards_do_not(tmp_path: Path):
    files = {"usr/share/misc/pci.ids": recorded("pci.ids")}
    for card, device, slot in (("card0", "46a6", "00:02.0"), ("card1", "56a0", "03:00.0")):
        folder = f"sys/class/drm/{card}/device"
        files[f"{folder}/vendor"] = "0x8086"
        files[f"{folder}/device"] = f"0x{device}"
        files[f"{folder}/uevent"] = f"DRIVER=i915\nPCI_SLOT_NAME=0000:{slot}\n"
    found = gpu.from_drm(plant(tmp_path, files))
    assert [(card.name, card.unified) for card in found] == [
        ("Intel Alder Lake-P GT2 [Iris Xe Graphics]", True),
        ("Intel DG2 [Arc A770]", False),
    ]


def test_the_screen_of_a_virtual_machine_and_a_cards_outlets_are_no_gpus(tmp_path: Path):
    files = {
        "sys/class/drm/card0/device/vendor": "0x1af4\n",
        "sys/class/drm/card0-HDMI-A-1/device/vendor": "0x10de\n",
        "sys/class/drm/version": "drm 1.1.0 20060810\n",
    }
    assert gpu.from_drm(plant(tmp_path, files)) == ()
    assert gpu.from_drm(tmp_path / "nothing") == ()


def test_a_card_that_driver_and_kernel_both_list_is_counted_once(tmp_path: Path, monkeypatch):
    nvidia = "sys/class/drm/card1/device"
    files = {f"{nvidia}/vendor": "0x10de\n", f"{nvidia}/device": "0x2206\n", "dev/kfd": ""}
    monkeypatch.setattr(gpu, "ROOT", plant(tmp_path, amd_card(**files)))
    monkeypatch.setattr(gpu, "_load_nvml", nvml)
    monkeypatch.setattr(gpu.platform, "system", lambda: "Linux")
    assert [card.kind for card in gpu.describe()] == ["cuda", "rocm"]
    monkeypatch.setattr(gpu, "_load_nvml", lambda: None)
    assert [card.kind for card in gpu.describe()] == ["rocm", "other"]


def test_rocm_smi_serves_where_the_kernel_lists_no_card():
    assert gpu.from_rocm_smi(recorded("rocm-smi-7900-xtx.json")) == (
        gpu.Gpu(
            name="Radeon RX 7900 XTX",
            kind="rocm",
            memory_total_bytes=25753026560,
            memory_free_bytes=25753026560 - 1048576000,
            driver="6.7.0",
        ),
    )


@given(st.one_of(st.none(), st.text(), st.just('{"card0": 3, "card1": [], "system": 1}')))
def test_no_answer_of_rocm_smi_makes_reading_raise(text):
    assert gpu.from_rocm_smi(text) == ()


MEMSIZE = {"sysctl -n hw.memsize": "34359738368"}


def test_an_apple_chips_gpu_shares_all_memory():
    run = answers({**MEMSIZE, "system_profiler": recorded("displays-apple-m2-pro.json")})
    assert gpu.from_macos("arm64", run) == (
        gpu.Gpu("Apple M2 Pro", "metal", memory_total_bytes=32 * GIB, unified=True),
    )


def test_an_intel_macs_two_gpus_are_told_apart():
    run = answers({**MEMSIZE, "system_profiler": recorded("displays-intel-mac.json")})
    assert gpu.from_macos("x86_64", run) == (
        gpu.Gpu("Intel UHD Graphics 630", "metal", memory_total_bytes=32 * GIB, unified=True),
        gpu.Gpu("AMD Radeon Pro 5500M", "metal", memory_total_bytes=8 * GIB),
    )


def test_an_apple_chip_has_a_gpu_even_if_system_profiler_is_too_slow():
    run = answers({**MEMSIZE, "sysctl -n machdep.cpu.brand_string": "Apple M2 Pro"})
    assert gpu.from_macos("arm64", run) == (
        gpu.Gpu("Apple M2 Pro", "metal", memory_total_bytes=32 * GIB, unified=True),
    )


@given(st.sampled_from(["", "[]", "{}", '{"SPDisplaysDataType": [1, {}, null]}', "\x00", "{"]))
def test_no_answer_of_system_profiler_makes_reading_raise(text):
    assert gpu.from_macos("x86_64", lambda command: text) == ()
