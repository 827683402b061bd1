"""The page in a real browser, without a screen: sorting, filters, keys, themes, hostile text."""

import pytest

from eval.report.board import read_board
from eval.report.page import write_html
from tests.eval.report.hostile import ARABIC, CONTROL, EMOJI, MARKUP, write_hostile
from tests.eval.report.suites import MODELS, write_suites
from tests.in_browser import contrasts, find, in_browser, open_browser, press, texts, wait

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

pytestmark = in_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from open_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    plain = read_board([write_suites(folder / "plain")], base="llama-7b")
    hostile = read_board([write_hostile(folder / "hostile")])
    return {
        "plain": write_html(folder / "plain.html", plain).as_uri(),
        "hostile": write_html(folder / "hostile.html", hostile).as_uri(),
    }


def opened(browser, address):
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return typeof hacked") == "undefined"
    assert browser.title.endswith(" - tulu report")


@pytest.fixture
def page(browser, pages):
    yield from opened(browser, pages["plain"])


@pytest.fixture
def hostile(browser, pages):
    yield from opened(browser, pages["hostile"])


def column(page, number):
    return texts(page, f"#results tbody tr :nth-child({number}) .value, #results tbody tr "
                 f"td:nth-child({number}):not(:has(.value))")  # fmt: skip


def test_results(page):
    assert texts(page, "#tabs button") == ["Results", "Groups", "Instances"]
    heads = texts(page, "#results thead th")
    assert heads == ["benchmark", *sorted(MODELS), "paper: tulu-7b (v1)", "paper: Tulu 7B (v2)"]
    names = texts(page, "#results tbody th")
    assert names[:4] == ["MMLU 0-shot", "GSM CoT", "BBH CoT", "ToxiGen ↓"]
    assert names[4:] == ["average v1", "average v2"]
    counts = texts(page, "#results .n")
    assert counts.count("n 60") == 12 and "n 14,042" in counts
    assert len(counts) == len(find(page, "#results .value"))  # no number without its n
    assert len(find(page, "#results td.tied")) >= 4
    (good,) = {e.value_of_css_property("color") for e in find(page, ".difference.good")}
    bad = {e.value_of_css_property("color") for e in find(page, ".difference.bad")}
    assert good not in bad


def test_the_table_sorts_and_turns(page):
    heads = find(page, "#results thead button")
    heads[3].click()
    found = [float(v) for v in column(page, 4) if v != "–"]
    assert found == sorted(found, reverse=True)
    assert [h.get_attribute("aria-sort") for h in find(page, "#results thead th")][
        3
    ] == "descending"
    heads[3].send_keys(Keys.ENTER)
    found = [float(v) for v in column(page, 4) if v != "–"]
    assert found == sorted(found)
    heads[0].click()
    assert texts(page, "#results tbody th")[0] == "MMLU 0-shot"
    find(page, "#turn")[0].click()
    assert texts(page, "#results tbody th")[:3] == sorted(MODELS)
    assert texts(page, "#results thead th")[:2] == ["model", "MMLU 0-shot"]


def test_bars_are_drawn_to_scale(page):
    charts = find(page, "svg.bars")
    assert len(charts) == 4  # knowledge, reasoning, safety, average
    bars = find(page, "svg.bars g")
    assert all("(n " in bar.get_attribute("data-tip") for bar in bars)
    script = """return [...document.querySelectorAll("svg.bars")].map((svg) =>
      [...svg.querySelectorAll("g")].map((g) => [
        Number(g.querySelector("rect").getAttribute("width")),
        Number(g.querySelector("text").textContent)]))"""
    for chart in page.execute_script(script):
        ratios = [width / value for width, value in chart if value > 5]
        assert max(ratios) / min(ratios) < 1.05
    press(page, "2")
    assert texts(page, "h2") == ["MMLU 0-shot", "GSM CoT", "BBH CoT", "ToxiGen"]
    labels = "return [...document.querySelectorAll('#panel-groups .label')]"
    labels = page.execute_script(f"{labels}.map((e) => e.textContent)")
    assert labels[:3] == ["law", "history", "économie"]


def test_a_bar_says_what_it_is(page):
    (bar, *_) = find(page, "svg.bars g")

    def shown():
        ActionChains(page).move_to_element(bar).perform()
        return any("alpaca-7b: " in text and "(n 60)" in text for text in texts(page, "#tip"))

    wait(page, shown)


def entries(page):
    return texts(page, ".list .id b")


def status(page):
    return texts(page, ".filters .note")[0]


def choose(page, number, text):
    Select(find(page, ".filters select")[number]).select_by_visible_text(text)


