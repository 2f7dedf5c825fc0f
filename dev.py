"""Set up and run bertport from a checkout, with nothing but Python: `python3 dev.py --help`.

Standard library only, and no syntax newer than Python 3.7, so that an old interpreter is told what it lacks.
Each command makes the virtual environment that it needs, once, and leaves a stamp in it; pip's own settings
(index, find-links, proxy) are honoured because pip alone does the fetching.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
NEWEST_UNSUPPORTED = (3, 10)
TORCH = "2.13.0"
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
SYSTEM: dict[str, tuple[str, ...]] = {"zsh": ("zsh",), "fish": ("fish",)}
"""Debian's packages for the tests of completion in real shells, by the program that is missing without them."""
AVX2_SYSTEM = {"qemu-x86_64": ("qemu-user",), "cc": ("gcc", "libc6-dev"), "objdump": ("binutils",)}
"""The same for the tests of AVX2's arithmetic, on a CPU with VNNI."""

AREAS: dict[str, tuple[str, ...]] = {
    "runtime": (),
    "measure": ("runtime",),
    "export": ("runtime",),
    "quantize": ("measure", "runtime"),
    "compare": ("measure", "runtime"),
    "serve": ("runtime",),
    "batch": ("runtime",),
}
"""Each area with the areas that it may import. What else lists areas is made of this, or held to it by a test."""
PROGRAMS = ("bench", "models")
"""Folders of programs: they may import any area, and no area imports them."""
EXTRAS = ("cpu", "batch", "compare", "evaluate", "export", "hub", "peft", "quantize", "serve")
"""Every extra of pyproject.toml that goes with a CPU and today's transformers."""
OPTIMUM_EXTRAS = ("cpu", "batch", "compare", "evaluate", "export-optimum", "hub", "peft", "quantize", "serve")
"""The same with optimum-onnx, which needs an older transformers: `export` and `export-optimum` exclude each other."""
RAY_EXTRAS = ("cpu", "batch", "ray", "serve")
"""Extras that `dev.py ray` tests: Ray is 750 MB, which the other tests do without."""
STAMP = "bertport-stamp"
"""File in a virtual environment that says what it was made of."""
GROUPS_SINCE = (25, 1)
"""The first version of pip that knows `--group`; Python 3.11 ships an older one."""
NEWEST_OF_FLOORS = (3, 12)
"""The last Python that the lowest versions have wheels for: NumPy 1.26 and SciPy 1.11 have none for 3.13."""


class Environment(NamedTuple):
    """A virtual environment in the checkout."""

    directory: str
    requirements: tuple[str, ...]
    """Requirements that pip installs."""
    groups: tuple[str, ...] = ()
    """Dependency groups of pyproject.toml (PEP 735) that are installed with it."""
    torch: bool = False
    """Whether the CPU build of PyTorch is installed first."""
    floors: bool = False
    """Whether each dependency is installed in the lowest version that pyproject.toml allows."""
    lock: str = ""
    """The file with the version and the hashes of each package, where they are not chosen at installation."""


EVERYTHING = "--editable=.[{}]".format(",".join(EXTRAS))
OPTIMUM = "--editable=.[{}]".format(",".join(OPTIMUM_EXTRAS))
ENVIRONMENTS = {
    "demo": Environment(".venv-demo", ("--editable=.[cpu]",)),
    "main job": Environment(".venv-demo-main", ("--editable=.[cpu,export,quantize,serve]",), torch=True),
    "dev": Environment(".venv", (EVERYTHING,), groups=("dev",), torch=True),
    "optimum": Environment(".venv-optimum", (OPTIMUM,), groups=("test",), torch=True),
    "ray": Environment(".venv-ray", ("--editable=.[{}]".format(",".join(RAY_EXTRAS)),), groups=("ray-test",)),
    "audit": Environment(".venv-audit", ("pip-audit>=2.9,<3",)),
    "dist": Environment(".venv-dist", ("build>=1.2", "hatchling>=1.28"), lock="locks/dist.txt"),
    "lock": Environment(".venv-lock", ("uv>=0.9",)),
    "lowest": Environment(".venv-lowest", (EVERYTHING,), groups=("test",), torch=True, floors=True),
    "site": Environment(".venv-site", ("--editable=.",), groups=("site",)),
}


