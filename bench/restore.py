"""Return a bundle's weights as a transformers checkpoint, so that peers run on exactly the same numbers.

python -m bench.restore [BUNDLE] OUT
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bertport.measure.speed.baselines import restore_checkpoint
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle


def restore(bundle: Path, out: Path) -> Path:
    """Write the checkpoint that the bundle in a directory was exported from; `restore_checkpoint` says the rest."""
    return restore_checkpoint(Bundle.open(bundle), out)


def main() -> None:
    """Restore the bundle named on the command line, or the default."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", help="the embedded default when not given")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    path = restore(given.bundle or default_bundle(), given.out)
    print(json.dumps({"checkpoint": str(path)}))


if __name__ == "__main__":
    main()
