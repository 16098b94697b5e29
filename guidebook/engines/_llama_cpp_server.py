"""The process that :func:`guidebook.engines.server.llama_cpp` starts.

It serves what ``python -m llama_cpp.server`` serves, the same application with the same options.
Two things that command cannot do: listen on a socket that is already open, and end with the
process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from guidebook import lifeline

_LONGEST = 400


def main() -> int:
    """Serve the model that a line of JSON on standard input describes."""
    job = json.loads(lifeline.read_line())
    lifeline.watch()
    import uvicorn
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    _forget_options([*ModelSettings.model_fields, *ServerSettings.model_fields])
    try:
        app = create_app(
            server_settings=ServerSettings(**job["server"]),
            model_settings=[ModelSettings(**job["model"])],
        )
    except (ValueError, RuntimeError, OSError) as error:
        # One line: the last line of the log is what the reader is told.
        print(" ".join(str(error).split())[:_LONGEST], file=sys.stderr)  # noqa: T201 - the log is the report
        return 1
    with socket.socket(fileno=job["socket"]) as listening:
        config = uvicorn.Config(app, log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _forget_options(names: list[str]) -> None:
    """Take the server's options out of the environment, where the libraries would look them up.

    Many a shell has a variable ``HOST``, ``API_KEY`` or ``SEED`` that means something else.
    """
    wanted = {"config_file", *names}
    for name in list(os.environ):
        if name.lower() in wanted:
            del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
