"""Conversations: kept, listed, branched, and the same in every tab and on every device."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.pages import (
    announced,
    answer,
    answer_of,
    answers,
    ask,
    ask_and_wait,
    ask_more,
    expect_state,
    field,
    held,
    listed,
    notice,
    prompt_for,
    questions,
    send,
    slow,
    source_of,
    stop,
    thread_of,
    turn,
    wait_for_text,
)
from tests.live.service import Service, Upstream
from tests.live.upstream import contents


def say(token: str, text: str) -> str:
    return prompt_for(token, text=text)


def test_a_conversation_is_kept_and_its_turns_reach_the_model(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, f"first {say(token, 'one')}")
    expect_state(tab, "done")
    ask_and_wait(tab, f"second {say(token, 'two')}")

    for _look in ("live", "reloaded"):
        assert answers(tab) == ["one", "two"]
        assert [question.split()[0] for question in questions(tab)] == ["first", "second"]
        tab.reload()
    sent = upstream.log(token)[-1]["body"]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == "one"


def test_back_and_forward_show_the_conversation_of_their_address(
    tab: Page, service: Service, token: str
) -> None:
    ask(tab, service, say(token, "of the first"))
    expect_state(tab, "done")
    tab.get_by_role("link", name="New conversation").first.click()
    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()
    ask_more(tab, say(token, "of the second"))
    expect_state(tab, "done")

    tab.go_back()
    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()
    tab.go_back()
    expect(answer(tab)).to_have_text("of the first")
    tab.go_forward()
    tab.go_forward()
    expect(answer(tab)).to_have_text("of the second")


def test_the_list_names_conversations_newest_first_and_opens_them(
    tab: Page, service: Service, token: str
) -> None:
    for name in ("alpha", "beta"):
        ask(tab, service, f"{name} {say(token, name)}")
        expect_state(tab, "done")

    expect(listed(tab)).to_have_count(2)
    expect(listed(tab).first).to_contain_text("beta")
    expect(listed(tab).first).to_have_attribute("aria-current", "page")
    listed(tab).nth(1).click()
    expect(answer(tab)).to_have_text("alpha")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("alpha")
    expect(listed(tab).nth(1)).to_have_attribute("aria-current", "page")


def test_conversations_are_listed_to_the_browser_that_had_them(
    tab: Page, second_tab: Page, service: Service, token: str
) -> None:
    ask(tab, service, say(token, "mine"))
    expect_state(tab, "done")

    second_tab.goto(service.url)

    expect(second_tab.get_by_text("Your conversations will be listed here.")).to_be_visible()
    assert listed(second_tab).count() == 0


@pytest.mark.parametrize("scripted", [True, False], ids=["with scripts", "without"])
def test_a_conversation_is_renamed(
    new_context: Callable[..., BrowserContext], service: Service, token: str, scripted: bool
) -> None:
    tab = new_context(java_script_enabled=scripted).new_page()
    tab.goto(service.url)
    field(tab).fill(say(token, "text"))
    send(tab).click()
    tab.wait_for_url("**/?thread=*")

    tab.get_by_role("link", name="Rename or delete this conversation").click()
    tab.get_by_label("Title").fill("A better <b>name</b>")
    tab.get_by_role("button", name="Rename").click()

    expect(tab.get_by_role("heading", level=1)).to_have_text("A better <b>name</b>")
    expect(listed(tab)).to_have_text(["A better <b>name</b>"])
    tab.reload()
    expect(tab).to_have_title("A better <b>name</b> · Sluice")


@pytest.mark.parametrize("scripted", [True, False], ids=["with scripts", "without"])
def test_a_conversation_is_deleted_with_its_answers(
    new_context: Callable[..., BrowserContext], service: Service, token: str, scripted: bool
) -> None:
    tab = new_context(java_script_enabled=scripted).new_page()
    tab.goto(service.url)
    field(tab).fill(say(token, "secret"))
    send(tab).click()
    thread = thread_of(tab)

    tab.get_by_role("link", name="Rename or delete this conversation").click()
    tab.get_by_role("button", name="Delete").click()

    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()
    assert listed(tab).count() == 0
    response = tab.goto(f"{service.url}/?thread={thread}")
    assert response
    assert response.status == 404
    assert "secret" not in tab.content()


def test_the_dialog_takes_and_gives_back_the_focus(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, say(token, "text"))
    expect_state(tab, "done")
    options = tab.get_by_role("link", name="Rename or delete this conversation")

    options.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog", name="This conversation")).to_be_visible()
    expect(tab.get_by_label("Title")).to_be_focused()
    tab.keyboard.press("Escape")

    expect(tab.get_by_role("dialog")).to_be_hidden()
    expect(options).to_be_focused()


# Versions


def test_regenerating_keeps_the_answer_before_as_another_version(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, say(token, "one"))
    expect_state(tab, "done")
    first = turn(tab).get_attribute("data-stream")

    tab.get_by_role("button", name="Regenerate").click()
    expect(turn(tab)).not_to_have_attribute("data-stream", first or "")
    expect_state(tab, "done")

    assert tab.locator(".turn").count() == 1
    for _look in ("live", "reloaded"):
        expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")
        tab.reload()
    assert len(upstream.log(token)) == 2
    tab.get_by_role("link", name="Earlier version").click()
    expect(turn(tab)).to_have_attribute("data-stream", first or "")
    expect(turn(tab).locator(".versions")).to_contain_text("1 / 2")
    tab.get_by_role("link", name="Later version").click()
    expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")


def test_editing_a_question_branches_off_and_keeps_what_followed(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, f"first {say(token, 'one')}")
    expect_state(tab, "done")
    ask_and_wait(tab, f"second {say(token, 'two')}")
    whole = tab.url

    turn(tab, 0).locator(".question").hover()
    turn(tab, 0).get_by_role("link", name="Edit").click()
    expect(field(tab)).to_be_focused()
    expect(field(tab)).to_have_value(f"first {say(token, 'one')}")
    expect(tab.get_by_text("Editing a question")).to_be_visible()
    field(tab).fill(f"changed {say(token, 'other')}")
    field(tab).press("Enter")
    expect(tab.locator(".turn")).to_have_count(1)
    expect_state(tab, "done")

    assert answers(tab) == ["other"]
    expect(tab.get_by_text("Editing a question")).to_be_hidden()
    assert [message["role"] for message in upstream.log(token)[-1]["body"]["messages"]] == ["user"]
    tab.goto(whole)
    assert answers(tab) == ["other"]
    tab.get_by_role("link", name="Earlier version").click()
    expect(tab.locator(".turn")).to_have_count(2)
    assert answers(tab) == ["one", "two"]


def test_a_question_on_an_older_version_goes_on_from_there(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, say(token, "one"))
    expect_state(tab, "done")
    tab.get_by_role("button", name="Regenerate").click()
    expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")
    expect_state(tab, "done")
    tab.get_by_role("link", name="Earlier version").click()
    expect(turn(tab).locator(".versions")).to_contain_text("1 / 2")

    ask_and_wait(tab, say(token, "after the first"))

    tab.reload()
    assert answers(tab) == ["one", "after the first"]
    expect(turn(tab, 0).locator(".versions")).to_contain_text("1 / 2")


def test_an_edit_can_be_given_up(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, say(token, "one"))
    expect_state(tab, "done")
    turn(tab).locator(".question").hover()
    tab.get_by_role("link", name="Edit").click()

    tab.get_by_role("link", name="Cancel").click()
    expect(field(tab)).to_have_value("")
    ask_and_wait(tab, say(token, "two"))

    assert answers(tab) == ["one", "two"]


# Tabs and devices


def test_a_question_of_one_tab_is_answered_in_the_other_too(
    context: BrowserContext, service: Service, upstream: Upstream, token: str
) -> None:
    tab, other = context.new_page(), context.new_page()
    ask(tab, service, say(token, "one"))
    expect_state(tab, "done")
    other.goto(tab.url)
    script = held(token)

    ask_more(tab, prompt_for(token, **script))

    upstream.let(token, 20)
    wait_for_text(other, 20)
    expect(stop(other)).to_be_visible()
    upstream.let(token)
    for each in (tab, other):
        expect_state(each, "done")
        assert source_of(each) == "".join(contents(script))
    assert len(upstream.log(token)) == 2
    expect(listed(other)).to_have_count(1)


def test_another_device_goes_on_by_the_address(
    tab: Page, second_tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = held(token)
    ask(tab, service, prompt_for(token, **script))
    upstream.let(token, 40)
    wait_for_text(tab, 60)

    second_tab.goto(tab.url)
    wait_for_text(second_tab, 60)
    upstream.let(token)

    for each in (tab, second_tab):
        expect_state(each, "done")
        assert source_of(each) == "".join(contents(script))
    ask_and_wait(second_tab, say(token, "from the other"))
    assert len(upstream.log(token)) == 2
    tab.evaluate("dispatchEvent(new Event('focus'))")
    expect(answer(tab)).to_have_text("from the other")


def test_two_tabs_that_ask_at_once_are_not_both_answered(
    context: BrowserContext, service: Service, upstream: Upstream, token: str
) -> None:
    tab, other = context.new_page(), context.new_page()
    ask(tab, service, say(token, "one"))
    expect_state(tab, "done")
    other.add_init_script("delete window.BroadcastChannel")
    other.goto(tab.url)
    ask_more(tab, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 10)

    ask_more(other, say(token, "me too"))

    expect(notice(other)).to_contain_text("Thread: ")
    expect(field(other)).to_have_value(say(token, "me too"))
    assert len(upstream.log(token)) == 2
    stop(tab).click()
    expect_state(tab, "stopped")


def test_a_conversation_that_was_deleted_in_another_tab_says_so(
    context: BrowserContext, service: Service, token: str
) -> None:
    tab, other = context.new_page(), context.new_page()
    ask(tab, service, say(token, "text"))
    expect_state(tab, "done")
    other.goto(tab.url)

    tab.get_by_role("link", name="Rename or delete this conversation").click()
    tab.get_by_role("button", name="Delete").click()
    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()

    expect(notice(other)).to_have_text("This conversation was deleted in another tab.")


def test_stopping_in_one_tab_stops_in_the_other(
    context: BrowserContext, service: Service, token: str
) -> None:
    tab, other = context.new_page(), context.new_page()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 20)
    other.goto(tab.url)
    wait_for_text(other, 20)

    stop(other).click()

    for each in (tab, other):
        expect_state(each, "stopped")
        expect(announced(each)).to_have_text("Stopped. The text so far is kept.")
    assert answer_of(tab) == answer_of(other)
