"""Keeps what libraries say about themselves out of a chapter's pages.

A reader wants the chapter's sentences and figures. Log lines of a library, such as "no GPU found"
on a machine that has none, and progress bars, which leave one line per step on the site, are in
the way. Errors still are raised as exceptions.
"""

from __future__ import annotations

import logging

_SILENT = logging.CRITICAL + 1


def silence(*loggers: str) -> None:
    """Switch off the log lines of libraries for the rest of this process.

    Parameters
    ----------
    loggers
        Names of loggers, such as ``"bitsandbytes"`` or ``"torch.utils._pytree"``. For
        ``"transformers"`` its progress bars go, too.
    """
    if "transformers" in loggers:
        # Imported first: the import would set the level of its logger again.
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
    for name in loggers:
        logging.getLogger(name).setLevel(_SILENT)
