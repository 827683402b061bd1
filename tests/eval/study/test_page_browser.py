"""The page of a study in a real browser: light and dark, on a desktop and on a phone."""

import pytest

from eval.study.page import write_html
from eval.study.report import sections
from eval.study.results import read_study
from eval.study.tables import within
from tests.eval.study.finished_studies import finish, small_table
from tests.in_browser import contrasts, find, in_browser, open_browser, texts

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

pytestmark = in_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from open_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    table = finish(small_table(tmp_path_factory.mktemp("study")))
    found = read_study(table)
    path = write_html(table.root / "report.html", found, sections(found, within))
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_the_page_shows_tables_findings_and_the_figure(page):
    assert page.title == "Study toy - tulu study report"
    names = texts(page, "nav a")
    assert names == texts(page, "section h2") and len(names) > 8
    assert len(find(page, "section li")) > 8
    dots = "return [...document.querySelectorAll('circle')].map((e) => e.getBoundingClientRect().x)"
    assert len(set(page.execute_script(dots))) >= 3
    lost = """return [...document.querySelectorAll("a[href^='#']")].filter(
      (a) => !document.querySelector(`[id="${a.getAttribute("href").slice(1)}"]`)).length"""
    assert page.execute_script(lost) == 0


def test_text_stands_out_in_light_and_dark(page):
    grounds = set()
    selectors = ["h1", "h2", "section li", "td a", "td.tied a", "tr.paper td", "tr.counts td",
                 "section .note", "nav a"]  # fmt: skip
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        ratios = contrasts(page, selectors)
        assert all(ratio >= 4.5 for ratio in ratios.values()), (scheme, ratios)
        grounds.add(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_a_phone_needs_no_sideways_scrolling_of_the_page(page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.execute_script(wide) <= 0
        stuck = "return getComputedStyle(document.querySelector('tbody th')).position"
        assert page.execute_script(stuck) == "sticky"
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
