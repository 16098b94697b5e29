"""Taking out of a short text what names a person, a computer or an account, before it is shared.

It is the second line of defence. The first is to keep texts that a chapter, a driver or a reader
wrote freely out of what is shared: :mod:`guidebook.records` holds numbers, words of fixed lists
and a few names. Those names pass through here.
"""

from __future__ import annotations

import re
from functools import cache

GONE = "…"

# An underscore may stand before or after anything, so \b would not do.
_START, _END = r"(?i)(?<![a-z0-9])", r"(?![a-z0-9])"

# The order counts: an address holds names that a later rule would cut out of it.
_RULES = (
    # Addresses, then paths. Folders may hold spaces, so a path takes the rest of the text along.
    re.compile(rf"{_START}[a-z][a-z0-9+.-]*://\S+"),
    re.compile(rf"{_START}[a-z]:[\\/].*|\\\\.*|[\w$%{{}}.-]*\\[\w.-].*", re.DOTALL),
    re.compile(r"(?i)(?<![a-z0-9.)\]])(?:~[\w.-]*|\.{1,2})?/[^\s/(].*", re.DOTALL),
    re.compile(rf"(?i)/(?:home|users|root|mnt|media|tmp|var|private|volumes){_END}.*", re.DOTALL),
    re.compile(r"[\w.+-]+@[A-Za-z][\w.-]*"),
    # Hardware addresses, network addresses, ids.
    re.compile(rf"{_START}(?:[0-9a-f]{{2}}[:-]){{5,}}[0-9a-f]{{2}}{_END}"),
    re.compile(rf"{_START}(?:[a-z]+-)?[0-9a-f]{{8}}(?:-[0-9a-f]{{4,12}}){{1,4}}{_END}"),
    re.compile(r"(?i)(?<![a-z0-9.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![a-z0-9]|\.\d)"),
    re.compile(r"(?i)(?<![a-z0-9:])(?:[0-9a-f]{1,4})?(?::[0-9a-f]{0,4}){2,7}(?![a-z0-9:])"),
    re.compile(rf"{_START}ip(?:-\d{{1,3}}){{4}}{_END}"),
    re.compile(
        r"(?i)[a-z0-9][\w-]*(?:\.[\w-]+)*\.(?:corp|home|internal|intra|lan|local|localdomain)"
        rf"{_END}"
    ),
    # Keys of the services that this field uses, by their beginnings.
    re.compile(
        r"(?<![A-Za-z0-9])(?:hf_|sk-|gh[oprsu]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|"
        r"ya29\.|npm_|pypi-|eyJ|nvapi-|r8_|gsk_|dckr_pat_)[\w.=+/-]{8,}"
    ),
    # Serial numbers: those that say so, and those that look like one.
    re.compile(
        rf"{_START}(?:serial|s/n|service tag|asset tag)(?:[ _-]?(?:number|no\.?|id))?"
        r"[\"']?\s*[:=#]?\s*[\w-]*\d[\w-]*"
    ),
    re.compile(r"(?<!\d)\d{9,}(?!\d)"),
)
_WORD = re.compile(r"[A-Za-z0-9]{8,}")
_HEX = re.compile(r"(?i)[0-9a-f]{10,}")
_CHANGES = re.compile(r"(?<=[A-Z])(?=\d)|(?<=\d)(?=[A-Z])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]+")
_REPEATED = re.compile(rf"{GONE}(?:[\s{GONE}]*{GONE})+")


def clean(text: str, words: tuple[str, ...] = ()) -> str:
    """Replace what may name somebody by ``…``.

    Addresses, paths, e-mail and network addresses, ids, keys and serial numbers are known by
    their form; a person's or a computer's name is not, so name them.

    Parameters
    ----------
    text
        A name of some words. A path takes the rest of it along, because folders may hold spaces.
    words
        Names to take out, as from :func:`names_here`. Case does not matter.
    """
    text = _CONTROL.sub(" ", text)
    for word in words:
        text = re.sub(rf"(?i)(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", GONE, text)
    for rule in _RULES:
        text = rule.sub(GONE, text)
    text = _WORD.sub(lambda found: GONE if _is_a_number_plate(found[0]) else found[0], text)
    return _REPEATED.sub(GONE, text).strip()


def is_clean(text: str) -> bool:
    """Whether nothing in a text has the form of something that names somebody."""
    return clean(text) == text


@cache
def names_here() -> tuple[str, ...]:
    """Return what this user and this computer are called, the longest first.

    Names that many share, such as ``ubuntu`` or ``runner``, tell nothing and are left out.
    """
    from guidebook.doctor.live import LiveProbe
    from guidebook.doctor.privacy import private_words

    with LiveProbe() as probe:
        return private_words(probe).words


def _is_a_number_plate(word: str) -> bool:
    """Tell a serial number or a key, in which letters and digits alternate, from a model's name."""
    digits = sum(letter.isdigit() for letter in word)
    if not 0 < digits < len(word):
        return False
    if _HEX.fullmatch(word):
        return digits >= 2
    if word.isupper():
        return len(_CHANGES.findall(word)) >= 2
    return len(word) >= 16 and digits >= 3
