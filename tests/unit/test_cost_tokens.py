"""Cost of tokens: by hand, per direction, and against an API's prices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.cost import tokens
from guidebook.cost.tokens import Api, Request, Speed

positive = st.floats(0.1, 10_000)
speeds = st.builds(Speed, positive, positive, st.integers(1, 64))
requests = st.builds(Request, st.floats(1, 100_000), st.floats(1, 100_000))


def test_electricity_of_a_million_tokens_by_hand() -> None:
    # 350 W at 0.30 USD/kWh: 0.105 USD an hour. 50 tokens/s: a million take 20,000 s = 5.5556 h,
    # 0.58333 USD. The prompt at 1,000 tokens/s: a twentieth.
    usd_per_hour = tokens.electricity_usd_per_hour(350, 0.30)
    assert usd_per_hour == pytest.approx(0.105)
    found = tokens.per_million(usd_per_hour, Speed(1000, 50), Request(1000, 500))
    assert found.usd_per_million_answer == pytest.approx(0.583333, abs=1e-6)
    assert found.usd_per_million_prompt == pytest.approx(0.0291667, abs=1e-6)
    # A request takes 1 s + 10 s; 11 s · 0.105 / 3600 = 0.000320833 USD for 1,500 tokens.
    assert found.usd_per_request == pytest.approx(0.000320833, abs=1e-9)
    assert found.usd_per_million == pytest.approx(0.213889, abs=1e-6)
    assert found.requests_per_hour == pytest.approx(3600 / 11)


@settings(max_examples=100)
@given(st.floats(0, 100), speeds, requests, st.floats(0.01, 1))
def test_the_price_of_a_request_is_that_of_its_tokens(
    usd_per_hour: float, speed: Speed, request: Request, utilisation: float
) -> None:
    found = tokens.per_million(usd_per_hour, speed, request, utilisation)
    by_tokens = (
        request.n_prompt * found.usd_per_million_prompt
        + request.n_answer * found.usd_per_million_answer
    ) / tokens.MILLION
    assert found.usd_per_request == pytest.approx(by_tokens)
    assert all(math.isfinite(value) for value in vars(found).values())
    # The machine's hours at that use pay for exactly the requests that it serves in them.
    served = found.requests_per_hour * utilisation
    assert served * found.usd_per_request == pytest.approx(usd_per_hour)


@settings(max_examples=50)
@given(st.floats(0.01, 100), speeds, requests)
def test_an_idle_machine_makes_tokens_dearer_and_a_batch_cheaper(
    usd_per_hour: float, speed: Speed, request: Request
) -> None:
    full = tokens.per_million(usd_per_hour, speed, request)
    half = tokens.per_million(usd_per_hour, speed, request, 0.5)
    assert half.usd_per_million == pytest.approx(2 * full.usd_per_million)
    wider = Speed(speed.prefill, speed.decode, speed.batch * 2)
    assert tokens.per_million(usd_per_hour, wider, request).usd_per_million_answer == pytest.approx(
        full.usd_per_million_answer / 2
    )


def test_an_api_charges_by_direction() -> None:
    assert Api(2, 8).usd(Request(1_000_000, 500_000)) == pytest.approx(6)


def test_the_requests_that_pay_for_a_machine() -> None:
    # 40 USD a month fixed, 0.0003 USD each; the API takes 0.0023 USD: 40 / 0.002 = 20,000.
    api, request = Api(0.3, 4.0), Request(1000, 500)
    assert api.usd(request) == pytest.approx(0.0023)
    assert tokens.requests_to_pay(40, 0.0003, api, request) == pytest.approx(20_000)
    assert tokens.requests_to_pay(40, 0.0023, api, request) is None
    assert tokens.requests_to_pay(0, 0.0003, api, request) == 0
    assert tokens.most_requests_per_month(Speed(1000, 50), request) == pytest.approx(
        730.5 * 3600 / 11
    )


@pytest.mark.parametrize("utilisation", [0, -0.1, 1.1, math.nan])
def test_impossible_utilisation_is_refused(utilisation: float) -> None:
    with pytest.raises(ValueError, match="utilisation"):
        tokens.per_million(1, Speed(1, 1), Request(1, 1), utilisation)


def test_impossible_speeds_and_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="decode"):
        Speed(1, 0)
    with pytest.raises(ValueError, match="tokens is 0"):
        Request(0, 0)
    with pytest.raises(ValueError, match="n_answer"):
        Request(1, -1)
