"""What belongs to somebody is kept by no cache on its way, and every answer says so."""

import re

from tests.web.conftest import Service

# The same for everybody: files of the page by their content, and the description of the API.
EVERYBODYS = ("/assets/", "/static/", "/docs", "/openapi.json")


def test_no_cache_keeps_an_answer_that_is_somebodys(shared: Service) -> None:
    asked, kept = 0, []
    for rule in shared.client.application.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "none", rule.rule)
        if path.startswith(EVERYBODYS):
            continue
        for method in sorted(rule.methods or ()):
            response = shared.client.open(path, method=method)
            asked += 1
            nothing_to_keep = method == "OPTIONS" or response.status_code == 204
            if not nothing_to_keep and "no-store" not in response.headers.get("Cache-Control", ""):
                kept.append(f"{method} {path}")
    assert kept == []
    assert asked > 40


def test_no_cache_keeps_an_answer_that_was_made(shared: Service) -> None:
    stream_id = shared.finished()

    for path in (f"/streams/{stream_id}", f"/streams/{stream_id}?format=native", "/threads"):
        assert "no-store" in shared.client.get(path).headers["Cache-Control"], path


def test_what_would_have_it_kept_is_not_taken_from_a_request(shared: Service) -> None:
    """Source: "Web Cache Deception Attack": an address that ends like a file is no other answer."""
    stream_id = shared.finished()

    for ending in ("/x.css", ".css", "%2Fx.js"):
        response = shared.client.get(f"/streams/{stream_id}{ending}")
        assert response.status_code == 404
        assert response.headers["Cache-Control"] == "no-store"
