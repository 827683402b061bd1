"""Attacks on the application, each of which must fail."""

import re
from html.parser import HTMLParser

import pytest
import sqlalchemy as sa

from eval.annotate.figures import compute
from eval.annotate.page import make_page
from eval.annotate.records import Instance
from eval.annotate.store import accounts, tables
from eval.annotate.store.annotations import read_annotations
from eval.annotate.text import render
from tests.eval.annotate import studies
from tests.eval.annotate.studies import PASSWORD, said, visiting

SCRIPTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&#58;alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "![x](http://spy.example/model-a.png)",
    "<svg/onload=alert(1)>",
    '"><script>alert(1)</script>',
    "</textarea><script>alert(1)</script>",
    "</pre></div><script>alert(1)</script>",
    "`</code><script>alert(1)</script>`",
    "```\n</pre><script>alert(1)</script>\n```",
    "```html onload=alert(1)\nx\n```",
    "<a href='#' style='position:fixed' onclick=alert(1)>x</a>",
    "{{ 7 * 7 }} {% include '/etc/passwd' %}",
    "<https://x.example/'onmouseover='alert(1)>",
    '[x](https://x.example/ "t\\" onclick=alert(1)")',
    "<!-- x --><iframe src=x>",
    "' OR 1=1; DROP TABLE answers; --",
]


def harmless(page):
    """No element and no attribute of a page is one that an attacker wrote."""
    scripts = re.findall(r"<script[^>]*>", page)
    assert len(scripts) == 1 and scripts[0].startswith('<script src="/static/app.js?v=')
    assert not re.search(r"<(img|svg/|iframe|style|object|embed|base)", page)
    tags = re.findall(r"<[a-z][^<>]*>", page)
    assert not [tag for tag in tags if re.search(r"\son\w+\s*=|style\s*=|href=.?\s*(java|data|vb)",
                                                 tag, re.IGNORECASE)]  # fmt: skip
    assert "root:" not in page


class Parsed(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", SCRIPTS)
def test_rendering_keeps_no_script(text):
    for tag, attributes in Parsed(str(render(text))).found:
        assert tag in {"p", "br", "pre", "code", "a"}
        assert set(attributes) <= ({"href", "rel"} if tag == "a" else set())
        assert attributes.get("href", "https:").startswith(("https:", "http:"))


def test_stored_and_reflected_scripts_stay_text(tmp_path):
    found = [
        Instance(f"{i} {text}", text, studies.MODELS, (text, text))
        for i, text in enumerate(SCRIPTS)
    ]
    database = studies.make(tmp_path / "s.db", found, guidelines="\n\n".join(SCRIPTS), batch=99)
    studies.add_user(database, "ada", accounts.ADMIN)
    names = [text[:60].replace("\n", " ") for text in SCRIPTS]
    for name in names:
        studies.add_user(database, name)
    with visiting(database, names[0], names[1], "ada") as (first, second, ada):
        for place, who in enumerate((first, second)):
            harmless(who.get("/").text)
            who.post("/go")
            for position, text in enumerate(SCRIPTS, 1):
                harmless(who.get(f"/task/{position}").text)
                choice = "a-is-better" if place else "b-is-better"
                who.answer(position, comment=text, preference=choice)
                harmless(who.get(f"/task/{position}").text)
            harmless(who.get("/settings").text)
        for path in ("/admin", "/admin/people", "/admin/disagreements", "/admin/study",
                     "/admin/adjudicate/1", "/admin/adjudicate/5"):  # fmt: skip
            harmless(ada.get(path).text)
        for text in SCRIPTS:
            ada.get("/admin/people")
            form = {"name": text[:64].replace("\n", " "), "role": text, "days": "1"}
            harmless(ada.post("/admin/invite", form, 400).text)
        for path in ("/admin/people", "/<script>alert(1)</script>", "/join/<script>"):
            harmless(ada.client.get(path).text)
        harmless(ada.client.post("/login", data={"name": SCRIPTS[8]}).text)
        ada.post("/logout")
        ada.get("/login")
        harmless(ada.post("/login", {"name": SCRIPTS[8], "password": "x"}, 401).text)
    with database.read() as connection:  # and no statement was injected
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.answers)) == 40
    database.close()


def test_scripts_in_names_of_models_and_of_the_study_stay_text(tmp_path):
    names = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
    database = studies.make(tmp_path / "s.db", studies.instances(2, models=names))
    with database.write() as connection:
        connection.execute(tables.study.update().values(name=SCRIPTS[8]))
    studies.add_user(database, "ada", accounts.ADMIN)
    for name in ("bob", "eve"):
        studies.add_user(database, name)
    with visiting(database, "bob", "eve", "ada") as (bob, eve, ada):
        bob.annotate()
        eve.annotate(lambda _: {"preference": "b-is-better"})
        for path in ("/admin", "/admin/people", "/admin/disagreements", "/admin/study"):
            harmless(ada.get(path).text)
        harmless(bob.get("/").text)
        whole = ada.get("/admin").text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in whole
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "close", "sure": "yes"})
        assert names[0] in bob.get("/my-answers.csv").text  # no page: it is saved as a file
    page = Parsed(make_page(compute(read_annotations(database)), f"{names[0]}.xlsx"))
    kinds = {tag for tag, _ in page.found}
    assert "svg" in kinds and not kinds & {"script", "img", "iframe"}
    assert not [name for _, found in page.found for name in found if name.startswith("on")]
    database.close()