def main() -> None:
    """Run the command named on the command line; exit with its status."""
    if sys.version_info[:2] <= NEWEST_UNSUPPORTED:
        version = "{}.{}".format(*sys.version_info[:2])
        sys.exit(f"bertport needs Python 3.11 or later and this is {version}: run dev.py with a newer one")
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in COMMANDS or (arguments and not COMMANDS[name][2]):
        print(usage(), file=sys.stderr if name not in ("-h", "--help") else sys.stdout)
        sys.exit(0 if name in ("-h", "--help") else 2)
    try:
        COMMANDS[name][0](*arguments)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def usage() -> str:
    """Return the help text: one line per command."""
    rows = [
        "  {:<31}{}".format(name + (" [ARGUMENT...]" if passes_on else ""), text)
        for name, (_, text, passes_on) in COMMANDS.items()
    ]
    return "\n".join(["usage: python3 dev.py COMMAND", "", "commands:", *rows])


def demo(*arguments: str) -> None:
    """Answer with the embedded default model, which needs no PyTorch; then export, quantize and serve a checkpoint."""
    import dev_demo

    if arguments not in ((), ("--answers",)):
        say("demo takes --answers, which ends it after the first answers, and nothing else")
        sys.exit(2)
    dev_demo.answers(executable(environment("demo"), "bertport"))
    if not arguments:
        dev_demo.main_job(executable(environment("main job"), "bertport").parent)


def test(*arguments: str) -> None:
    """Run every test that takes seconds, on two workers, or what pytest is asked for."""
    python = executable(environment("dev"), "python")
    pytest(python, *(arguments or (*WORKERS, "--durations=20", "-m", "not slow and not gpu")))


def pytest(python: Path, *arguments: str | Path) -> None:
    """Run pytest with bytecode kept, whatever the machine is set to, but for what pip would compile ahead.

    Each worker rewrites hundreds of files, and tests start hundreds of processes that compile bertport, without it.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    call(python, "-m", "pytest", *arguments, environ={**kept, **AS_IMPORTED})


AS_IMPORTED = {"PIP_COMPILE": "0"}
"""Half of pip's time is compiling modules, of which tests import a small part, which Python compiles and keeps."""
WORKERS = ("--numprocesses=2", "--dist=worksteal")
"""Options of pytest-xdist. Each worker gets a half in the order of the files, since a module's tests share what its
fixtures made; the one that is done first takes from what the other has left."""
WITHOUT_CACHE = ("-p", "no:cacheprovider")
"""In environments beside `.venv`: the failures that pytest remembers are those of its tests."""


def docs() -> None:
    """Write the pages of commands and of evaluations, and what the examples print into the README and the pages."""
    for program in ("docs/generate_batch.py", "docs/generate_cli.py", "docs/generate_evaluation.py"):
        call(executable(environment("dev"), "python"), program)
    os.environ["BERTPORT_REWRITE_DOCS"] = "1"
    test("tests/docs/test_examples.py", "tests/docs/test_readme.py")


def site(*refs: str) -> None:
    """Build the documentation's site, or one of several versions; a link or an anchor that leads nowhere fails it."""
    call(executable(environment("site"), "python"), "docs/build_site.py", *refs)


def slow() -> None:
    """Run the tests that take minutes, on two workers: the wheel, the README's commands, transformers.js."""
    test(*WORKERS, "--durations=30", "-m", "slow and not long and not gpu")


def long() -> None:
    """Run the tests of which one takes minutes by itself: programs of bench to their end, every family exported."""
    test("-m", "long and not ray")


def check() -> None:
    """Lint, check the format and check the types of everything; all three are run, whatever they find."""
    python = executable(environment("dev"), "python")
    # Each area is a source root of its own; tests are checked by running them.
    typed = [path for path in TYPED if (ROOT / path).is_file() or any((ROOT / path).rglob("*.py"))]
    tools = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", *typed])
    failed = [" ".join(tool[:2]) for tool in tools if subprocess.call([str(python), "-m", *tool], cwd=str(ROOT)) != 0]
    if failed:
        sys.exit(f"dev.py: these found something: {', '.join(failed)}")


TYPED = (
    *(f"{area}/bertport" for area in AREAS),
    *PROGRAMS,
    "dev.py",
    "dev_audit.py",
    "dev_demo.py",
    "dev_notes.py",
    "hatch_build.py",
    "hatch_sbom.py",
)


