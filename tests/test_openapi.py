"""The API keeps to its own description, whatever is sent to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from learners.engine import Engine
from serving.api import make_api
from streams.settings import Settings
from tests.fakes import SMALL, LogInMemory, NodeInMemory
from tests.served import serving

engine = Engine(SMALL)
app = make_api(engine, LogInMemory(), Settings(), NodeInMemory(engine), after_seconds=0.05)  # type: ignore[arg-type]
schema = schemathesis.openapi.from_dict(app.openapi())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as served:
        served.app = app
        yield served.url


@schema.parametrize()
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_to_its_description(case: schemathesis.Case, url: str) -> None:
    """No failure of the server, no status, type or body that the document does not name.

    Legal data may be refused all the same (an id of 128 characters can have more bytes, a text is
    seldom a token), and bad events are named in an answer that has accepted the others. A body
    that is too large is refused before anybody looks whether it is legal.
    """
    answer = case.call(base_url=url)
    excluded = [positive_data_acceptance]
    if case.path == "/events" or answer.status_code == 413:
        excluded.append(negative_data_rejection)
    case.validate_response(answer, excluded_checks=excluded)


def test_the_page_tells_of_every_route_and_loads_nothing(url: str) -> None:
    answer = httpx.get(url, trust_env=False, follow_redirects=True)
    assert answer.url.path == "/docs"
    assert answer.headers["content-type"].startswith("text/html")
    for path, operations in app.openapi()["paths"].items():
        assert path in answer.text
        for operation in operations.values():
            assert operation["summary"] in answer.text
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=['\"]?https?:", answer.text)
