"""What a replica of Ray Serve is told, for which no Ray is needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bertport.runtime.errors import ProviderError, UsageError
from bertport.runtime.providers.table import AUTO, PROVIDERS
from bertport.serve.ray import _settings, build, deploy


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


def test_a_replica_finds_a_library_wherever_ray_started_it(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _settings(tiny_bundle, {"provider_library": "ep.so"}, 0.0).provider_library == str(tmp_path / "ep.so")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_replicas": "many"}, "max_replicas is 'many' and has to be a whole number"),
        ({"max_replicas": "4.5"}, "max_replicas is '4.5' and has to be a whole number"),
        ({"max_replicas": 4.5}, "max_replicas is 4.5 and has to be a whole number"),
        ({"min_replicas": float("inf")}, "min_replicas is inf and has to be a whole number"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is 3 and max_replicas 2: give 1 or more"),
        ({"target_requests": "few"}, "target_requests is 'few' and has to be a number"),
        ({"target_requests": 0}, "target_requests is 0.0 and has to be more than 0, and finite"),
        ({"target_requests": "nan"}, "target_requests is nan and has to be more than 0, and finite"),
        ({"target_requests": "inf"}, "target_requests is inf and has to be more than 0, and finite"),
        ({"target_requests": 1e308}, "target_requests is 1e+308 and has to be more than 0, and finite"),
        ({"upscale_seconds": -1}, "upscale_seconds is -1.0 and has to be 0 or more, and finite"),
        ({"downscale_seconds": "inf"}, "downscale_seconds is inf and has to be 0 or more, and finite"),
        ({"gpus": "nan"}, "gpus is nan and has to be 0 or more, and finite"),
        ({"api_key": None}, "api_key is null: give it a value, or leave it out"),
        ({"memory": None, "gpus": None}, "memory is null: give it a value, or leave it out"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(settings, said):
    with pytest.raises(UsageError) as caught:
        build(settings)
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("seconds", [float("nan"), -1])
def test_there_is_an_end_to_waiting(seconds):
    with pytest.raises(UsageError, match=f"wait_seconds is {seconds} and has to be 0 or more"):
        deploy(wait_seconds=seconds)


def test_an_application_that_is_deleted_while_it_starts_is_one_sentence(monkeypatch):
    serve = SimpleNamespace(
        RunTarget=lambda *_, **__: None,
        run_many=lambda *_, **__: None,
        status=lambda: SimpleNamespace(applications={}),
    )
    monkeypatch.setattr("bertport.serve.ray._ray_serve", lambda: serve)
    monkeypatch.setattr("bertport.serve.ray.application", lambda *_, **__: None)
    with pytest.raises(ProviderError, match="the application 'bertport' was deleted while it started: deploy it again"):
        deploy()
