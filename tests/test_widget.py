"""The form for feedback, on a page of another origin, in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from html import escape
from typing import Any

import httpx2
import pytest
from playwright.async_api import Page, Route, expect
from the_browser import ROOT, Watched, site_of

from online_learner.ids import Address, Keyring
from online_learner.settings import CorsSpec

pytest.importorskip("playwright", reason="there is no browser to be driven")
pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDGET = ROOT / "serve_app" / "pages" / "widget.js"
PUBLIC = {"public_feedback": True, "audit": 1.0}
RANK = {"options": [{"id": i, "features": {"x": float(n)}} for n, i in enumerate("abc")]}
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
THANKS = "Thank you, this will be learned from."
Open = Callable[..., Awaitable[Watched]]
Act = Callable[[Page], Awaitable[None]]
Eventually = Callable[..., Awaitable[None]]


class Shop:
    """An application of another origin that shows answers, and asks what its users say of them."""

    def __init__(self, origin: str, pages: dict[str, str], service: Any) -> None:
        self.origin, self.pages, self.service = origin, pages, service

    def answer(self, model: str = "topic", **fields: Any) -> str:
        """Ask for an answer, with the application's own key."""
        body = {"features": {"x": 1.0}} | (RANK if model == "pages" else {}) | fields
        with self.service.client() as http:
            reply = http.post(f"/v1/models/{model}/predict", json=body).raise_for_status()
        return str(reply.json()["prediction_id"])

    def tag(self, prediction_id: str, kind: str, **data: Any) -> str:
        """Return the one script tag that shows a form."""
        given = {"prediction": prediction_id, "kind": kind, **data}
        fields = " ".join(
            f'data-{name.replace("_", "-")}="{escape(str(value))}"' for name, value in given.items()
        )
        return f'<script src="{self.service.url}/widget.js" {fields}></script>'

    def page(self, *tags: str, body: str = "") -> str:
        """Put up a page; returns its URL."""
        path = f"/{len(self.pages)}"
        head = '<!doctype html><html lang="en"><title>Shop</title><link rel="icon" href="/icon">'
        self.pages[path] = f"{head}<main><h1>Answers</h1>{''.join(tags)}{body}</main>"
        return self.origin + path

    def said(self, prediction_id: str, model: str = "topic") -> list[dict[str, Any]]:
        """Return what has arrived about an answer in the stream that the learner reads."""
        with self.service.client() as http:
            found = http.get(f"/v1/models/{model}/feedback?count=1000").raise_for_status().json()
        return [item for item in found["feedback"] if item["prediction_id"] == prediction_id]

    def explicit(self, prediction_id: str, model: str = "topic") -> list[dict[str, Any]]:
        """Return of that what somebody said, and not merely saw."""
        return [s for s in self.said(prediction_id, model) if s["kind"] != "implicit"]


@pytest.fixture(scope="module")
def shop(start_service: Callable[..., Any]) -> Iterator[Shop]:
    """Return a shop whose pages let in scripts and requests of the service alone: no styles."""
    pages, headers = {"/icon": ""}, {}
    with site_of(pages, headers) as origin:
        service = start_service(
            topic=PUBLIC | {"categories": {"helpful": "up", "off_topic": "down"}},
            rent=PUBLIC,
            pages=PUBLIC,
            web={},
            cors=CorsSpec(origins=[origin]),
        )
        headers["content-security-policy"] = (
            f"default-src 'none'; img-src 'self'; script-src {service.url}; "
            f"connect-src {service.url}"
        )
        yield Shop(origin, pages, service)


# --- each form --------------------------------------------------------------------------------


def press(*names: str) -> Act:
    """Return what presses buttons by their names, one after the other."""

    async def act(page: Page) -> None:
        for name in names:
            await page.get_by_role("button", name=name, exact=True).click()

    return act


def fill(role: Any, text: str) -> Act:
    """Return what fills in a field, and sends it."""

    async def act(page: Page) -> None:
        await page.get_by_role(role).fill(text)
        await page.get_by_role("button", name="Send").click()

    return act


