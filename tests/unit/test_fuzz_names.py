"""Names in addresses: a thread that may be called so is reached so, and none breaks anything."""

from urllib.parse import quote, urljoin, urlsplit

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import InvalidRequest, NotFound
from streaming.web import _runnable_orders
from tests.fuzz_places import Kitchen, fixture_of
from tests.fuzzing import TEXTS, fuzzed
from tests.unit.test_fuzz_orders import THREADS

client = fixture_of("client")
kitchen = fixture_of("kitchen")


@fuzzed(80)
@given(THREADS)
def test_a_thread_that_is_named_can_be_reached_by_its_name(client: FlaskClient, name: str) -> None:
    made = client.post("/threads", json={"id": name, "title": "t"})
    if made.status_code == 400:
        assert made.json["error"]["param"] == "id"
        assert client.get(f"/threads/{quote(name, safe='')}").status_code in (200, 404)
        with pytest.raises(InvalidRequest, match="thread"):
            _runnable_orders.check_thread(name)
        return
    assert made.status_code == 201, made.text
    location = made.headers["Location"]
    # A client takes the dots out of an address before it asks.
    assert urlsplit(urljoin("http://here.test/streams/", location)).path == location
    assert client.get(location).json["id"] == name
    assert client.patch(location, json={"title": "other"}).json["title"] == "other"
    assert client.delete(location).status_code == 204
    assert client.get(location).status_code == 404


@fuzzed(80)
@given(
    st.sampled_from(["/threads/", "/streams/", "/runnables/", "/v1/responses/", "/v1/models/"]),
    st.one_of(TEXTS, THREADS, st.text(max_size=20), st.sampled_from(["st_" + "a" * 34, "th_" + "0" * 32])),
    st.sampled_from(["GET", "DELETE", "PATCH", "POST", "OPTIONS"]),
    st.sampled_from(["after", "turn", "limit", "wait", "starting_after", "events", "x"]),
    st.one_of(TEXTS, st.integers(-2, 200).map(str)),
)
def test_no_name_in_an_address_breaks_it(
    client: FlaskClient, at: str, name: str, method: str, parameter: str, value: str
) -> None:
    path = at + quote(name.encode("utf-8", "surrogatepass"), safe="/")
    answer = client.open(
        path, method=method, query_string={parameter: value.encode("utf-8", "surrogatepass")}
    )
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json["error"]["message"]
        assert len(answer.data) < 4096


def test_a_thread_cannot_be_named_by_dots(client: FlaskClient) -> None:
    for name in (".", ".."):
        assert client.post("/threads", json={"id": name}).status_code == 400
    assert client.post("/threads", json={"id": "..."}).status_code == 201
    assert client.post("/threads", json={"id": "a."}).status_code == 201


def test_what_is_not_there_is_not_found(kitchen: Kitchen) -> None:
    with pytest.raises(NotFound):
        kitchen.streams.threads.get("..")
