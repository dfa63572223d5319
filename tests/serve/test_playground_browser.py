"""The page in a real browser, headless: by keyboard, in both themes, narrow, in trouble."""

import contextlib
import io
import re
import shutil

import pytest

from live_server import live
from m3_retrievers import HeadSpec, HybridRetriever, M3Encoder, Recall
from m3_retrievers.serve import Served, create_app
from m3_retrievers.types.plan import HybridWeights
from sentences import SENTENCES

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),  # the page is asked for on loopback
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
HOSTILE = {
    "<b>script</b>": "<script>document.title = 'owned'</script> the page that matters & more",
    "image": "<img src=x onerror=\"document.title = 'owned'\"> the page \x00 \x1b[31m of a river",
    "turned\u202eround": "an invoice \u202egnp.exe for the page \u2067 and no end",
    "emoji": "The librarian 👩🏽‍🔬 found the page 📄 in the archive 🇩🇪.",
    "half": "half a character \ud83d of the page",
    "empty": "",
}
TEXTS = {f"d{n}": text for n, text in enumerate(SENTENCES[:18])} | HOSTILE
QUESTION = "the page that matters in the library"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("playground")


@pytest.fixture(scope="module")
def served(tiny_m3, other_m3, folder):
    found = []
    for name, model in (("mine", tiny_m3), ("other", other_m3)):
        made = HybridRetriever(
            M3Encoder.from_pretrained(model, device="cpu"), recall=Recall(dense=50, lexical=50)
        )
        made.add(TEXTS.values(), ids=TEXTS, metadata=[{"n": n} for n in range(len(TEXTS))])
        made.save(folder / name)
        code = (
            "from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, Recall\n\n"
            f"encoder = M3Encoder.from_pretrained({str(model)!r})\n"
            f"retriever = HybridRetriever.load({str(folder / name)!r}, encoder)"
        )
        found.append(Served(name, made, code))
    return found


@pytest.fixture(scope="module")
def retriever(served):
    return served[0].retriever


