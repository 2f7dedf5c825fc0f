"""Libraries of plugins that are broken, made by the C compiler: each is one sentence, and none ends this process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from bertport.runtime import load
from bertport.runtime.errors import PathError, ProviderError, UsageError
from bertport.runtime.providers import cpu, native, plugins
from bertport.runtime.providers.native import file_name
from bertport.runtime.providers.plugins import obstacle, of_library
from bertport.runtime.providers.table import PROVIDERS, candidates

OPENVINO = PROVIDERS["openvino"]
compiled = pytest.mark.skipif(
    shutil.which("cc") is None or not sys.platform.startswith("linux"), reason="it needs a C compiler and ELF files"
)
SOURCES = {
    "crashes": "__attribute__((constructor)) static void start(void) { *(volatile int *)0 = 0; }",
    "exits": """
        #include <stdio.h>
        #include <unistd.h>
        __attribute__((constructor)) static void start(void) { fputs("no licence\\n", stderr); _exit(0); }
    """,
    "writes": """
        #include <unistd.h>
        __attribute__((constructor)) static void start(void) {
          for (int file = 3; file < 32; file++) write(file, "{not JSON", 9);
          _exit(0);
        }
    """,
    "talks": """
        #include <stdio.h>
        #include <unistd.h>
        __attribute__((constructor)) static void start(void) {
          for (int word = 0; word < 9999; word++) fputs("licence ", stderr);
          fflush(stderr);
          _exit(3);
        }
    """,
    "hangs": "#include <unistd.h>\n__attribute__((constructor)) static void start(void) { for (;;) pause(); }",
    "refuses": """
        #include <stddef.h>
        #include <stdio.h>
        // The beginnings of ONNX Runtime's two tables of functions.
        struct api { void *(*create_status)(int code, const char *message); };
        struct base { const struct api *(*api)(unsigned version); const char *(*version)(void); };
        void *CreateEpFactories(const char *name, struct base *base, void *log, void **made, size_t most, size_t *n) {
          return base->api(1)->create_status(1, "built for\\nONNX Runtime 9.9");
        }
        void *ReleaseEpFactory(void *factory) { return NULL; }
        __attribute__((constructor)) static void start(void) { puts("printed where the answer belongs"); }
    """,
    "lists nothing": """
        #include <stddef.h>
        void *CreateEpFactories(const char *name, void *base, void *log, void **made, size_t most, size_t *n) {
          *n = 0;
          return NULL;
        }
        void *ReleaseEpFactory(void *factory) { return NULL; }
    """,
}
SAID = {
    "crashes": r"^lib.*\.so ends the process that registers it by SIGSEGV: ",
    "exits": r"^lib.*\.so ends the process that registers it with exit code 0 \(no licence\): ",
    "writes": r"^lib.*\.so writes into the answer of the process that registers it: ",
    "talks": r"^lib.*\.so ends the process that registers it with exit code 3 \(licence .{1,300}\.\.\.\): ",
    "hangs": r"^lib.*\.so did not register with ONNX Runtime within 0\.5 s: ",
    "refuses": r"^lib.*\.so does not register with ONNX Runtime [0-9.]+ \(.*built for ONNX Runtime 9\.9\): ",
    "lists nothing": r"^lib.*\.so lists no device for it here \(it takes Intel's CPUs\): choose --provider cpu",
}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    place = tmp_path_factory.mktemp("plugins")
    made = {}
    for name, source in SOURCES.items():
        made[name] = place / file_name(name.replace(" ", "_"))
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(made[name])]
        subprocess.run(command, input=source, text=True, check=True)
    return made


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put a file where the package of OpenVINO's plugin has its library; importing the package would fail."""

    def install(content):
        package = tmp_path / OPENVINO.plugin.module
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text("raise SystemExit('the package was imported')")
        library = package / file_name(OPENVINO.plugin.file)
        library.unlink(missing_ok=True)
        library.write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        return library

    return install


