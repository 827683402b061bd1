"""The documentation as a site: built strictly, and walked through as a reader walks through it."""

import re
import tomllib

import in_browser
import pytest
from test_pages_of_docs import named

from website import api, errors, stage
from website.build import build
from website.links import clicks, faults, read_site
from website.source import ROOT

pytestmark = pytest.mark.slow
shown = in_browser.in_browser[1]
"""The mark of tests that need a browser."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("website"))


@pytest.fixture(scope="module")
def pages(site):
    return read_site(site)


def test_every_page_of_the_docs_is_there(site):
    for path in sorted((ROOT / "docs").rglob("*.md")):
        assert (site / stage.name_of(path)).with_suffix(".html").is_file(), path
    for name in stage.MORE_PAGES.values():
        assert (site / name).with_suffix(".html").is_file()


def test_every_link_leads_somewhere_and_nothing_is_fetched_elsewhere(site, pages):
    assert len(pages) > 50
    assert list(faults(site)) == []
    assert sum(len(page.links) for page in pages.values()) > 5000


def test_no_mark_of_the_source_is_left(site):
    for path in set(site.rglob("*.html")) - set((site / "files").rglob("*.html")):
        text = path.read_text()
        assert "<!-- made:" not in text and "\x00" not in text, path
        article = re.search(r"<article.*?</article>", text, re.DOTALL)[0]
        prose = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", article, flags=re.DOTALL)
        assert not re.search(r"<p>[^<]*\n[-*] ", prose), f"{path}: a list is shown as text"
        assert "| --- |" not in prose and "|---|" not in prose, f"{path}: a table is shown as text"


@pytest.mark.parametrize(
    "page", ["tpu_pod.html", "add_a_dataset.html", "troubleshooting.html", "errors/train.html"]
)
def test_three_clicks_from_the_first_page(site, page):
    assert clicks(site)[site / page] <= 3


def test_every_error_of_the_code_has_its_place(pages, site):
    """Two clicks from the first page: its link among all messages leads to its heading."""
    found = errors.sites(stage.source())
    listed = set(pages[site / "troubleshooting.html"].links)
    for room, by_kind in errors.messages(found).items():
        page = errors.page_name(room).replace(".md", ".html")
        for message in (one for found in by_kind.values() for one in found):
            assert message.anchor in pages[site / page].anchors
            assert f"{page}#{message.anchor}" in listed


def test_the_reference_shows_what_rooms_export(pages, site):
    seen = 0
    for page, (_, modules) in api.PAGES.items():
        anchors = pages[site / "api" / f"{page}.html"].anchors
        for module in modules:
            assert module in anchors
            for name, origin in api.exports(module).items():
                if name.islower():  # functions; of constants only those that say what they are
                    assert {f"{module}.{name}", origin} & anchors, f"{module}.{name}"
                    seen += 1
    assert seen > 50
    for page, name in {
        "generate": "tulu_jax.generate.Engine",
        "models": "tulu_jax.models.LlamaConfig",
        "train": "tulu_jax.train.config.TrainConfig",
        "errors": "tulu_jax.errors.TuluError",
    }.items():
        assert name in pages[site / "api" / f"{page}.html"].anchors


def test_the_picture_links_rooms_to_their_reference(site):
    text = (site / "architecture.html").read_text()
    picture = re.search(r'<svg class="rooms".*?</svg>', text, re.DOTALL)[0]
    assert 'href="api/train.html"' in picture and picture.count("<rect") > 15


def empty_pages(folder):
    """Pages of the menu, one line each; the first leads to a place that is not there."""
    config = tomllib.loads((ROOT / "website" / "zensical.toml").read_text())
    for name in (*named(config["project"]["nav"]), "extra.css", "extra.js", "worker.js"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("# A page\n" if name.endswith("md") else "")
    (folder / "index.md").write_text("# Home\n\n[a place](quickstart.md#gone)\n")


def test_a_broken_anchor_ends_the_build(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("website.build.stage", empty_pages)
    with pytest.raises(SystemExit, match="the generator found faults"):
        build(tmp_path / "built")
    assert "Aborted because --strict flag is set" in capfd.readouterr().err


def test_a_broken_link_ends_the_build(tmp_path, monkeypatch):
    def broken(folder):
        stage._page("[a page](gone.md)", ROOT / "docs" / "index.md", "index.md", folder)

    monkeypatch.setattr("website.build.stage", broken)
    with pytest.raises(SystemExit, match=r"index\.md leads to gone\.md, which is not a file"):
        build(tmp_path / "built")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from in_browser.open_browser(tmp_path_factory.mktemp("profile"))


def visit(browser, site, page, *, scheme="light", width=1200):
    phone = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 600}
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get((site / page).as_uri())


def complaints(browser):
    return [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]


@shown
def test_search_by_keys_without_a_server(browser, site):
    visit(browser, site, "index.html")
    inside = "const r = document.activeElement.shadowRoot; return r && r.querySelector('input')"
    in_browser.press(browser, "/")
    in_browser.wait(browser, lambda: browser.execute_script(f"{inside} ? 'open' : ''"))
    for key in "bos":
        in_browser.press(browser, key)
    text = "return document.activeElement.shadowRoot.textContent"
    in_browser.wait(browser, lambda: "check_bos" in browser.execute_script(text))
    assert complaints(browser) == []


@shown
def test_a_pasted_message_is_found(browser, site):
    visit(browser, site, "troubleshooting.html")
    told = (
        "tulu train: unknown setting - got LR - expected a name of the list - `tulu train --help`"
    )
    browser.find_element("id", "message").send_keys(told)
    in_browser.wait(browser, lambda: in_browser.texts(browser, "#found a"))
    assert in_browser.texts(browser, "#found a")[0] == "unknown setting"
    assert not in_browser.find(browser, "#messages li")
    in_browser.find(browser, "#found a")[0].click()
    in_browser.wait(browser, lambda: browser.current_url.endswith("cli.html#unknown-setting"))
    assert complaints(browser) == []


@shown
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "page", ["index.html", "architecture.html", "from_maxtext.html", "errors/train.html"]
)
def test_pages_fit_a_phone_and_stand_out(browser, site, page, scheme):
    visit(browser, site, page, scheme=scheme, width=390)
    wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.execute_script(wide)
    seen = in_browser.contrasts(browser, ["article p", "article a:not(.headerlink)", "article h1"])
    assert min(seen.values()) > 4.5, seen
    assert complaints(browser) == []
