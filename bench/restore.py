"""Return a bundle's weights as a transformers checkpoint, so that peers run on exactly the same numbers.

python bench/restore.py [BUNDLE] OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bertport.measure.speed.restoring import restore_checkpoint
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle


def restore(bundle: Path, out: Path) -> Path:
    """Write the checkpoint that the bundle in a directory was exported from; `restore_checkpoint` says the rest."""
    return restore_checkpoint(Bundle.open(bundle), out)


def main() -> None:
    """Restore the bundle named on the command line, or the default."""
    *bundle, out = map(Path, sys.argv[1:])
    path = restore(bundle[0] if bundle else default_bundle(), Path(out))
    print(json.dumps({"checkpoint": str(path)}))


if __name__ == "__main__":
    main()