def test_instances_are_filtered(page):
    press(page, "3")
    assert status(page) == "240 of 240 instances"
    press(page, "w")
    wait(page, lambda: status(page) != "240 of 240 instances")
    assert find(page, ".list li .dots :nth-child(1):not(.wrong)") == []
    press(page, "f")
    wait(page, lambda: find(page, ".list li .dots :nth-child(1).right"))
    script = """return [...document.querySelectorAll(".list li .dots")].every((dots) =>
      dots.children[0].className !== dots.children[1].className)"""
    assert page.execute_script(script)
    choose(page, 1, "flipped to wrong")
    wait(page, lambda: entries(page) == [])
    choose(page, 1, "flipped to right")
    choose(page, 2, "tulu-7b")
    wait(page, lambda: len(entries(page)) > 40)
    assert find(page, ".list li .dots :nth-child(3):not(.right)") == []
    choose(page, 0, "GSM CoT")
    wait(page, lambda: all(name.startswith("gsm_cot/") for name in entries(page)))
    press(page, Keys.ESCAPE + "x")
    wait(page, lambda: status(page) == "240 of 240 instances")


def test_an_instance_shows_all_that_was_said(page):
    press(page, "3")
    assert len(find(page, ".answer")) == 3
    assert texts(page, ".answer h3 span:first-child") == sorted(MODELS)
    name = entries(page)[0]
    assert texts(page, ".detail h2") == [name] and texts(page, ".gold") == ["gold: 1"]
    assert f"what is {name}?" in texts(page, ".text.prompt")[0]
    press(page, "j")
    assert texts(page, ".detail h2") == [entries(page)[1]]
    press(page, "k")
    press(page, "/")
    page.switch_to.active_element.send_keys("gsm_cot/7?")
    wait(page, lambda: entries(page) == ["gsm_cot/7"])
    assert texts(page, ".detail mark") == ["gsm_cot/7?"]


def test_hostile_text(hostile):
    assert any(MARKUP in text for text in texts(hostile, "#results thead th"))
    assert any("⟨U+202E⟩gnp.exe" in text for text in texts(hostile, ".warnings p"))
    press(hostile, "3")

    def show(words, name):
        press(hostile, Keys.ESCAPE + "/")
        hostile.switch_to.active_element.send_keys(words)
        wait(hostile, lambda: entries(hostile) == [name])
        return hostile.execute_script("return document.querySelector('.detail').textContent")

    assert show("onerror", "markup" + MARKUP).count(MARKUP) >= 3
    shown = show("gnp.exe", "control")
    assert "␛[31mred ⟨U+202E⟩gnp.exe⟨U+202C⟩ ⟨U+2028⟩ ⟨U+009B⟩ tab\there" in shown
    assert not set(shown) & set(CONTROL) & set("\x1b\u202e\u202c\u2028\x9b")
    shown = show("half", "half⟨U+D800⟩half⟨U+DFFF⟩")
    assert f"⟨U+D800⟩half⟨U+DFFF⟩{ARABIC}{EMOJI}" in shown
    assert "26,008 characters left out" in show("the end", "long")
    assert "timed out" in show("F?", "failed") and texts(hostile, ".verdict") == [
        "failed",
        "failed",
    ]
    assert hostile.execute_script("return document.images.length + document.scripts.length") == 2


def test_what_is_shared_is_folded(hostile):
    press(hostile, "3")
    press(hostile, "/")
    hostile.switch_to.active_element.send_keys("Bulk 7?")
    wait(hostile, lambda: entries(hostile) == ["bulk7"])
    assert texts(hostile, ".text.prompt") == ["Bulk 7?⏎"]
    (summary,) = find(hostile, "summary")
    assert summary.text == "85 characters that prompts of this group begin with"
    summary.click()
    assert "Example: 1 + 1 = 2" in texts(hostile, "details .text")[0]


def test_dark_light_and_contrast(page):
    selectors = ["h1", "dt", "#results td.tied .n", "#results td .error", ".difference.good",
                 ".card .note"]  # fmt: skip
    grounds = set()
    for _ in range(2):
        ratios = contrasts(page, selectors)
        assert all(ratio >= 4.5 for ratio in ratios.values()), ratios
        grounds.add(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
        press(page, "3f" if len(grounds) == 1 else "3")
        wait(page, lambda: find(page, ".verdict.right"))
        ratios = contrasts(page, [".verdict.right", ".verdict.wrong", ".text", ".list .start"])
        assert all(ratio >= 4.5 for ratio in ratios.values()), ratios
        press(page, "1d")
    assert len(grounds) == 2


def test_keys_are_listed(page):
    press(page, "?")
    (dialog,) = find(page, "dialog")
    assert "only flipped ones" in dialog.text and "next one" in dialog.text
    assert "token" not in dialog.text
    press(page, Keys.ESCAPE)


def test_a_narrow_window_needs_no_sideways_scrolling(hostile):
    hostile.set_window_size(500, 900)
    try:
        for tab in "123":
            press(hostile, tab)
            wide = "return document.documentElement.scrollWidth - innerWidth"
            assert hostile.execute_script(wide) <= 0, tab
    finally:
        hostile.set_window_size(1200, 900)
