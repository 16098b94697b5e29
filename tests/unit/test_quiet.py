"""What libraries say does not reach a chapter's reader."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from guidebook import quiet


@pytest.fixture
def library():
    logger = logging.getLogger("a-chatty-library")
    before = logger.level
    yield logger
    logger.setLevel(before)


def test_a_silenced_library_logs_nothing_not_even_critical(library, caplog):
    library.critical("before")
    quiet.silence("a-chatty-library")
    library.critical("after")
    assert caplog.messages == ["before"]


def test_loggers_below_a_silenced_one_are_silent_too(library, caplog):
    quiet.silence("a-chatty-library")
    library.getChild("part").error("after")
    assert not caplog.messages


def test_transformers_shows_no_progress_bar_after_it(capsys):
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled()
    level = logging.getLogger("transformers").level
    try:
        quiet.silence("transformers")
        for _ in transformers_logging.tqdm(range(3), file=sys.stdout):
            pass
        assert not capsys.readouterr().out
    finally:
        logging.getLogger("transformers").setLevel(level)
        if before:
            transformers_logging.enable_progress_bar()


def test_importing_transformers_later_does_not_make_it_speak_again():
    code = (
        "from guidebook import quiet; quiet.silence('transformers'); import logging, transformers; "
        "transformers.utils.logging.get_logger('transformers.models').error('heard')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heard" not in done.stderr


def test_other_libraries_are_silenced_without_importing_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.utils", None)  # importing it would fail
    quiet.silence("bitsandbytes-of-this-test")
    assert not logging.getLogger("bitsandbytes-of-this-test").isEnabledFor(logging.CRITICAL)
