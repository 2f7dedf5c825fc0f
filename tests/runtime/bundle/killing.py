"""A program that does one change to a bundle again and again, killed before one more of its steps each time.

    python killing.py BUNDLE SCRATCH CHANGE [--portable]

A step is what Python's audit events tell: a file opened, renamed or removed, a directory made or removed, a lock. After
each kill the bundle must be the old or the new one, whole, and the change must succeed when it is tried again, after
which nothing else is there. Prints the number of steps.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

STEPS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.symlink",
    "fcntl.flock",
    "os.scandir",
}


def hide() -> None:
    """Behave as on a system without flock and without an exchange of names."""
    sys.modules["fcntl"] = sys.modules["resource"] = None
    import ctypes

    class Without:
        def __init__(self, *_, **__):
            pass

        def __getattr__(self, name):
            raise AttributeError(name)

    ctypes.CDLL = Without


def model(content: bytes) -> bytes:
    """Return an ONNX model that has a producer, whose name begins like the content, and nothing else."""
    return b"\x12" + bytes([len(content[:100])]) + content[:100]


def put(bundle: Path, name: str, *, overwrite: bool = False, content: bytes = b"graph", stem: str = "") -> None:
    """Add a variant of a file and its weights, named after it or `stem`, both of the content."""
    from bertport.runtime.bundle.changes import add_variant
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.workspace import Workspace

    opened = Bundle.open(bundle)
    with Workspace.beside(opened) as work:
        file = work.reserve(f"onnx/{stem or name}.onnx")
        files = {file: work.directory / "graph", f"{file}_data": work.directory / "data"}
        (work.directory / "graph").write_bytes(model(content))
        (work.directory / "data").write_bytes(content)
        fp32 = opened.manifest.variants["fp32"]
        variant = dataclasses.replace(fp32, file=file, external_data=(f"{file}_data",), recipe=name)
        add_variant(work, name, variant, files, overwrite=overwrite)


def add(bundle: Path, _: Path) -> None:
    """Add a variant with a file of weights, a table and golden vectors, or make it again."""
    from bertport.runtime.bundle.changes import add_variant, tidy
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.golden import read_golden
    from bertport.runtime.bundle.workspace import Workspace

    tidy(bundle)
    opened = Bundle.open(bundle)
    with Workspace.beside(opened) as work:
        file = work.reserve("onnx/more.onnx")
        number = len(opened.manifest.files)
        for name, content in (("more", b"graph"), ("more_data", b"weights"), ("table", b"table")):
            written = content + str(number).encode() + os.urandom(4)
            (work.directory / name).write_bytes(model(written) if name == "more" else written)
        paths = {file: "more", f"{file}_data": "more_data", "quantization/more.json": "table"}
        fp32 = opened.manifest.variants["fp32"]
        variant = dataclasses.replace(fp32, file=file, external_data=(f"{file}_data",), recipe="more")
        files = {path: work.directory / name for path, name in paths.items()}
        golden = read_golden(opened)
        add_variant(
            work,
            "more",
            variant,
            files,
            overwrite=True,
            default=lambda now: now.manifest.default_variant,
            golden=golden.variants["fp32"] if golden else None,
        )


def figures(bundle: Path, _: Path) -> None:
    """Change a variant's figures, and the card another text."""
    from bertport.runtime.bundle.changes import replace_figures, rewrite_card
    from bertport.runtime.bundle.directory import Bundle

    opened = Bundle.open(bundle)
    variant = dataclasses.replace(opened.manifest.variants["fp32"], fidelity={"number": os.urandom(4).hex()})
    replace_figures(opened, "fp32", variant, default=lambda now: now.manifest.default_variant)
    rewrite_card(bundle, lambda old, manifest: f"{old}{manifest.name}\n")


def table(bundle: Path, _: Path) -> None:
    """Add a file that belongs to no graph, or write it again."""
    from bertport.runtime.bundle.changes import add_files
    from bertport.runtime.bundle.directory import Bundle

    def write(directory: Path) -> dict[str, Path]:
        (directory / "table").write_bytes(os.urandom(8))
        return {"quantization/fp32.json": directory / "table"}

    add_files(Bundle.open(bundle), write)


def replace(bundle: Path, scratch: Path) -> None:
    """Replace this bundle by another, or put one where none is."""
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.writer import new_bundle, write_manifest

    with new_bundle(bundle, overwrite=True) as building:
        shutil.copytree(scratch / "whole", building, dirs_exist_ok=True)
        manifest = Bundle.open(building).manifest
        write_manifest(building, dataclasses.replace(manifest, name=f"new-{os.urandom(4).hex()}"))


CHANGES = {"add": add, "again": add, "figures": figures, "table": table, "replace": replace, "new": replace}


def killed_at(step: int, change, *arguments: Path) -> bool:
    """Return whether a process was killed before a step of a change; False where the change has fewer steps."""
    child = os.fork()
    if not child:
        left = step

        def hook(event, _):
            nonlocal left
            if event in STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            change(*arguments)
        except BaseException:  # noqa: BLE001 — shown by the parent
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def whole(bundle: Path) -> bytes:
    """Return the manifest of a bundle in which nothing else is wrong."""
    from bertport.runtime.bundle.directory import Bundle

    Bundle.open(bundle).verify()
    return (bundle / "manifest.json").read_bytes()


def main(source: str, place: str, name: str, *options: str) -> None:
    import logging

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.errors import PathError

    logging.disable(logging.CRITICAL)
    if options:
        hide()
    change, scratch = CHANGES[name], Path(place)
    shutil.copytree(source, scratch / "whole")
    prepared = shutil.copytree(source, scratch / "prepared" / "bundle")
    for _ in range(2 if name == "again" else 0):
        change(prepared, scratch)
    for step in count(1):
        folder = scratch / str(step)
        folder.mkdir()
        bundle = folder / "bundle"
        if name != "new":
            shutil.copytree(prepared, bundle)
        before = whole(bundle) if bundle.exists() else None
        killed = killed_at(step, change, bundle, scratch)
        if bundle.exists():
            whole(bundle)
        else:  # taken from its place, where names are not exchanged: it can be told from one that never was
            message = ""
            try:
                Bundle.open(bundle)
            except PathError as error:
                message = str(error)
            assert ("no such directory" if name == "new" else "which is whole in") in message, message
        change(bundle, scratch)
        after = whole(bundle)
        assert after != before
        assert not Bundle.open(bundle).verify(), (step, Bundle.open(bundle).verify())
        assert [path.name for path in folder.iterdir()] == ["bundle"], (step, list(folder.iterdir()))
        shutil.rmtree(folder)
        if not killed:
            sys.stdout.write(f"{step}\n")
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