@pytest.fixture(scope="module")
def url(served):
    with live(create_app(served[0].retriever.encoder, served)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A tab of its own; whatever it asked for, and no script may fail in it."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    page.set_default_timeout(60_000)  # a busy machine is no failure
    page.asked, failed = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    yield page
    page.close()
    assert failed == []


def ask(page, url, question=QUESTION):
    """Ask a question, and wait until every hit that is shown was read."""
    page.goto(url)
    page.get_by_label("Question").fill(question)
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    settled(page)


def settled(page):
    """Wait until every list has hits, and every hit that is shown was read."""
    page.wait_for_function(
        "() => document.querySelector('.hit') &&"
        "!document.querySelector('[aria-busy], .hits:empty, .hit:not([data-read])')"
    )


def ids_of(hits):
    return [hit.id for hit in hits]


def shown_ids(page, column=0):
    hits = page.locator(".column").nth(column).locator(".hit .id")
    return hits.evaluate_all("all => all.map((one) => one.textContent)")


def slide(page, name, *keys, column=0):
    slider = page.locator(".column").nth(column).get_by_label(name)
    for key in keys:
        slider.press(key)


def test_a_question_is_asked_and_explained_by_keyboard_alone(page, url, retriever):
    page.goto(url)
    page.locator(".column").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    settled(page)
    assert shown_ids(page) == ids_of(retriever.search(QUESTION, k=10))
    status = page.get_by_role("status").first
    assert "10 of" in status.inner_text()
    assert f"First: {shown_ids(page)[0]}" in status.evaluate("element => element.textContent")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "head":
            break
    focused = page.locator(":focus")
    assert focused.get_attribute("aria-expanded") == "false"
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.locator(".heat").wait_for()
    assert focused.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Tab")  # into the scrolled part, or the map itself
    if page.locator("td:focus").count() == 0:
        page.keyboard.press("Tab")
    before = page.locator("td:focus").get_attribute("aria-label")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    after = page.locator("td:focus").get_attribute("aria-label")
    assert before != after
    said = page.locator(".pointed").evaluate("element => element.textContent")
    assert said.rpartition(" ")[2] in after
    page.keyboard.press("Escape")
    assert page.locator(".heat").is_hidden()
    assert page.evaluate("document.activeElement.className") == "head"


def test_weights_reorder_at_once_and_ask_nobody(page, url, retriever):
    ask(page, url)
    page.get_by_role("button", name="Show more").click()
    page.get_by_role("button", name="Show more").click()
    settled(page)
    before, asked = shown_ids(page), len(page.asked)
    slide(page, "Weight of ColBERT", "Home")
    slide(page, "Weight of dense", "Home")
    slide(page, "Weight of sparse", *["ArrowRight"] * 3)
    retriever_hits = retriever.search_legs(
        QUESTION,
        k=100,
        plan=type(retriever.plan)(
            weights=HybridWeights(dense=0.0, sparse=0.45, colbert=0.0),
            recall=retriever.recall,
        ),
    ).hits
    assert shown_ids(page) == ids_of(retriever_hits)
    assert shown_ids(page) != before
    assert len(page.asked) == asked
    assert "▲" in "".join(page.locator(".move").all_inner_texts())
    slide(page, "Weight of sparse", "Home")
    assert page.locator(".hit").count() == 0
    assert page.locator(".results").get_by_text("Give one mode a weight above 0.").is_visible()
    page.get_by_role("button", name="Reset").click()
    assert shown_ids(page) == before
    assert len(page.asked) == asked


def test_a_question_before_the_indexes_are_there_waits_for_them(page, url):
    waiting = []
    page.route("**/indexes", lambda route: waiting.append(route))
    page.goto(url)
    page.get_by_label("Question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.wait_for_function("() => true")
    waiting[0].continue_()
    settled(page)
    assert len(shown_ids(page)) == 10


def test_another_depth_asks_the_server(page, url, retriever):
    ask(page, url)
    with page.expect_request("**/search") as asked:
        slide(page, "Depth of the dense leg", "Home")
    assert asked.value.post_data_json["recall"] == {"dense": 5, "lexical": 50}
    settled(page)
    with page.expect_response("**/search"):
        slide(page, "Depth of the lexical leg", "Home")
    settled(page)
    plan = type(retriever.plan)(weights=retriever.weights, recall=Recall(dense=5, lexical=5))
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    expected = retriever.search_legs(QUESTION, k=10, plan=plan).hits
    assert shown_ids(page) == ids_of(expected)


def test_two_models_stand_beside_each_other_and_two_settings_of_one(page, url, served):
    ask(page, url)
    page.get_by_role("button", name="Compare").click()
    settled(page)
    for column, index in enumerate(served):
        expected = index.retriever.search(QUESTION, k=10)
        assert shown_ids(page, column) == ids_of(expected)
    page.locator(".column").nth(1).get_by_label("Index and model").select_option("mine")
    page.wait_for_function(
        "() => !document.querySelector('[aria-busy]') && "
        "document.querySelectorAll('.column')[1].querySelectorAll('.move:empty').length === 10"
    )
    slide(page, "Weight of ColBERT", "Home", column=1)
    left, right = shown_ids(page, 0), shown_ids(page, 1)
    moved = page.locator(".column").nth(1).locator(".hit")
    for place, id in enumerate(right):
        move = moved.nth(place).locator(".move").evaluate("element => element.textContent")
        if id in left:
            steps = left.index(id) - place
            assert move == (
                ""
                if not steps
                else f"{'▲' if steps > 0 else '▼'}{abs(steps)}"
                f"{abs(steps)} {'up' if steps > 0 else 'down'}"
            )
    page.get_by_role("button", name="Compare").click()
    assert page.locator(".column").count() == 1


def test_what_is_copied_runs_and_gives_the_hits_of_the_page(page, url, browser):
    question = 'the "page" \\ of\u202e a river 😀'
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, url, question)
    slide(page, "Weight of dense", "ArrowRight", "ArrowRight")
    slide(page, "Weight of ColBERT", "ArrowLeft")
    settled(page)
    page.get_by_role("button", name="Copy as Python").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_text("Copied.").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert code == page.get_by_label("Python code").input_value()
    assert "\u202e" not in code
    page.keyboard.press("Escape")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "copied", "exec"), {})
    printed = [line.split(" ")[1] for line in out.getvalue().splitlines() if line]
    expected = [id.split(" ")[0] for id in shown_ids(page)]
    assert printed == expected


