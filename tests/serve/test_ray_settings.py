"""What a replica of Ray Serve is told, for which no Ray is needed."""

from __future__ import annotations

import pytest

from bertport.runtime.errors import UsageError
from bertport.runtime.providers.table import AUTO, PROVIDERS
from bertport.serve.ray import _settings


@pytest.mark.parametrize("name", [AUTO, *PROVIDERS])
def test_a_replica_without_a_gpu_of_its_own_takes_none(name, tiny_bundle):
    """Ray does not hide the GPUs of a node from it."""
    options = {} if name == AUTO else {"provider": name}
    assert _settings(tiny_bundle, options, 1.0).provider == name
    if name == AUTO or PROVIDERS[name].on_cpu:
        assert _settings(tiny_bundle, options, 0.0).provider == ("cpu" if name == AUTO else name)
        return
    with pytest.raises(UsageError, match=f"provider {name!r} needs a GPU and gpus is 0.*give gpus=1"):
        _settings(tiny_bundle, options, 0.0)


def test_a_library_keeps_its_provider(tiny_bundle, tmp_path):
    assert _settings(tiny_bundle, {"provider_library": str(tmp_path / "ep.so")}, 0.0).provider == AUTO
