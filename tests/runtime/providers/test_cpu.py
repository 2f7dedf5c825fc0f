import platform

import pytest

from bertport.runtime.providers.cpu import (
    GENERIC,
    INSTRUCTION_SETS,
    Cpu,
    cpu,
    parse_cpuinfo,
    parse_sysctl,
    usable_cores,
)

ZEN3 = "fma avx avx2 sse4_2"
ICE_LAKE = f"{ZEN3} avx512f avx512bw avx512dq avx512vl avx512_vnni"
SAPPHIRE_RAPIDS = f"{ICE_LAKE} avx_vnni amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2", GENERIC),
        (ZEN3, "avx2"),
        (f"{ZEN3} avx_vnni", "avx_vnni"),
        (f"{ZEN3} avx512f", "avx2"),  # Knights Landing: AVX-512 without the byte and word operations
        (f"{ZEN3} avx512f avx512bw avx512dq avx512vl", "avx512"),
        (ICE_LAKE, "avx512_vnni"),
        (SAPPHIRE_RAPIDS, "amx"),
        ("asimd asimddp i8mm arm64", "arm64"),
    ],
)
def test_the_best_instruction_set_is_found(flags, expected):
    assert Cpu(model="", flags=frozenset(flags.split()), physical_cores=1).instruction_set == expected


def test_only_the_sets_that_sum_in_16_bits_saturate():
    assert {name for name, instructions in INSTRUCTION_SETS.items() if instructions.saturates} == {"avx2", "avx512"}


def test_linux_is_read():
    block = "processor\t: {}\nmodel name\t: AMD EPYC 7B13\nphysical id\t: 0\ncore id\t: {}\nflags\t\t: fpu avx2 fma\n"
    machine = parse_cpuinfo("\n".join(block.format(number, number // 2) for number in range(4)))
    assert machine == Cpu(model="AMD EPYC 7B13", flags=frozenset({"fpu", "avx2", "fma"}), physical_cores=2)


def test_linux_on_arm_names_no_model():
    machine = parse_cpuinfo("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\n")
    assert machine == Cpu(model="", flags=frozenset({"fp", "asimd", "asimddp"}), physical_cores=0)


def test_macos_is_read():
    intel = parse_sysctl(
        "hw.physicalcpu: 4\nmachdep.cpu.brand_string: Intel(R) Core(TM) i5\nmachdep.cpu.features: FPU AVX1.0\n"
        "machdep.cpu.leaf7_features: AVX2 AVX512F AVX512BW AVX512VL AVX512VNNI\nhw.optional.avx2_0: 1\n"
    )
    assert (intel.model, intel.physical_cores, intel.instruction_set) == ("Intel(R) Core(TM) i5", 4, "avx512_vnni")
    apple = parse_sysctl("hw.physicalcpu: 8\nmachdep.cpu.brand_string: Apple M1\nhw.optional.arm64: 1\n")
    assert (apple.model, apple.instruction_set) == ("Apple M1", "arm64")


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense", "flags", ":", "hw.physicalcpu:"])
def test_nothing_is_made_of_nothing(text):
    for parse in (parse_cpuinfo, parse_sysctl):
        assert parse(text).physical_cores == 0
        assert parse(text).instruction_set == GENERIC


def test_this_machine_is_described():
    machine = cpu()
    assert machine.model
    assert machine.physical_cores >= 1
    if platform.machine() in ("x86_64", "aarch64") and platform.system() == "Linux":
        assert machine.flags


def test_usable_cores_are_the_least_quota_of_every_group_above(tmp_path):
    groups, root = tmp_path / "cgroup", tmp_path / "root"
    every = usable_cores(tmp_path / "none", tmp_path / "none")
    assert every > 0.5

    def limit(path, text):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    groups.write_text("0::/system.slice/bertport.service\n")  # as systemd's CPUQuota has it
    limit("system.slice/bertport.service/cpu.max", "max 100000\n")
    assert usable_cores(groups, root) == every
    limit("system.slice/bertport.service/cpu.max", "50000 100000\n")
    assert usable_cores(groups, root) == 0.5
    limit("cpu.max", "25000 100000\n")  # inside a container: its own limit at the root, whatever the path says
    assert usable_cores(groups, root) == 0.25

    root = tmp_path / "first"
    groups.write_text("4:memory:/a\n3:cpu,cpuacct:/a/b\n")
    limit("cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n")
    limit("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n")
    assert usable_cores(groups, root) == every
    limit("cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n")
    assert usable_cores(groups, root) == every  # a quota without its period says nothing
    limit("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert usable_cores(groups, root) == 0.5
    limit("cpu,cpuacct/cpu.cfs_quota_us", "garbage\n")
    assert usable_cores(groups, root) == 0.5
