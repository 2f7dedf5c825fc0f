"""Fine-tune an encoder on labelled data: `python models/finetune.py --help`."""

import itertools
from pathlib import Path

import click

from bertport.runtime.commands.options import FiniteRange
from bertport.runtime.errors import BertportError
from finetuning.job import Job, perform
from finetuning.tasks import GRID_EPOCHS, GRID_RATES, TASKS, Settings
from pretraining.errors import RecipeError
from pretraining.machine import StopRequest, choose_hardware


def _shown(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option("--task", "name", type=click.Choice(list(TASKS)), required=True, help="What is learned.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory with TASK-train.jsonl, and TASK-dev.jsonl to score on at the end; plain or compressed.",
)
@click.option("--init", type=click.Path(path_type=Path), required=True, help="Bundle or checkpoint to start from.")
@click.option("--output", type=DIRECTORY, required=True, help="Directory of the run; one that is there is resumed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the fresh head, the order and dropout.")
@click.option(
    "--rate",
    "rates",
    type=FiniteRange(min=0, min_open=True),
    multiple=True,
    help=f"Highest learning rate; with --select, several.  [default: the task's; to select, {_shown(GRID_RATES)}]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    multiple=True,
    help=f"Passes over the data; with --select, several.  [default: the task's; to select, {_shown(GRID_EPOCHS)}]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    multiple=True,
    help="Rows in one step; with --select, several.  [default: the task's]",
)
@click.option(
    "--dropout",
    "dropouts",
    type=FiniteRange(0, 1, max_open=True),
    multiple=True,
    help="Dropout of encoder and classifier; with --select, several.  [default: the task's]",
)
@click.option("--select", is_flag=True, help="Choose among the settings given, on a tenth of TASK-train held out.")
@click.option("--trial-rows", type=click.IntRange(min=1), help="Train each trial of --select on so many rows at most.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: as many as there are cores]")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", help="Type of matrix products."
)
@click.option("--save-every", type=FiniteRange(0, 600), default=300, help="Seconds that a kill can lose at most.")
def main(  # noqa: PLR0913 — one parameter per option
    *,
    name: str,
    data: Path,
    init: Path,
    output: Path,
    seed: int,
    rates: tuple[float, ...],
    epochs: tuple[int, ...],
    batch: tuple[int, ...],
    dropouts: tuple[float, ...],
    select: bool,
    trial_rows: int | None,
    threads: int | None,
    dtype: str,
    save_every: float,
) -> None:
    """Fine-tune an encoder on labelled data, on the CPU or a CUDA device.

    The same command once more resumes after any interruption and gives the same result. SIGTERM and SIGINT
    save a checkpoint first. OUTPUT/model is the result, which transformers and `bertport export` read;
    OUTPUT/log.jsonl is the learning curve and OUTPUT/run.json the record of what was done.
    """
    own = TASKS[name].settings
    rates = rates or (GRID_RATES if select else (own.rate,))
    epochs = epochs or (GRID_EPOCHS if select else (own.epochs,))
    candidates = tuple(
        Settings(rate=rate, epochs=count, batch=size, dropout=dropout)
        for dropout, size, count, rate in itertools.product(
            dropouts or (own.dropout,), batch or (own.batch,), epochs, rates
        )
    )
    if len(candidates) > 1 and not select:
        raise click.UsageError(f"{len(candidates)} settings were given: add --select to choose among them, or give one")
    if trial_rows and not select:
        raise click.UsageError("--trial-rows is about the trials of --select: give both, or neither")
    hardware = choose_hardware(threads=threads, dtype=dtype)
    try:
        with StopRequest() as stopping:
            job = Job(
                name=name,
                data=data,
                init=init,
                output=output,
                seed=seed,
                candidates=candidates,
                select=select,
                trial_rows=trial_rows,
                hardware=hardware,
                save_every_s=save_every,
                stopping=stopping,
                noted=lambda note: click.echo(f"note: {note}", err=True),
            )
            done = perform(job)
    except (RecipeError, BertportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(done, err=True)


if __name__ == "__main__":
    main()
