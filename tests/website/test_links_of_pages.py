"""What the check of a built site sees."""

import pytest

from website.links import clicks, faults
from website.stage import _lists_apart, _page

HEAD = '<link rel="canonical" href="https://x.org/"><link rel="stylesheet" href="a.css">'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "a.css").write_text("body { color: red }")
    (tmp_path / "one.html").write_text(f'{HEAD}<h1 id="top">One</h1><article></article>')
    (tmp_path / "index.html").write_text(
        '<nav><a href="two.html">Two</a></nav><article><a href="one.html#top">One</a></article>'
    )
    (tmp_path / "two.html").write_text("<article></article>")
    return tmp_path


def test_a_site_in_order(site):
    assert list(faults(site)) == []
    assert {path.name: count for path, count in clicks(site).items()} == {
        "index.html": 0,
        "one.html": 1,
    }


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('<a href="gone.html">x</a>', r"two\.html leads to gone\.html, which is not there"),
        ('<a href="one.html#gone">x</a>', "there is no such place on that page"),
        ('<script src="https://cdn.org/x.js"></script>', "loads https://cdn.org/x.js from elsewh"),
        ('<img src="//cdn.org/x.png">', "loads //cdn.org/x.png from elsewhere"),
        ('<link rel="stylesheet" href="https://fonts.org/x.css">', "loads https://fonts.org"),
        ('<img src="gone.svg">', r"leads to gone\.svg, which is not there"),
    ],
)
def test_faults(site, content, fault):
    (site / "two.html").write_text(content)
    with pytest.raises(AssertionError, match=fault):
        assert "\n".join(faults(site)) == ""


def test_a_style_that_fetches_a_font(site):
    (site / "a.css").write_text("@font-face { src: url(https://fonts.org/x.woff2) }")
    assert list(faults(site)) == ["a.css loads something from elsewhere"]


def test_pages_as_github_shows_them(tmp_path):
    text = "Two:\n- a\n- b\n\n```\nx:\n- c [y](gone.md)\n```\n`[z](gone.md)` [w](https://x.org)"
    shown = _page(text, tmp_path / "a.md", "a.md", tmp_path)
    assert shown == text.replace("Two:\n", "Two:\n\n")
    assert _lists_apart("- a\n- b") == "- a\n- b"