def audit() -> None:
    """Look for known vulnerabilities in the packages of the environment that the tests run in."""
    packages = executable(environment("dev"), "python")
    tool = environment("audit")
    call(executable(tool, "python"), "dev_audit.py", executable(tool, "pip-audit"), packages)


def notes(*arguments: str) -> None:
    """Print the release notes of a version."""
    import dev_notes

    dev_notes.main(*arguments)


def dist() -> None:
    """Build the source distribution and the wheel in dist/, as a release does: the same bytes of a commit each time."""
    python = executable(environment("dist"), "python")
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    git = ["git", "show", "--no-patch", "--format=%ct", "HEAD"]
    committed = subprocess.check_output(git, cwd=str(ROOT), universal_newlines=True).strip()
    os.environ.setdefault("SOURCE_DATE_EPOCH", committed)
    call(python, "-m", "build", "--no-isolation", "--outdir", out)


def lock() -> None:
    """Choose the newest versions for each environment with a lock, and write them with the hashes of their files."""
    venv = environment("lock")
    for wanted in ENVIRONMENTS.values():
        if not wanted.lock:
            continue
        asked = venv / "asked.txt"
        asked.write_text("\n".join(wanted.requirements) + "\n", encoding="utf-8")
        # For each Python and system that is supported, whatever runs here.
        options = [
            "--universal",
            "--python-version=3.11",
            "--generate-hashes",
            "--upgrade",
            "--no-annotate",
            "--no-header",
        ]
        call(executable(venv, "uv"), "pip", "compile", "--quiet", *options, "--output-file", ROOT / wanted.lock, asked)
        say(f"wrote {wanted.lock}")


def lowest(*arguments: str) -> None:
    """Run the runtime's tests and an export on the lowest version of each package that pyproject.toml allows."""
    if not has_floors():
        newest = "{}.{}".format(*NEWEST_OF_FLOORS)
        say(f"NOT TESTED: the lowest versions have no wheels for this Python: run dev.py with Python {newest} or older")
        return
    python = executable(environment("lowest"), "python")
    chosen = arguments or ("tests/runtime", "tests/export/test_cli.py", "-m", "not optimum and not slow and not gpu")
    pytest(python, *WITHOUT_CACHE, *(() if arguments else WORKERS), *chosen)


def optimum(*arguments: str) -> None:
    """Run what needs optimum-onnx, and what both generations of transformers run, in the environment of the older."""
    python = executable(environment("optimum"), "python")
    call(python, "-c", "import optimum.onnxruntime")  # without it, what is marked `optimum` would only be skipped
    if arguments:
        pytest(python, *WITHOUT_CACHE, *arguments)
        return
    pytest(python, *WITHOUT_CACHE, *WORKERS, *BOTH_GENERATIONS, "-m", "not optimum and not slow and not gpu")
    # Not the whole of tests/: some modules import what the group test does not bring.
    files = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if OPTIMUM_MARK in path.read_bytes())
    pytest(python, *WITHOUT_CACHE, *WORKERS, *files, "-m", "optimum and not gpu")


BOTH_GENERATIONS = (
    *(f"tests/export/{name}" for name in ("checkpoint", "graph", "test_embeddings.py", "test_export.py")),
    *(f"tests/export/{name}" for name in ("test_families.py", "test_heads.py", "test_tracers.py")),
    "tests/measure/speed/test_baselines.py",
)
"""Tests of what transformers 4.57 and today's run alike: reading checkpoints, tokenizers, tracing. The others of
tests/export, and the training recipe's, tests/models, can be asked for by name: CI has no time for them twice."""
OPTIMUM_MARK = b"pytest.mark.optimum"


def ray(*arguments: str) -> None:
    """Run what needs Ray, several nodes on this machine, or an object store, in an environment of its own."""
    python = executable(environment("ray"), "python")
    call(python, "-c", "import ray.data, ray.serve")  # without it, what is marked `ray` would only be skipped
    files: list[Path] = []
    if not any(argument.startswith("tests") for argument in arguments):
        # Not the whole of tests/: some modules import what this environment lacks.
        files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if RAY_MARK in path.read_bytes()]
    pytest(python, *WITHOUT_CACHE, *files, *(arguments or ("-m", "ray")))


RAY_MARK = b"pytest.mark.ray"


