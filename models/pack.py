"""Tokenize a corpus beforehand: `python models/pack.py --help`."""

from pathlib import Path

import click

from pretraining.corpus import PACKED, pack
from pretraining.errors import RecipeError
from pretraining.vocabulary import read_tokenizer

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("corpus", type=FILE)
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tokenizer", type=FILE, required=True, help="The tokenizer.json of the checkpoint to be trained.")
def main(corpus: Path, output: Path, tokenizer: Path) -> None:
    """Tokenize CORPUS, JSON lines, into OUTPUT, which models/pretrain.py takes for it."""
    if output.suffix != PACKED:
        raise click.UsageError(f"{output} does not end in {PACKED}, by which pretrain.py knows a packed corpus: add it")
    try:
        pack(corpus, read_tokenizer(tokenizer), output)
    except RecipeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB", err=True)


if __name__ == "__main__":
    main()