def test_every_answer_has_the_headers_of_safety(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/go")
        for path in ("/", "/task/1", "/settings", "/nothing", "/static/app.js", "/my-answers.csv",
                     "/health"):  # fmt: skip
            headers = bob.client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            kept = headers["cache-control"]
            assert ("immutable" in kept) == path.startswith("/static") and (
                path.startswith("/static") or kept == "no-store"
            )


def test_pages_hold_no_inline_script_or_style(study):
    with visiting(study, "ada", "bob") as (ada, bob):
        bob.annotate()
        pages = [bob.get(path).text for path in ("/", "/task/1", "/settings")]
        pages += [ada.get(path).text for path in ("/admin", "/admin/people", "/admin/study")]
        for page in pages:
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", page)


# ---- Forms of other sites, of other sessions, made up, or sent twice


def test_forms_need_the_sessions_own_token(study):
    with visiting(study, "bob", "eve") as (bob, eve):
        for one in (bob, eve):
            one.get("/")
            one.post("/go")
        bob.get("/task/1")
        eve.get("/task/1")
        for token in ("", "0" * 64, eve.csrf(), bob.csrf()[:-1], "ü"):
            answer = bob.client.post("/task/1", data={**said(), "csrf": token})
            assert answer.status_code == 403
            for path in ("/go", "/logout", "/settings", "/task/1/later"):
                assert bob.client.post(path, data={"csrf": token}).status_code == 403
        with study.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.answers)) == 0
        assert bob.get("/task/1")


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
     {"sec-fetch-site": "same-site"}, {"origin": "http://testserver.evil.example"}],
)  # fmt: skip
def test_forms_of_other_sites_are_refused_though_the_token_fits(study, headers):
    with visiting(study, "bob", "ada") as (bob, ada):
        bob.get("/")
        bob.post("/go", status=403, headers=headers)
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "pause"}, 403, headers=headers)
        bob.client.cookies.clear()
        bob.get("/login")
        bob.post("/login", {"name": "bob", "password": PASSWORD}, 403, headers=headers)


def test_a_log_in_that_another_site_began_is_refused(study):
    with visiting(study, None) as victim:
        answer = victim.client.post("/login", data={"name": "bob", "password": PASSWORD})
        assert answer.status_code == 403  # log-in CSRF