def has_floors() -> bool:
    """Return whether the lowest versions can be installed for this Python."""
    return sys.version_info[:2] <= NEWEST_OF_FLOORS


def floors() -> str:
    """Return pip's constraints: of each dependency the lowest version that all who ask for it allow."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(requirement for name in EXTRAS for requirement in extras[name])]
    found: dict[str, str] = {}
    for requirement in wanted:
        line = re.sub(r"^([\w.-]+)(?:\[.*\])?\s*(?:>=|==|~=)\s*([\w.]+).*$", r"\1==\2", requirement)
        name, _, version = line.partition("==")
        found[name] = max(found.get(name, ""), version, key=numbers)  # extras may state different floors
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def numbers(text: str) -> list[int]:
    """Return the numbers in a text, by which versions are ordered."""
    return [int(number) for number in re.findall(r"\d+", text)]


def everything() -> None:
    """Do all that must pass before a change lands."""
    check()
    slow()
    long()
    lowest()
    optimum()
    ray()
    test()


def prepare() -> None:
    """Make the environments of everything that .ci/run does after the demonstration, beside which it runs."""
    os.environ.update(AS_IMPORTED)
    for name in ("dev", "lowest", "optimum", "ray", "audit"):
        if name != "lowest" or has_floors():
            environment(name)


def system() -> None:
    """Install Debian's packages that tests need; the tests say why they skip where this cannot."""
    wanted = dict(SYSTEM)
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "vnni" in flags.read_text(encoding="utf-8", errors="replace"):
        wanted.update(AVX2_SYSTEM)
    else:
        say("this CPU's own 8-bit products overflow, or it is no x86 CPU: nothing is needed to show that they do")
    missing = [package for program, packages in wanted.items() if not shutil.which(program) for package in packages]
    if not missing:
        return
    names = ", ".join(missing)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        say(f"{names}: not installed, which takes root and apt-get: tests that need them will skip")
        return
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing]
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.call(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done == 0 and command is install:
            say(f"installed {names} for the tests")
            return
    say(f"apt-get could not install {names}: tests that need them will skip")


def environment(name: str) -> Path:
    """Make the virtual environment `name` unless it is there and up to date, and return its directory.

    While another process makes it, this one waits. Where nothing has to be made, nothing is written.
    """
    wanted = ENVIRONMENTS[name]
    venv = ROOT / wanted.directory
    if not up_to_date(venv, wanted):
        with alone(venv.with_name(f"{venv.name}.lock")):
            if not up_to_date(venv, wanted):  # which another process may have made meanwhile
                make(venv, wanted)
    return venv


def up_to_date(venv: Path, wanted: Environment) -> bool:
    """Return whether a virtual environment is there, and made of what is wanted now."""
    stamp = venv / STAMP
    return stamp.is_file() and stamp.read_text() == fingerprint(wanted) and executable(venv, "python").exists()


def make(venv: Path, wanted: Environment) -> None:
    """Make a virtual environment, or bring it up to date."""
    began = time.monotonic()
    installed = [text.replace("--editable=.", "bertport") for text in wanted.requirements]
    named = " ".join([*installed, *wanted.groups])
    say(f"setting up {wanted.directory} with {named} (once; a few minutes at most)")
    if not executable(venv, "python").exists() or not runs(executable(venv, "python"), "-m", "pip", "--version"):
        create(venv)
    install(venv, wanted)
    (venv / STAMP).write_text(fingerprint(wanted))
    say(f"{wanted.directory} is ready ({time.monotonic() - began:.0f} s)")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock, which ends with this process; Windows has no such locks, and nothing is held there."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(venv: Path, wanted: Environment) -> None:
    """Install what an environment is made of."""
    python = executable(venv, "python")
    if wanted.lock:  # it names every package, so nothing else is looked for
        pip(python, "--require-hashes", "--no-deps", f"--requirement={ROOT / wanted.lock}")
        return
    arguments = [*wanted.requirements]
    if wanted.groups:
        upgrade_pip(python)
        arguments += [f"--group={group}" for group in wanted.groups]
    if wanted.torch:
        install_torch(python)
    if wanted.floors:
        constraints = venv / "lowest.txt"
        constraints.write_text(floors(), encoding="utf-8")
        arguments.append(f"--constraint={constraints}")
    pip(python, *arguments)


def upgrade_pip(python: Path) -> None:
    """Bring an environment's pip up to a version that knows dependency groups."""
    said = subprocess.check_output([str(python), "-m", "pip", "--version"], universal_newlines=True)
    if tuple(numbers(said)[:2]) < GROUPS_SINCE:  # pip 24.0 from /...
        pip(python, "--upgrade", "pip>={}.{}".format(*GROUPS_SINCE))


def create(venv: Path) -> None:
    """Make an empty virtual environment that holds pip."""
    if venv.exists():
        shutil.rmtree(venv)
    if subprocess.call([sys.executable, "-m", "venv", str(venv)], stdout=subprocess.DEVNULL) == 0:
        return
    sys.exit(
        "python -m venv failed: this Python comes without ensurepip; install it (Debian and Ubuntu: "
        "apt-get install python3-venv), or run dev.py with another Python 3.11 or later"
    )


def install_torch(python: Path) -> None:
    """Install the CPU build of PyTorch; the plain request can bring gigabytes of CUDA on Linux."""
    if not sys.platform.startswith("linux"):
        pip(python, f"torch=={TORCH}")
        return
    build = f"torch=={TORCH}+cpu"
    if runs(python, "-c", f"import torch; assert torch.__version__ == '{TORCH}+cpu'"):
        return
    if subprocess.call([str(python), *PIP_INSTALL, build], stderr=subprocess.DEVNULL) != 0:
        pip(python, build, "--extra-index-url", CPU_TORCH_INDEX)


PIP_INSTALL = ("-m", "pip", "install", "-qq", "--disable-pip-version-check")  # -qq: errors, and no warnings


def pip(python: Path, *requirements: str) -> None:
    """Install with the settings that this machine's pip has."""
    call(python, *PIP_INSTALL, *requirements)


def fingerprint(wanted: Environment) -> str:
    """Return a hash of what an environment is made of: it is remade when any of it changes."""
    parts = [
        sys.version,
        sys.executable,
        str(ROOT),
        repr(wanted),
        TORCH,
        (ROOT / (wanted.lock or "pyproject.toml")).read_text(encoding="utf-8"),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def executable(venv: Path, name: str) -> Path:
    """Return the path of a program in a virtual environment."""
    return venv / "Scripts" / f"{name}.exe" if os.name == "nt" else venv / "bin" / name


def runs(*command: str | Path) -> bool:
    """Return whether a command succeeds, in silence."""
    words = [str(word) for word in command]
    return subprocess.call(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def call(*command: str | Path, environ: dict[str, str] | None = None) -> None:
    """Run a command from the checkout's root, with this process's variables or others; its failure is ours."""
    subprocess.check_call([str(word) for word in command], cwd=str(ROOT), env=environ)


def say(text: str) -> None:
    """Report progress, apart from results."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


# One row per command: the function, its line in --help, whether it passes its arguments on.
COMMANDS = {
    "demo": (demo, "answer with the embedded model, then export, quantize and serve one; --answers: no more", True),
    "test": (test, "run the tests, on two workers; arguments go to pytest instead", True),
    "slow": (slow, "run the tests that take minutes", False),
    "long": (long, "run those of which one takes minutes by itself, which .ci/run leaves out", False),
    "prepare": (prepare, "make the environments that all else needs, ahead of it", False),
    "system": (system, "install the system packages that tests need (Debian, as root)", False),
    "docs": (docs, "write what the examples print into README.md and docs/", False),
    "site": (site, "build the documentation's site in out/site; of tags named, in out/sites", True),
    "check": (check, "ruff, its formatter and mypy --strict", False),
    "audit": (audit, "ask advisory sources about the packages in use; fails for a known vulnerability", False),
    "notes": (notes, "print CHANGELOG.md's notes of a version; --tag v1.2.3 refuses what is not ready", True),
    "dist": (dist, "build the source distribution and the wheel in dist/, as a release does", False),
    "lock": (lock, "choose the newest versions for locks/, which `dist` installs by hash", False),
    "lowest": (lowest, "the runtime's tests and an export on the lowest versions allowed", True),
    "optimum": (optimum, "the export's and Optimum's tests, with transformers 4.57; arguments as for test", True),
    "ray": (ray, "what needs Ray or an object store; arguments as for test", True),
    "all": (everything, "check, slow, long, lowest, optimum, ray and test: more than .ci/run does", False),
}

if __name__ == "__main__":
    main()