@compiled
@pytest.mark.parametrize("name", SAID)
def test_a_library_that_is_broken_is_one_sentence(libraries, monkeypatch, name):
    if name == "hangs":
        monkeypatch.setattr(plugins, "LIMIT", 0.5)
    said = obstacle(replace(OPENVINO, plugin=replace(OPENVINO.plugin, path=libraries[name])))
    assert re.search(SAID[name], said)
    assert "\n" not in said
    assert said.endswith("another provider")


def test_a_file_that_is_no_library_is_asked_once_and_again_when_it_changed(installed, tiny_bundle):
    library = installed(b"no library at all")
    asked = plugins.probe.cache_info().misses
    with pytest.raises(
        ProviderError, match=r"'openvino' does not start here: lib.* does not register .*: .*pip.* install --f"
    ):
        load(tiny_bundle, provider="openvino")
    with pytest.warns(UserWarning, match="does not register .* running variant 'fp32' on the CPU instead"):
        assert load(tiny_bundle, provider="openvino", allow_fallback=True).describe()["provider"] == "cpu"
    assert plugins.probe.cache_info().misses == asked + 1
    library.write_bytes(b"another that is none")
    assert obstacle(OPENVINO)
    assert plugins.probe.cache_info().misses == asked + 2


def test_a_folder_for_temporary_files_that_takes_nothing_is_no_fault_of_the_library(installed, tmp_path, monkeypatch):
    installed(b"no library at all")
    with monkeypatch.context() as changed:
        changed.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
        assert re.search(
            r"^lib.* cannot be tried in a process of its own \(No such file or directory\): see that there is room "
            "for a process, and in the folder for temporary files, which TMPDIR names, or choose another provider$",
            obstacle(OPENVINO),
        )
        assert plugins.listed(OPENVINO) == ()
    assert "does not register with ONNX Runtime" in obstacle(OPENVINO)


def test_a_plugin_that_is_not_installed_says_what_to_install(tiny_bundle):
    for name, row in PROVIDERS.items():
        if row.plugin and row.plugin.library is None:
            said = rf"'{name}' is not available here .* {row.plugin.package} is not installed: .*install .*\[{name}\]"
            with pytest.raises(ProviderError, match=said):
                load(tiny_bundle, provider=name)


@pytest.mark.parametrize(
    ("flags", "told", "taken"),
    [
        ({"avx512_bf16"}, "FP32 BF16", True),
        ({"amx_bf16"}, "FP32 BF16", True),
        ({"avx2", "avx512f"}, "FP32 BF16", False),  # it would be emulated
        ({"avx512_bf16"}, "FP32", False),
    ],
)
def test_bf16_needs_a_cpu_and_a_plugin_that_multiply_in_it(tmp_path, monkeypatch, flags, told, taken):
    device = {"ep": OPENVINO.ort, "kind": "CPU", "metadata": {**OPENVINO.plugin.devices, plugins.CAPABILITIES: told}}
    monkeypatch.setattr(plugins, "_answer", lambda _: {"devices": [device]})
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="a test's CPU", flags=frozenset(flags), physical_cores=2))
    row = replace(OPENVINO, plugin=replace(OPENVINO.plugin, path=tmp_path / "libmy.so"))
    said = "a test's CPU does not multiply in bf16: choose a variant in fp32, or another provider"
    assert obstacle(row, "bf16") == (None if taken else said)
    assert obstacle(row) is None


def test_auto_looks_at_no_plugin(installed, tiny_bundle):
    installed(b"no library at all")
    asked = plugins.probe.cache_info().misses
    assert [row.name for row in candidates("auto")] == ["cpu"]
    assert load(tiny_bundle).describe()["provider"] == "cpu"
    assert plugins.probe.cache_info().misses == asked


