"""Turn a finished pretraining run into the embedded default bundle: `python models/export_default.py --help`."""

import shutil
import tempfile
from pathlib import Path

import click

from bertport.export import export
from bertport.runtime.errors import BertportError
from evaluation.record import TRAINING

DEFAULT = Path(__file__).parent / "default"
NAME = "bertport-default"
FRONT_MATTER = "---\nlanguage:\n  - en\nlicense: apache-2.0\n---\n"
"""Front matter of the checkpoint's card, for the bundle's manifest: the licence is that of the encoder started from."""
MOST_BYTES = 75_000_000
"""Largest size of the default bundle that the repository may hold, in bytes, variants included."""


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT, help="Directory of the bundle."
)
@click.option(
    "--training", type=click.Path(file_okay=False, path_type=Path), default=TRAINING, help="Directory of its record."
)
def main(run: Path, output: Path, training: Path) -> None:
    """Export RUN, the --output of a finished models/pretrain.py, as models/default, and keep its record beside it.

    Matrices are stored in 16 bits. `bertport quantize models/default` and models/evaluate.py, which writes the
    card, come after it.
    """
    if not (run / "model" / "config.json").is_file():
        raise click.ClickException(
            f"{run} holds no finished model: run the command of models/pretrain.py again until it has ended"
        )
    if (output.resolve() == DEFAULT.resolve()) != (training.resolve() == TRAINING.resolve()):
        raise click.UsageError("--output and --training belong together: give both, or neither for the default bundle")
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / NAME  # the manifest records this name as the source
        shutil.copytree(run / "model", checkpoint)
        (checkpoint / "README.md").write_text(FRONT_MATTER, encoding="utf-8")
        try:
            bundle = export(
                checkpoint, output, weights="float16", name=NAME, heads=("mlm", "nsp", "pooler"), overwrite=True
            )
        except BertportError as error:
            raise click.ClickException(str(error)) from error
    training.mkdir(parents=True, exist_ok=True)
    for name in ("log.jsonl", "run.json"):
        shutil.copy(run / name, training / name)
    (training / "evaluation.json").unlink(missing_ok=True)  # it is of the model before
    size = sum(entry.size for entry in bundle.manifest.files.values())
    click.echo(f"{output}: {size / 1e6:.1f} MB, variants {', '.join(bundle.manifest.variants)}", err=True)
    if size > MOST_BYTES:
        raise click.ClickException(f"{output} is larger than {MOST_BYTES / 1e6:.0f} MB: too large for the repository")


if __name__ == "__main__":
    main()
