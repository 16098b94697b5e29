"""English text that is on every machine, for measuring how well a model predicts."""

from __future__ import annotations

from pathlib import Path


def load(source: str) -> str:
    """Return a text to score models on.

    Parameters
    ----------
    source
        ``"python-topics"``: the reference articles about Python that every Python installation
        carries for ``help()`` (module ``pydoc_data.topics``; 450,000 characters). They differ a
        little between Python versions, so compare perplexities within one version only.
        Anything else is the path of a UTF-8 text file.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message says what can be given.
    """
    if source == "python-topics":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no text file {path.name}. Give the path of a UTF-8 text, or 'python-topics'."
        )
    return path.read_text(encoding="utf-8")