@compiled
def test_a_library_that_is_named(libraries, tiny_bundle, tmp_path):
    for name in ("cpu", "cuda"):
        with pytest.raises(UsageError, match=f"'{name}' comes with ONNX Runtime, not in a library of its own"):
            of_library(libraries["lists nothing"], name)
    with pytest.raises(PathError, match=r"there is no library of a provider at .*nowhere\.so"):
        of_library(tmp_path / "nowhere.so", "auto")
    with pytest.raises(ProviderError, match=r"refuses\.so does not register with .*: choose another library"):
        of_library(libraries["refuses"], "auto")
    for name, said in (("auto", "no provider"), ("MyExecutionProvider", "no provider 'MyExecutionProvider'")):
        with pytest.raises(ProviderError, match=rf"has {said} for this machine \(it lists no device here\)"):
            of_library(libraries["lists nothing"], name)
    for more, said in (({"memory": "1G"}, "'cpu', not one of .*nothing.so: leave"), ({}, "no provider for")):
        with pytest.raises((UsageError, ProviderError), match=said):
            load(tiny_bundle, provider_library=libraries["lists nothing"], **more)
    with pytest.warns(UserWarning, match="no provider for this machine .* running variant 'fp32' on the CPU instead"):
        load(tiny_bundle, provider_library=libraries["lists nothing"], provider_options={"a": 1}, allow_fallback=True)
    row = of_library(libraries["lists nothing"], "openvino")
    assert row.plugin.library == libraries["lists nothing"]
    assert "lists no device for it here (it takes Intel's CPUs)" in obstacle(row)


@pytest.mark.parametrize("given", [b"libmy.so", 3, ["libmy.so"]])
def test_a_library_is_named_by_a_path(tiny_bundle, given):
    with pytest.raises(UsageError, match="the library of a provider is named by its path, not "):
        load(tiny_bundle, provider_library=given)
    with pytest.raises(UsageError, match="memory bounds only the provider 'cpu', not one of "):
        load(tiny_bundle, provider_library=given, memory="1G")


@pytest.mark.parametrize(("kinds", "on_cpu"), [(("CPU", "GPU", "NPU"), True), (("GPU", "CPU"), False)])
def test_a_library_runs_on_the_first_of_its_devices(tmp_path, monkeypatch, kinds, on_cpu):
    (tmp_path / "libmy.so").touch()
    listed = [{"ep": "MyExecutionProvider", "kind": kind, "metadata": {}} for kind in kinds]
    monkeypatch.setattr(plugins, "_answer", lambda _: {"devices": listed})
    row = of_library(tmp_path / "libmy.so", "auto")
    assert (row.on_cpu, row.overlap) == (on_cpu, not on_cpu)


@compiled
def test_a_library_is_given_those_beside_it_whatever_their_files_are_called(tmp_path):
    beside, library = tmp_path / "libbeside.so.1.2.3", tmp_path / file_name("linked")
    compiling = ["cc", "-shared", "-fPIC", "-x", "c", "-"]
    link = ["-Wl,-soname,libbeside.so.1", "-o", beside]
    subprocess.run([*compiling, *link], input="int beside(void) { return 0; }", text=True, check=True)
    source = SOURCES["lists nothing"].replace("*n = 0;", "*n = beside();")
    subprocess.run(
        [*compiling, "-o", library, "-x", "none", beside], input=f"int beside(void);{source}", text=True, check=True
    )
    row = replace(OPENVINO, plugin=replace(OPENVINO.plugin, path=library))
    assert "lists no device for it here" in obstacle(row)
    beside.rename(tmp_path / "elsewhere")
    library.touch()
    assert "libbeside.so.1: cannot open shared object file" in obstacle(row)


@compiled
def test_the_environment_may_not_change_what_fp32_is(libraries, monkeypatch):
    [(key, value)] = PROVIDERS["tensorrt-rtx"].plugin.environment.items()
    plugin = replace(OPENVINO.plugin, environment={key: value}, path=libraries["lists nothing"])
    for given, said in (("1", f"{key} is 1 in the environment"), (value, "lists no device")):
        monkeypatch.setenv(key, given)
        assert said in obstacle(replace(OPENVINO, plugin=plugin))


@compiled
def test_a_library_for_nvidia_is_not_loaded_without_its_driver(libraries):
    if native.driver().problem is None:
        pytest.skip("there is a driver")
    row = PROVIDERS["tensorrt-rtx"]
    said = obstacle(replace(row, plugin=replace(row.plugin, path=libraries["crashes"])))
    assert said == f"{native.driver().problem}: check that NVIDIA's driver is installed, or choose another provider"
