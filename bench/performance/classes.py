"""The classes of CPU that bench.performance has a page for, by what multiplies 8-bit numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLASSES", "CpuClass", "class_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuClass:
    """One row: a class of CPU."""

    name: str
    """Name of the class, which its page and its figures have."""
    title: str
    """Name of such CPUs on a page."""
    instruction_sets: tuple[str, ...]
    """Rows of the runtime's table of instruction sets that belong to it."""
    command: str = "python -m bench.performance"
    """Command that measures it."""

    @property
    def stem(self) -> str:
        """Name of its page and of its figures, without their endings."""
        return f"performance-{self.name}"


CLASSES: dict[str, CpuClass] = {
    row.name: row
    for row in (
        CpuClass(
            name="avx2",
            title="AVX2 alone",
            instruction_sets=("avx2",),
            command="python -m bench.avx2 python -m bench.performance",
        ),
        CpuClass(
            name="vnni",
            title="VNNI",
            instruction_sets=("avx512_vnni", "avx_vnni"),
        ),
        CpuClass(name="amx", title="AMX", instruction_sets=("amx",)),
    )
}
"""By name, in the order in which they gain more by 8 bits."""


def class_of(instruction_set: str) -> CpuClass:
    """Return the class of an instruction set; one of its own where the table has none, such as arm64."""
    known = (row for row in CLASSES.values() if instruction_set in row.instruction_sets)
    return next(known, CpuClass(name=instruction_set, title=instruction_set, instruction_sets=(instruction_set,)))
