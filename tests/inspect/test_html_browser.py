"""The report in a real browser, without a screen: keys, filters, themes, hostile text."""

import pytest

from tests.in_browser import contrasts, find, in_browser, open_browser, press, texts, wait
from tests.inspect.report_page import ARABIC, CONTROL, EMOJI, HEBREW, MARKUP, make_report

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = in_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from open_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report") / "report.html").as_uri()


@pytest.fixture
def page(browser, address):
    """The report as it opens, on its first tab; afterwards the console must be empty."""
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return [typeof hacked, document.title]") == [
        "undefined",
        f"mixture {MARKUP} - tulu data",
    ]


def entries(page):
    return texts(page, ".list .id b")


def search(page, words):
    press(page, Keys.ESCAPE + "/")
    field = page.switch_to.active_element
    assert field.get_attribute("type") == "search"
    field.send_keys(words)  # what stood there is selected


def status(page):
    (one,) = texts(page, ".filters .note")
    return one


def test_overview(page):
    assert texts(page, "#tabs button") == ["Overview", "Examples", "Packed rows", "Checks"]
    assert texts(page, "h1") == [f"mixture {MARKUP}"]
    assert texts(page, "h2") == ["Composition", "Datasets", "Lengths and trained shares"]
    assert texts(page, "#composition tbody th") == ["plain", "odd"]
    assert len(find(page, "svg.chart")) == 6  # all, plain, odd: lengths and shares
    (bin_, *_) = find(page, "svg.chart g")

    def shown():
        # The first movement may come before a slow machine has laid the page out.
        ActionChains(page).move_to_element(bin_).move_by_offset(1, 0).perform()
        return texts(page, "#tip") == ["0 to 8 tokens: 0 (0 %)"]

    wait(page, shown)


def test_tabs_and_their_keys(page):
    press(page, "3")
    assert [t.text for t in find(page, '[role="tab"][aria-selected="true"]')] == ["Packed rows"]
    page.switch_to.active_element.send_keys("2")
    (tab,) = find(page, '[role="tab"][aria-selected="true"]')
    tab.click()
    tab.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.text == "Packed rows"
    assert page.current_url.endswith("#rows")


def test_trained_tokens_are_told_apart(page):
    press(page, "2")
    assert entries(page)[0] == "camels"
    assert texts(page, ".detail h2") == ["camels"]
    assert texts(page, ".detail .on") == ["They use the fat in their humps.</s>"]
    assert (
        "tokens are trained: the model learns to produce them" in texts(page, ".legend")[0].lower()
    )
    trained, context = find(page, ".detail .on")[0], find(page, ".detail .off")[0]
    ground = "background-color"
    assert trained.value_of_css_property(ground) != context.value_of_css_property(ground)
    assert "underline" in trained.value_of_css_property("text-decoration-line")
    press(page, "jj")
    assert texts(page, ".detail h2") == ["bulk_0"]
    press(page, "k")
    assert texts(page, ".detail .on") == ["2</s>⏎", "3</s>"]
    assert texts(page, ".detail .role") and texts(page, ".detail .sp") == ["<s>", "</s>", "</s>"]


def test_token_cursor_and_tooltip(page):
    press(page, "2l")
    assert texts(page, "#tip")[0].startswith("token 0: <s> (id ")
    press(page, "l")
    (tip,) = texts(page, "#tip")
    assert tip.startswith("token 1:") and tip.endswith("not trained: context only")
    (last,) = find(page, ".detail .on .sp")
    ActionChains(page).move_to_element(last).perform()
    wait(page, lambda: "trained: counts in the loss" in texts(page, "#tip")[0])


def test_search_and_filters(page):
    press(page, "2")
    search(page, "camel")
    wait(page, lambda: entries(page) == ["camels"])
    assert status(page) == "1 of 306 examples" and texts(page, "mark")
    search(page, "/after 29[0-3]\\?/")
    wait(page, lambda: entries(page) == [f"bulk_{i}" for i in range(290, 294)])
    search(page, "/(/")
    wait(page, lambda: status(page) == "not a pattern")
    assert page.switch_to.active_element.get_attribute("aria-invalid") == "true"
    press(page, Keys.ESCAPE)
    press(page, "x")
    wait(page, lambda: status(page) == "306 of 306 examples")
    (roles,) = find(page, 'input[placeholder="(user assistant)+"]')
    roles.send_keys("user assistant user assistant")
    wait(page, lambda: entries(page) == ["twice"])
    (reset,) = [button for button in find(page, "button") if button.text == "Reset"]
    reset.click()
    dataset, only = find(page, "select")
    only.send_keys("dropped")
    wait(page, lambda: entries(page) == ["long"])
    assert "dropped: prompt fills max_length" in texts(page, ".badge")
    dataset.send_keys("plain")
    wait(page, lambda: entries(page) == [])
    assert texts(page, ".empty") == ["Nothing passes these filters."]