FORMS: dict[str, tuple[str, dict[str, Any], Act, dict[str, Any]]] = {
    "thumbs": ("topic", {}, press("Good"), {"kind": "thumbs", "value": True}),
    "yesno": ("topic", {}, press("No"), {"kind": "thumbs", "value": False}),
    "stars": (
        "topic",
        {},
        press("4 of 5"),
        {"kind": "rating", "value": {"value": 4.0, "scale": [1.0, 5.0]}},
    ),
    "slider": (
        "rent",
        {"low": 0, "high": 10},
        fill("slider", "7"),
        {"kind": "rating", "value": {"value": 7.0, "scale": [0.0, 10.0]}},
    ),
    "labels": (
        "topic",
        {"labels": json.dumps(["news", ["sport", "Sports & games"]])},
        press("Sports & games"),
        {"kind": "correction", "value": "sport"},
    ),
    "category": (
        "topic",
        {"labels": "helpful, off_topic"},
        press("off_topic"),
        {"kind": "category", "value": "off_topic"},
    ),
    "options": ("pages", {"options": "a,b,c"}, press("b"), {"kind": "selection", "value": "b"}),
    "none": (
        "pages",
        {"kind": "options", "options": "a,b,c"},
        press("None of these"),
        {"kind": "selection", "value": None},
    ),
    "pair": (
        "pages",
        {"options": "a,c"},
        press("c"),
        {"kind": "preference", "value": {"chosen": "c", "rejected": "a"}},
    ),
    "rank": (
        "pages",
        {"options": "a,b,c"},
        press("Move c up", "Move a down", "Send"),
        {"kind": "ranking", "value": ["c", "a", "b"]},
    ),
    "correction": (
        "rent",
        {"input": "number", "value": "20"},
        fill("spinbutton", "21.5"),
        {"kind": "correction", "value": 21.5},
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_reaches_the_learner(
    shop: Shop, open_page: Open, eventually: Eventually, form: str
) -> None:
    """What is clicked on a page of another origin is in the learner's stream, by the id alone."""
    model, data, act, expected = FORMS[form]
    prediction_id = shop.answer(model)
    tag = shop.tag(prediction_id, **{"kind": form, "hold": 0} | data)
    watched = await open_page(shop.page(tag))
    await act(watched.page)
    await expect(watched.page.get_by_role("status")).to_have_text(THANKS)
    await eventually(lambda: len(shop.said(prediction_id, model)) == 2)
    [signal] = shop.explicit(prediction_id, model)
    assert {key: signal[key] for key in expected} == expected
    sent = [request for request in watched.sent if request.method == "POST"]
    assert sent
    for request in sent:
        assert not {"authorization", "cookie"} & set(await request.all_headers())


# --- when it is sent --------------------------------------------------------------------------


async def test_one_may_think_better_of_it(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """For five seconds it is held; undone it is never sent, and else it is."""
    taken_back, kept = shop.answer(), shop.answer()
    watched = await open_page()
    page = watched.page
    await page.clock.install()
    await page.goto(shop.page(shop.tag(taken_back, "thumbs"), shop.tag(kept, "stars")))
    await eventually(lambda: len(watched.posts("/v1/feedback")) == 2)  # that both were shown
    await page.get_by_role("button", name="Bad").click()
    await page.get_by_role("button", name="2 of 5").click()
    await page.clock.run_for(4_900)
    assert len(watched.posts("/v1/feedback")) == 2
    await page.get_by_role("button", name="Undo").first.click()
    await expect(page.get_by_role("status").first).to_have_text("Not sent.")
    await expect(page.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "false")
    await page.clock.run_for(60_000)
    await eventually(lambda: shop.explicit(kept))
    await expect(page.get_by_role("status").last).to_have_text(THANKS)
    assert shop.explicit(taken_back) == []
    assert not any(post.get("prediction_id") == taken_back for post in _explicit(watched))


async def test_the_last_word_counts(shop: Shop, open_page: Open, eventually: Eventually) -> None:
    """What is clicked while another is held takes its place, and one signal is sent."""
    prediction_id = shop.answer()
    watched = await open_page(shop.page(shop.tag(prediction_id, "stars", hold=0.2)))
    for stars in (1, 5, 3):
        await watched.page.get_by_role("button", name=f"{stars} of 5").click()
    await expect(watched.page.get_by_role("status")).to_have_text(THANKS)
    await eventually(lambda: shop.explicit(prediction_id))
    assert [post["value"] for post in _explicit(watched)][-1] == 3
    assert shop.explicit(prediction_id)[-1]["value"]["value"] == 3.0


@pytest.mark.parametrize("leave", ["to another page", "close", "remove"])
async def test_leaving_sends_it_at_once(
    shop: Shop, open_page: Open, eventually: Eventually, leave: str
) -> None:
    """Where the page is left, closed, or the form is taken away, what is held is sent."""
    prediction_id = shop.answer()
    watched = await open_page()
    page = watched.page
    # Nothing was sent before, so that the browser still has to ask whether it may.
    await page.add_init_script("IntersectionObserver.prototype.observe = () => {}")
    await page.goto(shop.page(shop.tag(prediction_id, "thumbs", hold=1e6)))
    await page.get_by_role("button", name="Good").click()
    assert shop.explicit(prediction_id) == []
    if leave == "close":
        await page.close(run_before_unload=True)
    elif leave == "remove":
        await page.evaluate("document.querySelector('feedback-widget').remove()")
    else:
        await page.goto(shop.page(body="elsewhere"))
    await eventually(lambda: shop.explicit(prediction_id))


async def test_being_shown_is_told_once(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """A form that comes into view says so, once for its answer; one below the fold waits."""
    above, below = shop.answer(), shop.answer()
    room = "<p>" + "<br>" * 200
    url = shop.page(shop.tag(above, "thumbs"), room, shop.tag(below, "thumbs"))
    watched = await open_page(url)
    page = watched.page
    await eventually(lambda: shop.said(above) and watched.posts("/v1/feedback"))
    assert [post["prediction_id"] for post in watched.posts("/v1/feedback")] == [above]
    await page.locator("feedback-widget").last.scroll_into_view_if_needed()
    await eventually(lambda: shop.said(below))
    await page.evaluate("scrollTo(0, 0)")
    await page.evaluate(TWO_FRAMES)
    assert len(watched.posts("/v1/feedback")) == 2
    await page.reload()
    async with page.expect_response("**/v1/feedback") as found:
        await page.evaluate("scrollTo(0, 0)")
    assert (await (await found.value).json())["status"] == "duplicate"
    for prediction_id in (above, below):
        [signal] = shop.said(prediction_id)
        assert (signal["kind"], signal["value"]["event"]) == ("implicit", "feedback_shown")


async def test_a_bad_answer_is_asked_about(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """After a thumbs-down, reasons and a comment go with it, in one signal, however slowly."""
    prediction_id = shop.answer()
    reasons = json.dumps(["off_topic", ["too_long", "Too long"]])
    asked = shop.tag(prediction_id, "thumbs", reasons=reasons)
    no = shop.tag(shop.answer(), "labels", labels='[[false, "No"]]')  # a label, and no reproach
    watched = await open_page()
    watched.allowed, page = ["the server responded with a status of 422"], watched.page
    await page.clock.install()
    await page.goto(shop.page(asked, no))
    await page.get_by_role("button", name="No", exact=True).click()
    await page.get_by_role("button", name="Bad").click()
    await expect(page.get_by_label("Comment")).to_have_count(1)
    await page.clock.run_for(20_000)
    await page.get_by_label("Too long").check()
    await page.clock.run_for(20_000)
    await page.get_by_label("Comment").fill("I asked <b>for</b> less")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_role("status").first).to_have_text(THANKS)
    await expect(page.get_by_label("Comment")).to_have_count(0)
    await eventually(lambda: shop.explicit(prediction_id))
    [signal] = shop.explicit(prediction_id)
    [sent] = [post for post in _explicit(watched) if post["prediction_id"] == prediction_id]
    assert (signal["value"], signal["comment"]) == (False, "I asked <b>for</b> less")
    assert sent["reasons"] == ["too_long"]


def _explicit(watched: Watched) -> list[Any]:
    return [post for post in watched.posts("/v1/feedback") if post["kind"] != "implicit"]


# --- what became of it ------------------------------------------------------------------------


async def test_it_says_what_happened(shop: Shop, open_page: Open) -> None:
    """Said before, too late, not taken here, and not fitting: each in words."""
    keyring, topic = Keyring.load(shop.service.data_dir), shop.answer()
    with shop.service.client(key=None) as http:
        http.post("/v1/feedback", json={"prediction_id": topic, "kind": "thumbs", "value": True})
    told = {
        "You have said so already.": shop.tag(topic, "thumbs", hold=0),
        "Too late: feedback on this is closed.": shop.tag(
            keyring.seal("prediction", "topic", Address(1, 0, "00ff00ff")), "thumbs", hold=0
        ),
        "Feedback on this is not taken here.": shop.tag(shop.answer("web"), "thumbs", hold=0),
        "This does not fit the answer.": shop.tag(
            shop.answer(), "labels", labels="Good,Fine", hold=0
        ),
    }
    watched = await open_page(shop.page(*told.values()))
    watched.allowed = ["the server responded with a status of 4"]
    for number, text in enumerate(told):
        widget = watched.page.locator("feedback-widget").nth(number)
        await widget.get_by_role("button", name="Good").click()
        await expect(widget.get_by_role("status")).to_have_text(text)


async def test_what_does_not_arrive_is_sent_again(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """Without a network it waits and tries again; a lost reply counts for nothing."""
    prediction_id = shop.answer()
    watched = await open_page()
    watched.allowed, page = ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED"], watched.page
    await page.clock.install()
    await page.goto(shop.page(shop.tag(prediction_id, "thumbs", hold=0)))
    await eventually(lambda: shop.said(prediction_id))
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Good").click()
    await page.clock.run_for(1)
    await expect(page.get_by_role("status")).to_have_text("Not sent yet, trying again.")
    await page.context.set_offline(False)

    async def lose_the_reply(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/v1/feedback", lose_the_reply, times=1)
    await page.clock.run_for(2_000)
    await eventually(lambda: shop.explicit(prediction_id))
    await expect(page.get_by_role("status")).to_have_text("Not sent yet, trying again.")
    await page.clock.run_for(4_000)
    await expect(page.get_by_role("status")).to_have_text(THANKS)
    assert len(shop.explicit(prediction_id)) == 1


async def test_what_was_said_first_never_arrives_last(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """On a network that loses the first word late, the second waits for it, and is the last."""
    prediction_id = shop.answer()
    watched = await open_page()
    watched.allowed, page = ["ERR_FAILED"], watched.page
    await page.add_init_script("IntersectionObserver.prototype.observe = () => {}")
    await page.clock.install()
    await page.goto(shop.page(shop.tag(prediction_id, "stars", hold=0)))
    under_way, lost = asyncio.Event(), asyncio.Event()

    async def lose_late(route: Route) -> None:
        under_way.set()
        await lost.wait()
        await route.abort()

    await page.route("**/v1/feedback", lose_late, times=1)
    await page.get_by_role("button", name="1 of 5").click()
    await page.clock.run_for(1)
    await under_way.wait()
    await page.get_by_role("button", name="5 of 5").click()
    await page.clock.run_for(1)
    lost.set()
    await expect(page.get_by_role("status")).to_have_text(THANKS)
    await page.clock.run_for(60_000)
    assert [post["value"] for post in _explicit(watched)] == [1, 5]
    await eventually(lambda: shop.explicit(prediction_id))
    assert [signal["value"]["value"] for signal in shop.explicit(prediction_id)] == [5.0]


# --- where it stands --------------------------------------------------------------------------


async def test_it_stands_wherever_it_is_put(
    shop: Shop, open_page: Open, eventually: Eventually
) -> None:
    """As a script tag, as an element, several in a page, and added by a script later."""
    ids = [shop.answer() for _ in range(4)]
    element = '<feedback-widget data-prediction="{}" data-kind="yesno"></feedback-widget>'
    tags = [shop.tag(ids[0], "thumbs"), element.format(ids[1])]
    watched = await open_page(shop.page("<p>First: ", tags[0], "<p>Second: ", tags[1]))
    page = watched.page
    await expect(page.locator("p feedback-widget")).to_have_count(2)
    added = """([src, one, two]) => {
        const script = Object.assign(document.createElement("script"), {src});
        Object.assign(script.dataset, {prediction: one, kind: "stars"});
        const widget = document.createElement("feedback-widget");
        Object.assign(widget.dataset, {prediction: two, kind: "thumbs"});
        document.body.append(script, widget);
    }"""
    await page.evaluate(added, [f"{shop.service.url}/widget.js", *ids[2:]])
    await expect(page.locator("feedback-widget")).to_have_count(4)
    await eventually(lambda: all(shop.said(prediction_id) for prediction_id in ids))


async def test_words_are_the_pages_own(shop: Shop, open_page: Open) -> None:
    """Each text can be set, for another language, and is shown as text whatever is in it."""
    own = {"text_ask": "War das <i>gut</i>?", "text_up": "Ja & gut", "text_thanks": "Danke."}
    watched = await open_page(shop.page(shop.tag(shop.answer(), "thumbs", hold=0, **own)))
    await expect(watched.page.get_by_role("group", name="War das <i>gut</i>?")).to_be_visible()
    await watched.page.get_by_role("button", name="Ja & gut").click()
    await expect(watched.page.get_by_role("status")).to_have_text("Danke.")


async def test_the_keyboard_is_enough(shop: Shop, open_page: Open, eventually: Eventually) -> None:
    """A list is put into order and sent without a mouse, and what moves is said."""
    prediction_id = shop.answer("pages")
    watched = await open_page(shop.page(shop.tag(prediction_id, "rank", options="a,b,c", hold=0)))
    page = watched.page
    for key in ("Tab", "Tab", "Enter"):  # to the first one's button that moves it down
        await page.keyboard.press(key)
    await expect(page.get_by_role("status")).to_have_text("Moved to place 2")
    await page.keyboard.press("Space")
    await expect(page.get_by_role("status")).to_have_text("Moved to place 3")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Send")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text(THANKS)
    await eventually(lambda: shop.explicit(prediction_id, "pages"))
    assert shop.explicit(prediction_id, "pages")[0]["value"] == ["b", "c", "a"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nobody_is_shut_out(shop: Shop, open_page: Open, scheme: str) -> None:
    """Axe finds nothing serious in any form, light or dark, on a screen of 400 pixels."""
    tags = [
        shop.tag(shop.answer(model), **{"kind": form} | data)
        for form, (model, data, _, _) in FORMS.items()
    ]
    url = shop.page(f'<meta name="color-scheme" content="{scheme}">', *tags)
    watched = await open_page(url, color_scheme=scheme, viewport={"width": 400, "height": 800})
    await watched.page.get_by_role("button", name="Bad").click()
    assert await watched.findings() == []
    width = await watched.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 400
    await watched.picture(f"widget-{scheme}")


# --- as it is served --------------------------------------------------------------------------


async def test_it_is_small_and_open_to_all(shop: Shop) -> None:
    """Under 5 kB as it is sent, for any origin, without a cookie; kept, it is not sent again."""
    with shop.service.client(key=None) as http:
        with http.stream("GET", "/widget.js") as found:
            sent = b"".join(found.iter_raw())
        plain = http.get("/widget.js", headers={"accept-encoding": "identity"})
        again = http.get("/widget.js", headers={"if-none-match": found.headers["etag"]})
        elsewhere = http.get("/widget.js", headers={"origin": "https://elsewhere.example.org"})
    assert len(sent) < 5_000
    assert plain.text == WIDGET.read_text()
    assert {c for c in plain.text if not c.isascii()} == set("▲▼")  # no font has to have the rest
    assert (again.status_code, again.content) == (304, b"")
    for reply in (found, plain, again, elsewhere):
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "max-age" in reply.headers["cache-control"]
        assert "set-cookie" not in reply.headers


def preflight(http: httpx2.Client, path: str, origin: str) -> httpx2.Response:
    """Ask as a browser does before a page's script may post JSON."""
    headers = {"origin": origin, "access-control-request-method": "POST"}
    return http.options(path, headers=headers | {"access-control-request-headers": "content-type"})


async def test_browsers_are_told_who_may_post(shop: Shop) -> None:
    """Pages that are configured may post, and read the reply; others may not, whatever they ask."""
    with shop.service.client(key=None) as http:
        ours = preflight(http, "/v1/feedback", shop.origin)
        others = preflight(http, "/v1/feedback", "https://elsewhere.example.org")
        alone = http.post("/v1/feedback_batch", json={"items": []}, headers={"origin": shop.origin})
    assert (ours.status_code, ours.headers["access-control-allow-origin"]) == (200, shop.origin)
    assert "access-control-allow-credentials" not in ours.headers
    assert int(ours.headers["access-control-max-age"]) >= 60  # else a page that is left cannot ask
    assert others.status_code == 403
    assert "access-control-allow-origin" not in others.headers
    assert alone.status_code == 401  # more than one's own answer takes a key