def test_forms_of_other_kinds_are_refused(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        token = bob.csrf()
        for options, status in (
            ({"json": {"csrf": token}}, 415),
            ({"content": f"csrf={token}", "headers": {"content-type": "text/plain"}}, 415),
            ({"files": {"csrf": ("x", token)}}, 415),
            ({"data": {f"f{i}": "x" for i in range(50)} | {"csrf": token}}, 400),
            ({"content": b"csrf=%ff%fe",
              "headers": {"content-type": "application/x-www-form-urlencoded"}}, 400),
            ({"content": b"csrf=\xff",
              "headers": {"content-type": "application/x-www-form-urlencoded"}}, 400),
        ):  # fmt: skip
            assert bob.client.post("/go", **options).status_code == status


def test_a_time_or_place_that_was_made_up_counts_for_nothing(study):
    with visiting(study, "bob", "eve") as (bob, eve):
        for one in (bob, eve):
            one.get("/")
            one.post("/go")
        bob.get("/task/1")
        opened = bob.hidden("opened")
        eve.get("/task/1")
        for value in (opened, opened[:-1], "x", ""):  # another's, forged, none
            eve.post("/task/1", said(key=f"k{value[-5:]}", opened=value, spent="1",
                                     comment=value[-5:]))  # fmt: skip
        with study.read() as connection:
            assert set(connection.scalars(sa.select(tables.answers.c.seconds))) == {None}


# ---- Sessions


def test_a_session_that_an_attacker_chose_is_not_taken(study):
    with visiting(study, None) as victim:
        victim.client.cookies.set("annotate_session", "chosen-by-an-attacker")
        victim.log_in("bob")
        token = victim.client.cookies.get("annotate_session", domain="testserver.local")
        values = [c.value for c in victim.client.cookies.jar if c.name == "annotate_session"]
        assert "chosen-by-an-attacker" not in values[-1:] and len(values[-1]) > 40, token
        victim.client.cookies.clear()
        victim.client.cookies.set("annotate_session", "chosen-by-an-attacker")
        assert victim.get("/", 303).headers["location"] == "/login"


def test_logging_in_again_and_out_ends_the_session(study):
    with visiting(study, "bob") as bob:

        def value():
            return next(c.value for c in bob.client.cookies.jar if c.name == "annotate_session")

        first = value()
        bob.get("/")
        bob.post("/logout")
        assert accounts.find_session(study, first) is None
        bob.log_in("bob")
        assert value() != first


def test_cookies(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/logout")
        bob.get("/login")
        cookie = bob.post("/login", {"name": "bob", "password": PASSWORD}).headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "Path=/" in cookie
    with visiting(study, "bob", secure=True) as bob:
        bob.get("/")
        bob.post("/logout")
        answer = bob.get("/login")
        assert "max-age" in answer.headers["strict-transport-security"]
        cookies = bob.post("/login", {"name": "bob", "password": PASSWORD}).headers.get_list(
            "set-cookie"
        )
        session = next(one for one in cookies if "annotate_session" in one)
        assert session.startswith("__Host-annotate_session=") and "Secure" in session
        assert "domain" not in session.lower()


# ---- Brute force


def test_passwords_are_not_guessed_many_at_a_time(study):
    with visiting(study, None) as thief:
        thief.get("/login")
        for _ in range(10):
            thief.post("/login", {"name": "bob", "password": "guess"}, 401)
        thief.post("/login", {"name": "bob", "password": "guess"}, 429)
        thief.post("/login", {"name": "BOB ", "password": PASSWORD}, 429)  # nor the right one
        thief.post("/login", {"name": "eve", "password": PASSWORD})  # others are not shut out


def test_nor_many_names_from_one_address(study):
    with visiting(study, None) as thief:
        thief.get("/login")
        statuses = [
            thief.client.post("/login", data={"csrf": thief.csrf(), "name": f"n{i}",
                                              "password": "guess"}).status_code
            for i in range(45)
        ]  # fmt: skip
        assert statuses == [401] * 40 + [429] * 5
        statuses = [thief.client.get(f"/join/guess{i}").status_code for i in range(45)]
        assert statuses == [404] * 40 + [429] * 5


def test_an_unknown_name_is_answered_like_a_known_one(study, monkeypatch):
    verified = []

    class Counting:
        hash = staticmethod(studies.QUICK.hash)

        @staticmethod
        def verify(hashed, password):
            verified.append(hashed)
            return studies.QUICK.verify(hashed, password)

    monkeypatch.setattr(accounts, "HASHER", Counting)
    with visiting(study, None) as thief:
        thief.get("/login")
        known = thief.post("/login", {"name": "bob", "password": "guess"}, 401).text
        unknown = thief.post("/login", {"name": "tom", "password": "guess"}, 401).text
    assert len(verified) == 2
    assert known.replace("bob", "tom") == unknown


# ---- What belongs to others


def test_another_annotators_answers_cannot_be_had(study):
    with visiting(study, "bob", "eve") as (bob, eve):
        bob.get("/")
        bob.post("/go")
        bob.answer(1, comment="mine alone")
        eve.get("/")
        eve.post("/go")
        for position in range(0, 12):
            answer = eve.client.get(f"/task/{position}")
            assert answer.status_code == (200 if 1 <= position <= 6 else 404)
            assert "mine alone" not in answer.text and "checked" not in answer.text
        assert "mine alone" not in eve.get("/my-answers.csv").text
        for path in ("/task/-1", "/task/1.0", "/task/0x1", "/task/%31%00", "/task/1'--",
                     "/task/99999999999999999999", "/task/2147483648"):  # fmt: skip
            assert eve.client.get(path).status_code == 404
        with study.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.answers)) == 1


ADMIN_PAGES = ["/admin", "/admin/people", "/admin/disagreements", "/admin/adjudicate/1",
               "/admin/study", "/admin/export/jsonl", "/admin/export/csv?settled=1",
               "/admin/export/xlsx"]  # fmt: skip
ADMIN_FORMS = ["/admin/invite", "/admin/people/x", "/admin/adjudicate/1", "/admin/study"]


def test_administrators_pages_are_not_there_for_annotators(study):
    with visiting(study, "bob", None) as (bob, nobody):
        bob.get("/")
        for path in ADMIN_PAGES:
            answer = bob.get(path, 404)
            assert "There is no such page" in answer.text
            assert nobody.get(path, 303).headers["location"] == "/login"
        for path in ADMIN_FORMS:
            bob.post(path, {"what": "close", "sure": "yes", "name": "x", "role": "admin",
                            "days": "1"}, 404)  # fmt: skip
        assert study.study().state == "open"
        with study.read() as connection:
            rows = sa.select(sa.func.count()).select_from(tables.invitations)
            assert connection.scalar(rows) == 0


@pytest.mark.parametrize(
    "text",
    ["' OR '1'='1", "bob'--", "bob'; DROP TABLE users; --", '" OR ""="', "bob\x00", "%", "_ob"],
)
def test_sql_in_names_and_tokens_is_text(study, text):
    with visiting(study, None) as thief:
        thief.get("/login")
        thief.post("/login", {"name": text, "password": text}, 401)
        thief.client.cookies.set("annotate_session", text.replace('"', "").replace("\x00", ""))
        assert thief.client.get("/").headers["location"] == "/login"
    with study.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.users)) == 3
    assert accounts.find_session(study, text) is None
    with study.read() as connection:
        assert accounts.find_invitation(connection, text) is None