def luminance(colour):
    def linear(part):
        part = int(part) / 255
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = map(linear, re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_themes(page, url, scheme):
    page.emulate_media(color_scheme=scheme)
    ask(page, url)
    style = "(e, name) => getComputedStyle(e)[name]"
    ground = page.locator("body").evaluate(style, "backgroundColor")
    panel = page.locator(".settings").evaluate(style, "backgroundColor")
    assert (luminance(ground) > 0.5) == (scheme == "light")
    for selector in ("body", ".quiet >> nth=0", ".place >> nth=0", "button >> nth=1"):
        ink = page.locator(selector).first.evaluate(style, "color")
        assert min(contrast(ink, ground), contrast(ink, panel)) >= 4.5, selector
    search = page.get_by_role("button", name="Search")
    colours = [search.evaluate(style, name) for name in ("color", "backgroundColor")]
    assert contrast(*colours) >= 4.5
    for mode in ("dense", "sparse"):
        bar = page.locator(f".swatch.{mode}").first.evaluate(style, "backgroundColor")
        assert contrast(bar, ground) >= 3, mode


def test_a_narrow_screen_is_not_scrolled_sideways(page, url):
    page.set_viewport_size({"width": 360, "height": 740})
    ask(page, url)
    page.locator(".head").first.click()
    page.locator(".heat").wait_for()
    page.get_by_role("button", name="Compare").click()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("Search", "Compare"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 24


def test_documents_of_any_script_and_hostile_ones_are_text(page, url):
    ask(page, url)
    for _ in range(2):
        page.get_by_role("button", name="Show more").click()
    settled(page)
    texts = dict(
        zip(
            shown_ids(page),
            page.locator(".hit .text").evaluate_all("all => all.map((one) => one.textContent)"),
            strict=True,
        )
    )
    assert {"<b>script</b>", "image", "turned\u202eround", "emoji", "half"} <= set(texts)
    for id, text in texts.items():
        expected = TEXTS[id] or "(an empty text)"
        assert text.replace("\ufffd", "\ud83d") == expected  # as half of it is read back
    assert page.title() == "Playground · m3-retrievers"
    assert page.locator("main script, main img, main b").count() == 0
    arabic = next(id for id, text in TEXTS.items() if text.startswith("وجدت"))
    place = list(texts).index(arabic)
    assert (
        page.locator(".hit .text").nth(place).evaluate("e => getComputedStyle(e).direction")
        == "rtl"
    )
    isolated = page.locator(".hit .id").first.evaluate("e => getComputedStyle(e).unicodeBidi")
    assert isolated == "isolate"
    for id in HOSTILE:
        page.locator(".head").nth(list(texts).index(id)).click()
    page.wait_for_function(
        "all => document.querySelectorAll('.detail > figure').length >= all", arg=len(HOSTILE)
    )
    assert page.title() == "Playground · m3-retrievers"


def test_no_request_leaves_the_server(page, url):
    ask(page, url)
    page.locator(".head").first.click()
    page.locator(".heat").wait_for()
    assert page.asked
    assert all(one.startswith((f"{url}/", "data:")) for one in page.asked), page.asked
    with pytest.raises(sync_api.Error, match="fetch"):
        page.evaluate("fetch('http://127.0.0.1:1/')")
    with pytest.raises(sync_api.Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<p>'")


def test_a_server_that_is_gone_or_busy_is_said_and_asked_again(page, url):
    ask(page, url)
    page.route("**/search", lambda route: route.abort())
    page.get_by_label("Question").fill("the river")
    page.keyboard.press("Enter")
    page.get_by_text("The server does not answer.").wait_for()
    page.unroute("**/search")
    busy = {"status": 503, "headers": {"retry-after": "7"}, "body": "{}"}
    page.route("**/search", lambda route: route.fulfill(**busy))
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("Try again in 7 s.").wait_for()
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("() => !document.querySelector('#problem').textContent")
    settled(page)
    assert page.get_by_role("alert").inner_text() == ""
    page.route("**/explain", lambda route: route.abort())
    page.get_by_label("Question").fill("a bridge")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('mark').length <= 2")
    page.locator(".head").first.click()
    page.locator(".detail [role=alert]").get_by_text("does not answer").wait_for()


def test_the_key_is_asked_for_once_and_kept_in_the_tab(page, retriever):
    with live(create_app(retriever.encoder, retriever, api_key="right")) as url:
        page.goto(url)
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("Without its key the server answers nothing.").wait_for()
        assert page.get_by_role("button", name="Compare").is_disabled()
        page.get_by_role("button", name="Try again").click()
        dialog.get_by_label("Key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("did not accept that key").wait_for()
        dialog.get_by_label("Key").fill("right")
        page.keyboard.press("Enter")
        page.locator(".column").wait_for()
        page.reload()
        page.locator(".column").wait_for()
        assert page.get_by_role("dialog").count() == 0
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_what_a_model_or_a_server_lacks_is_said(page, encoder, tiny_bert):
    heads = HeadSpec(sparse=False, colbert=False)
    bare = HybridRetriever(
        M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=heads), legs=("dense", "bm25")
    )
    bare.add(["the page", "the river"])
    with live(create_app(bare.encoder, bare)) as url:
        ask(page, url, "the page")
        assert page.get_by_text("This model has no ColBERT head.").is_visible()
        assert page.get_by_text("This model has no sparse head.").is_visible()
        assert page.get_by_label("Weight of BM25").is_visible()
        page.locator(".head").first.click()
        page.get_by_text("Shared terms (BM25)").wait_for()
        bare.delete(bare.index.ids)
        with page.expect_response("**/search"):
            page.get_by_role("button", name="Search").click()
        page.locator(".results").get_by_text("The index is empty.").wait_for()
    with live(create_app(encoder)) as url:
        page.goto(url)
        page.get_by_text("a model and no index").wait_for()


def test_a_notebook_s_frame_works_with_no_network_at_all(page, retriever):
    shown = retriever.playground([QUESTION, "ارتفع النهر"], k=3)
    page.route("**/*", lambda route: route.abort())
    page.set_content(f"<p>a notebook</p>{shown._repr_html_()}")
    frame = page.frame_locator("iframe")
    frame.locator(".hit").first.wait_for()
    first = frame.locator(".hit .id").first.text_content()
    assert first == retriever.search(QUESTION, k=1)[0].id
    frame.locator(".head").first.click()
    frame.locator(".heat").wait_for()
    frame.get_by_label("Depth of the dense leg").press("Home")
    frame.get_by_label("Depth of the lexical leg").press("Home")
    plan = type(retriever.plan)(weights=retriever.weights, recall=Recall(dense=5, lexical=5))
    expected = [hit.id for hit in retriever.search_legs(QUESTION, k=10, plan=plan).hits]
    assert (
        frame.locator(".hit .id").evaluate_all("all => all.map((one) => one.textContent)")
        == expected
    )
    frame.get_by_label("Question").select_option(index=1)
    frame.get_by_label("Weight of ColBERT").press("Home")
    assert frame.locator(".hit").count() > 0
    assert page.asked == []
    page.set_content(HybridRetriever(retriever.encoder).playground()._repr_html_())
    page.frame_locator("iframe").get_by_text("Ask a question").wait_for()
