"""The properties of `properties.py` over generated and mutated messages, and the inputs that once broke one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.reactor.http.properties import PROPERTIES
from tests.reactor.http.regressions import read_regression
from tests.strategies import cuts, request_bytes, response_bytes, thorough

REGRESSIONS = sorted((Path(__file__).parents[2] / "regressions").glob("*.txt"))


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_requests(prop):
    @thorough
    @given(request_bytes, cuts)
    @example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [17])
    def holds(data, places):
        prop(None, data, places)

    holds()


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_responses(prop):
    @thorough
    @given(st.sampled_from([b"GET", b"GET", b"HEAD", b"CONNECT"]), response_bytes, cuts)
    def holds(method, data, places):
        prop(method, data, places)

    holds()


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_what_once_failed(prop, path):
    method, data, places = read_regression(path)
    prop(method, data, places)


def test_the_regressions_are_there():
    assert REGRESSIONS, "the folder of kept inputs has moved"
