"""PyTorch on conda's channel."""

from __future__ import annotations

from guidebook.doctor import torch_builds
from guidebook.doctor.nvidia import version


def test_condas_channel_has_a_source_and_a_date() -> None:
    channel = torch_builds.conda_channel()
    assert channel.source.startswith("https://")
    assert channel.as_of.year >= 2026


def test_condas_channel_ends_before_the_first_listed_build() -> None:
    last = version(torch_builds.conda_channel().torch)
    oldest = min(version(build.torch) or () for build in torch_builds.builds())
    assert last is not None
    assert last < oldest
