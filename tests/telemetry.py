"""Traces that ONNX Runtime's telemetry leaves in a home directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


AUTOMATION = (
    *("CI", "APPVEYOR", "BITBUCKET_BUILD_NUMBER", "BUILDKITE", "CIRCLECI", "CODEBUILD_BUILD_ID", "GITHUB_ACTIONS"),
    *("GITLAB_CI", "JENKINS_URL", "KUBERNETES_SERVICE_HOST", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI"),
    *("TEAMCITY_VERSION", "TF_BUILD", "TRAVIS"),
)
"""Variables by which ONNX Runtime 1.32 knows a build server, where it sends nothing (strings in its library)."""


def at_home(home: Path, setting: str | None = None) -> dict[str, str]:
    """Return an environment as a person's, whose home is another, where nothing is said of telemetry but `setting`."""
    dropped = ("PYTHON", "XDG_", "ORT_")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(dropped) and name not in AUTOMATION
    }
    kept |= {"HOME": str(home), "USERPROFILE": str(home)}
    return kept if setting is None else kept | {"ORT_DISABLE_TELEMETRY": setting}


def traces(home: Path) -> list[str]:
    """Name the files that a device id and a queue of events are."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "Microsoft" in path.parts]
