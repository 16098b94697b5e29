"""What a million tokens costs: on a machine, by its hours and speed, and from an API.

No price of an API is built in: they change by the week, and the reader's contract is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidebook.cost.use import HOURS_PER_MONTH, check, check_positive

MILLION = 1_000_000


@dataclass(frozen=True)
class Speed:
    """What a machine does with one model, measured or predicted, in tokens/s.

    Attributes
    ----------
    prefill
        Prompt tokens read in a second.
    decode
        Answer tokens written in a second for one request, while ``batch`` of them are served.
    batch
        Requests served at the same time.
    """

    prefill: float
    decode: float
    batch: int = 1

    def __post_init__(self) -> None:
        check_positive(prefill=self.prefill, decode=self.decode, batch=self.batch)


@dataclass(frozen=True)
class Request:
    """Tokens of one request: the prompt's and the answer's."""

    n_prompt: float
    n_answer: float

    def __post_init__(self) -> None:
        check(n_prompt=self.n_prompt, n_answer=self.n_answer)
        check_positive(tokens=self.n_prompt + self.n_answer)


@dataclass(frozen=True)
class Api:
    """A price list that the reader enters, in US dollars per million tokens."""

    usd_per_million_prompt: float
    usd_per_million_answer: float

    def __post_init__(self) -> None:
        check(
            usd_per_million_prompt=self.usd_per_million_prompt,
            usd_per_million_answer=self.usd_per_million_answer,
        )

    def usd(self, request: Request) -> float:
        """Return the price of a request in US dollars."""
        return (
            request.n_prompt * self.usd_per_million_prompt
            + request.n_answer * self.usd_per_million_answer
        ) / MILLION


@dataclass(frozen=True)
class TokenCost:
    """Cost of tokens in US dollars per million.

    Attributes
    ----------
    usd_per_million_prompt, usd_per_million_answer
        Of tokens that are read, and of tokens that are written.
    usd_per_million
        Of all tokens of the requests that it was asked for.
    usd_per_request
        Of one of these.
    requests_per_hour
        How many of them an hour of full work serves.
    """

    usd_per_million_prompt: float
    usd_per_million_answer: float
    usd_per_million: float
    usd_per_request: float
    requests_per_hour: float


def request_seconds(speed: Speed, request: Request) -> float:
    """Return the machine's time that a request takes, in seconds.

    Prompts are read one after the other; the answers of a batch are written together, so that
    each takes its share of the time.
    """
    return request.n_prompt / speed.prefill + request.n_answer / (speed.decode * speed.batch)


def per_million(
    usd_per_hour: float, speed: Speed, request: Request, utilisation: float = 1.0
) -> TokenCost:
    """Return what tokens cost on a machine.

    Parameters
    ----------
    usd_per_hour
        What an hour costs: electricity alone (:func:`electricity_usd_per_hour`), all of owning
        (:attr:`guidebook.cost.ownership.Ownership.usd_per_gpu_hour` times the GPUs), or the rent.
    speed
        What the machine does.
    request
        The usual request.
    utilisation
        Share of the paid hours in which it works.

    Raises
    ------
    ValueError
        ``utilisation`` is not a share above 0.
    """
    check(usd_per_hour=usd_per_hour)
    if not 0 < utilisation <= 1:
        raise ValueError(
            f"utilisation is {utilisation}: give the share of the paid time in which it works, "
            "above 0 and up to 1"
        )
    usd_per_second = usd_per_hour / 3600 / utilisation
    usd_per_request = usd_per_second * request_seconds(speed, request)
    return TokenCost(
        usd_per_million_prompt=usd_per_second / speed.prefill * MILLION,
        usd_per_million_answer=usd_per_second / (speed.decode * speed.batch) * MILLION,
        usd_per_million=usd_per_request / (request.n_prompt + request.n_answer) * MILLION,
        usd_per_request=usd_per_request,
        requests_per_hour=3600 / request_seconds(speed, request),
    )


def electricity_usd_per_hour(watts: float, usd_per_kwh: float) -> float:
    """Return the price of running for an hour at some power, in US dollars."""
    check(watts=watts, usd_per_kwh=usd_per_kwh)
    return watts / 1000 * usd_per_kwh


def requests_to_pay(
    fixed_usd_per_month: float, usd_per_request: float, api: Api, request: Request
) -> float | None:
    """Return the requests a month from which a machine costs no more than an API.

    Parameters
    ----------
    fixed_usd_per_month
        What the machine costs whether it works or not.
    usd_per_request
        What each request adds: electricity.
    api, request
        The API's prices and the usual request.

    Returns
    -------
    Requests a month, or None if each costs as much as from the API or more. Whether the machine
    can serve so many is for the reader to compare: :func:`most_requests_per_month`.
    """
    check(fixed_usd_per_month=fixed_usd_per_month, usd_per_request=usd_per_request)
    saved = api.usd(request) - usd_per_request
    return fixed_usd_per_month / saved if saved > 0 else None


def most_requests_per_month(speed: Speed, request: Request) -> float:
    """Return how many requests a machine serves in a month that has no pause."""
    return HOURS_PER_MONTH * 3600 / request_seconds(speed, request)
