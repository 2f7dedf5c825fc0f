"""What a worker of Ray asks for is what it then runs on."""

from __future__ import annotations

import pytest

from bertport.batch.job import Job, Runs, Source
from bertport.batch.on_ray import _for_workers, _resources
from bertport.batch.tasks import TASKS
from bertport.runtime.providers.table import AUTO, PROVIDERS


def job(**runs):
    form = TASKS["fill-mask"].forms[0]
    source = Source(format="json", form=form, columns={"text": "text"}, carried={})
    asked = Runs(bundle=None, digest="", **runs)
    return Job(id="1", task="fill-mask", parameters={}, runs=asked, source=source, output="out", on_error="keep")


@pytest.mark.parametrize("name", [AUTO, *PROVIDERS])
def test_a_worker_runs_on_a_gpu_exactly_if_it_asks_for_one(name):
    """Ray does not hide a GPU from an actor that asks for none: `auto` would take one that is another's."""
    asked = job(provider=name, threads=2)
    given = _for_workers(asked).runs
    assert given.provider in PROVIDERS
    assert given.provider == ("cpu" if name == AUTO else name)
    gpus = {} if PROVIDERS[given.provider].on_cpu else {"num_gpus": 1}
    assert _resources(asked) == {"num_cpus": given.threads, **gpus} == {"num_cpus": 2, **gpus}


def test_what_a_library_holds_is_left_to_it():
    """`auto` means the provider of the library there, which `cpu` is not."""
    assert _for_workers(job(provider_library="/lib/ep.so")).runs.provider == AUTO
