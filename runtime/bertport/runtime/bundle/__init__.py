"""Bundles on disk: the manifest, reading, writing, and choosing a variant."""

from typing import TYPE_CHECKING

from bertport.runtime.deprecated import moved

__all__: list[str] = []

if not TYPE_CHECKING:  # type checkers are to know the new paths alone
    __getattr__ = moved(
        __name__,
        {
            **dict.fromkeys(("MANIFEST", "Bundle", "file_sha256"), "bertport.runtime.bundle.directory"),
            **dict.fromkeys(
                ("describe_files", "new_bundle", "no_room", "refuse_existing", "write_manifest"),
                "bertport.runtime.bundle.writer",
            ),
        },
    )
