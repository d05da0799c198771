"""The page as its readers meet it: asking, and an answer that grows."""

from playwright.sync_api import Page, Request, Route, expect

from tests.browser.conftest import LAN_HOST
from tests.browser.pages import (
    LONG_SECONDS,
    announced,
    answer,
    answer_of,
    ask,
    ask_more,
    expect_state,
    field,
    held,
    is_question,
    notice,
    prompt_for,
    send,
    slow,
    source_of,
    status,
    stop,
    stream_of,
    turn,
    wait_for_text,
    words,
)
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.upstream import contents

# An answer


def test_the_answer_grows_while_it_is_written(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = held(token)
    whole = "".join(contents(script))

    ask(tab, service, prompt_for(token, **script))
    upstream.let(token, 10)
    first = wait_for_text(tab, 10)
    expect(words(tab)).to_have_text("Writing")
    upstream.let(token, 60)
    second = wait_for_text(tab, len(first) + 30)

    assert whole.startswith(first.strip())
    assert whole.startswith(second.strip())
    assert len(first) < len(second) < len(whole)
    upstream.let(token)
    expect_state(tab, "done")
    expect(status(tab)).to_be_hidden()
    assert source_of(tab) == whole
    assert service.snapshot(stream_of(tab))["text"] == whole


def test_a_reload_in_the_middle_neither_loses_nor_repeats_a_character(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = held(token, tokens=400)
    whole = "".join(contents(script))
    ask(tab, service, prompt_for(token, **script))
    upstream.let(token, 10)
    wait_for_text(tab, 20)

    for reload in range(1, 21):
        before = len(answer_of(tab))
        upstream.let(token, 10 + 15 * reload)  # these come while it is loaded, and after
        tab.reload()
        assert whole.startswith(answer_of(tab).strip())
        wait_until(lambda before=before: len(answer_of(tab)) > before, LONG_SECONDS, "the answer has grown")

    expect(turn(tab)).to_have_attribute("data-state", "busy")
    upstream.let(token)
    expect_state(tab, "done")
    assert source_of(tab) == whole
    assert len(upstream.log(token)) == 1
    tab.reload()
    assert source_of(tab) == whole


def test_stop_keeps_the_text_and_cancels_the_run(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 30)

    stop(tab).click()

    expect_state(tab, "stopped")
    upstream.wait_for_close(token)
    expect(status(tab)).to_have_text("Stopped. The text so far is kept.")
    snapshot = service.snapshot(stream_of(tab))
    assert snapshot["state"] == "cancelled"
    assert source_of(tab) == snapshot["text"] != ""
    tab.reload()
    assert source_of(tab) == snapshot["text"]
    expect(status(tab)).to_have_text("Stopped. The text so far is kept.")


def test_the_second_click_of_a_double_click_on_send_does_not_stop(
    tab: Page, service: Service, token: str
) -> None:
    tab.goto(service.url)
    field(tab).fill(prompt_for(token, text="whole"))

    tab.locator("#send").dblclick()

    expect_state(tab, "done")
    assert answer_of(tab) == "whole"


def test_the_page_works_over_plain_http_from_another_machine(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(f"http://{LAN_HOST}:{service.port}")
    assert not tab.evaluate("isSecureContext")
    field(tab).fill(prompt_for(token, text="over the wire"))
    send(tab).click()

    expect_state(tab, "done")
    assert answer_of(tab) == "over the wire"
    assert len(upstream.log(token)) == 1


# Asking


def test_a_question_whose_answer_was_lost_on_the_way_is_asked_once(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    keys: list[str | None] = []

    def lose_the_first(route: Route, request: Request) -> None:
        if is_question(request):
            keys.append(request.header_value("idempotency-key"))
            if len(keys) == 1:
                route.fetch()
                route.abort("connectionreset")
                return
        route.continue_()

    tab.route("**/streams", lose_the_first)
    ask(tab, service, prompt_for(token))

    expect_state(tab, "done")
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None
    assert len(upstream.log(token)) == 1


def test_a_question_that_cannot_be_sent_stays_where_it_was_typed(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(service.url)
    tab.context.set_offline(True)
    field(tab).fill(prompt_for(token))
    field(tab).press("Enter")
    expect(announced(tab)).to_have_text("Asking")
    expect(notice(tab)).to_have_text("The service cannot be reached. Send it again: it is asked once.")
    expect(field(tab)).to_have_value(prompt_for(token))

    tab.context.set_offline(False)
    send(tab).click()

    expect_state(tab, "done")
    expect(notice(tab)).to_be_hidden()
    expect(field(tab)).to_have_value("")
    assert len(upstream.log(token)) == 1


def test_a_question_that_is_refused_says_why_and_stays(tab: Page, service: Service) -> None:
    ask(tab, service, "x" * 200_001)

    expect(notice(tab)).to_have_text("Prompt: 200001 characters, at most 200000.")
    expect(field(tab)).to_have_value("x" * 200_001)
    assert tab.locator(".turn").count() == 0
    field(tab).fill("shorter")
    expect(notice(tab)).to_be_hidden()


def test_a_question_during_an_answer_is_not_lost_and_not_sent(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 10)

    ask_more(tab, "and another thing")

    expect(notice(tab)).to_have_text("An answer is being written. Wait for its end, or stop it.")
    expect(field(tab)).to_have_value("and another thing")
    stop(tab).click()
    expect_state(tab, "stopped")
    assert len(upstream.log(token)) == 1


def test_what_was_typed_and_not_sent_outlives_a_reload(tab: Page, service: Service) -> None:
    tab.goto(service.url)
    field(tab).press_sequentially("half a question")

    tab.reload()

    expect(field(tab)).to_have_value("half a question")


def test_an_upstream_that_refuses_is_an_error_with_a_way_on(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, play="cut", after=3, tokens=6, attempts_fail=1, pace_ms=20))
    expect_state(tab, "error")
    expect(status(tab)).to_contain_text("Error: ")
    expect(status(tab)).to_contain_text("Trying again may help. The text so far is kept.")
    assert source_of(tab) == "w0 w1 w2 "
    said = status(tab).inner_text()
    tab.reload()
    assert status(tab).inner_text() == said
    assert source_of(tab) == "w0 w1 w2 "

    tab.get_by_role("button", name="Try again").click()

    expect_state(tab, "done")
    assert source_of(tab) == "w0 w1 w2 w3 w4 w5 "
    assert len(upstream.log(token)) == 2


def test_who_copies_again_is_told_again_for_as_long(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text="to be copied"))
    expect_state(tab, "done")
    button = turn(tab).locator(".action.copy")
    was = button.inner_text()
    tab.clock.install()

    button.click()
    expect(button).to_have_text("Copied")
    tab.clock.run_for(1500)
    tab.evaluate("navigator.clipboard.writeText('')")
    button.click()
    wait_until(
        lambda: tab.evaluate("navigator.clipboard.readText()") == "to be copied",
        PATIENCE_SECONDS,
        "it is copied again",
    )
    tab.clock.run_for(1500)

    expect(button).to_have_text("Copied")
    tab.clock.run_for(1000)
    expect(button).to_have_text(was)


def test_a_silent_model_is_called_silent_and_says_what_to_do(tab: Page, service: Service, token: str) -> None:
    tab.clock.install()
    ask(tab, service, prompt_for(token, play="half_open", after=2, tokens=3))

    def has_text() -> bool:
        tab.clock.run_for(20)  # what came is shown in the next frame, of this clock
        return len(answer_of(tab)) >= 5

    wait_until(has_text, LONG_SECONDS, "the answer has begun")

    tab.clock.run_for(12_000)

    expect(status(tab)).to_have_text("The model is silent You can wait, or stop it and try again.")
    expect(announced(tab)).to_have_text("The model is silent. You can wait, or stop it and try again.")
    tab.clock.resume()
    stop(tab).click()
    expect_state(tab, "stopped")


def test_the_state_is_told_by_more_than_colour(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 10)

    dot = "getComputedStyle(document.querySelector('.turn .status'), '::before')"
    writing = tab.evaluate(f"[{dot}.width, {dot}.borderRadius]")
    stop(tab).click()
    expect_state(tab, "stopped")

    assert tab.evaluate(f"[{dot}.width, {dot}.borderRadius]") != writing
    expect(answer(tab)).to_have_attribute("aria-busy", "false")