def test_long_lists_are_drawn_in_parts(page):
    press(page, "2")
    assert len(find(page, ".list li")) == 201 and texts(page, ".list .more") == ["106 more"]
    press(page, "G")
    assert len(find(page, ".list li")) == 306
    assert find(page, '.list li[aria-selected="true"]')[0].get_attribute("id") == "example-305"
    press(page, "g")
    assert texts(page, ".detail h2") == ["camels"]


def test_text_of_any_script_and_hostile_text(page):
    press(page, "2")
    search(page, HEBREW)
    wait(page, lambda: entries(page) == ["scripts"])
    shown = page.execute_script("return document.querySelector('.tokens').textContent")
    for text in (ARABIC, HEBREW, EMOJI):
        assert text in shown
    search(page, "onerror")
    wait(page, lambda: entries(page) == ["markup" + MARKUP])
    shown = page.execute_script("return document.querySelector('.tokens').textContent")
    assert shown.count(MARKUP) == 2
    search(page, "gnp.exe")
    wait(page, lambda: entries(page) == ["control"])
    shown = page.execute_script("return document.querySelector('.tokens').textContent")
    assert "␛[31mred ⟨U+202E⟩gnp.exe⟨U+202C⟩ ⟨U+2028⟩ ⟨U+009B⟩ tab\there" in shown
    assert not set(shown) & set(CONTROL) & set("\x1b\u202e\u202c\u2028\x9b")
    assert page.execute_script("return document.images.length + document.scripts.length") == 2


def test_packed_rows_show_their_borders(page):
    press(page, "3")
    segments = find(page, ".segment:not(.padding)")
    assert len(segments) > 1 and segments[0].text.startswith("Segment 1")
    assert "positions filled" in texts(page, ".detail .facts")[0]
    starts = [s.find_element(By.CSS_SELECTOR, ".tokens").text for s in segments]
    assert all(start.startswith("<s>") for start in starts)
    assert len(find(page, ".strip.tall .trained")) >= len(segments)


def test_checks_are_text(page):
    press(page, "4")
    assert texts(page, "h2") == ["Duplicates <b>"]
    assert texts(page, "tbody th") == ["a<i>", "b", "x", "y"]
    assert texts(page, "tbody td")[:2] == ["12,345", "–"]
    assert MARKUP in texts(page, ".card p")
    assert ARABIC in texts(page, "blockquote")[0] and "U+202E" in texts(page, "blockquote")[0]


def test_dark_and_light(page):
    def ground():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    before = ground()
    press(page, "d")
    assert ground() != before
    (button,) = [b for b in find(page, "header button") if b.text in ("Dark", "Light")]
    button.click()
    assert ground() == before
    for scheme in ("dark", "light"):
        page.execute_script("localStorage.clear()")
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.refresh()
        light = ground() == "rgb(251, 250, 248)"
        assert light == (scheme == "light")


def test_help_lists_the_keys(page):
    press(page, "?")
    (dialog,) = find(page, "dialog")
    assert "next one" in dialog.text and "dark or light" in dialog.text
    press(page, Keys.ESCAPE)
    wait(page, lambda: not find(page, "dialog"))


def test_contrast(page):
    """Text stands out from its ground by 4.5 at least, in both themes."""
    press(page, "2")
    selectors = ["h1", "dt", ".detail .on [data-i]", ".detail .off [data-i]", ".detail .sp"]
    selectors += [".list .start", '.list [aria-selected="true"] .start', ".filters label"]
    for _ in range(2):
        ratios = contrasts(page, selectors)
        assert all(ratio >= 4.5 for ratio in ratios.values()), ratios
        press(page, "d")


def test_a_narrow_window_needs_no_sideways_scrolling(page):
    page.set_window_size(500, 900)
    try:
        for tab in "1234":
            press(page, tab)
            wide = "return document.documentElement.scrollWidth - innerWidth"
            assert page.execute_script(wide) <= 0
    finally:
        page.set_window_size(1200, 900)
