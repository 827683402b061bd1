"""The whole study in a real browser: by keyboard, with a lost connection and a server that ends."""

import dataclasses
import threading

import pytest
import sqlalchemy as sa

from eval.annotate.records import Instance
from eval.annotate.store import accounts, tables
from eval.annotate.store.annotations import disagreements, read_annotations, settled
from eval.annotate.web.app import make_app
from tests.eval.annotate import studies
from tests.in_browser import find, in_browser, open_browser, press, texts, wait
from tulu_jax.serve import listen

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = in_browser
COUNT, OVERLAP = 20, 10
ARABIC = "اكتب قصيدة قصيرة عن البحر.\n\n- أولاً\n- ثانياً\n\n`x = 1`"
CHINESE = "请写一首关于大海的短诗。\n\n1. 第一\n2. 第二"
LONG = "\n\n".join(f"Paragraph {i}: " + "word " * 60 for i in range(30))


class Running:
    """A study's server in this process, which can end and start again at its port."""

    def __init__(self, database):
        self.database, self.port, self.thread = database, 0, None

    def start(self):
        ready = threading.Event()
        self.bound = listen.bind("127.0.0.1", self.port)
        self.port = self.bound.getsockname()[1]
        self.server = listen.Server(
            make_app(self.database), drain_seconds=1, on_ready=ready.set, lifespan="off"
        )
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.bound]}, daemon=True
        )
        self.thread.start()
        assert ready.wait(120)

    def stop(self):
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(120)
        self.bound.close()
        assert not self.thread.is_alive()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from open_browser(tmp_path_factory.mktemp("profile"))


def make_study(path):
    found = [
        Instance(f"t{i}", f"Prompt **{i}**?", studies.MODELS, (f"left {i}", f"right {i}"))
        for i in range(COUNT)
    ]
    found[3] = dataclasses.replace(found[3], prompt=ARABIC, completions=("left " + ARABIC, "right"))
    found[4] = dataclasses.replace(found[4], completions=("left " + LONG, "right " + CHINESE))
    return studies.make(path, found, guidelines="# Be fair\n\nRead *both*.")


def serve(database, browser):
    running = Running(database)
    running.start()
    yield running
    browser.get("about:blank")
    running.stop()
    database.close()
    assert [one for one in browser.get_log("browser") if "ERR_" not in one["message"]
            and "status of 4" not in one["message"]] == []  # fmt: skip


@pytest.fixture
def running(tmp_path, browser):
    yield from serve(make_study(tmp_path / "s.db"), browser)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory, browser):
    """A study that bob and eve have annotated, for tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "HASHER", studies.QUICK)
        database = make_study(tmp_path_factory.mktemp("study") / "s.db")
        studies.add_user(database, "ada", accounts.ADMIN)
        for name, side in (("bob", "b"), ("eve", "a")):
            studies.add_user(database, name)
            with studies.visiting(database, name) as one:
                one.annotate(lambda _, side=side: {"preference": f"{side}-is-better"})
    yield from serve(database, browser)


def join(browser, running, token):
    browser.delete_all_cookies()
    browser.get(running.url(f"/join/{token}"))
    for field in ("password", "again"):
        browser.find_element(By.ID, field).send_keys(studies.PASSWORD)
    press(browser, Keys.ENTER)
    wait(browser, lambda: "/join/" not in browser.current_url)


def log_in(browser, running, name):
    browser.delete_all_cookies()
    browser.get(running.url("/login"))
    browser.find_element(By.ID, "name").send_keys(name)
    browser.find_element(By.ID, "password").send_keys(studies.PASSWORD + Keys.ENTER)
    wait(browser, lambda: "/login" not in browser.current_url)


def invite(browser, running, name):
    browser.get(running.url("/admin/people"))
    browser.find_element(By.NAME, "name").send_keys(name + Keys.ENTER)
    wait(browser, lambda: find(browser, "#link"))
    (link,) = texts(browser, "#link")
    return link.split("/join/")[1]


def at(browser, position):
    """Waits until the instance is shown."""
    wait(browser, lambda: browser.current_url.endswith(f"/task/{position}")
         and browser.execute_script("return document.readyState === 'complete'"))  # fmt: skip


def checked(browser):
    script = (
        "return [...document.querySelectorAll('input:checked')].map((e) => e.name + '=' + e.value)"
    )
    return browser.execute_script(script)


def count_answers(database):
    with database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(tables.answers))


def offline(browser, on):
    browser.set_network_conditions(offline=on, latency=0, throughput=10_000_000)


def one_study(browser, running):
    """Administrator and two invitations; the tokens."""
    with running.database.write() as connection:
        token = accounts.invite(connection, "ada", accounts.ADMIN)
    join(browser, running, token)
    assert texts(browser, "h1") == ["Dashboard"]
    return [invite(browser, running, name) for name in ("bob", "eve")]


def test_a_study_from_invitations_to_the_report(browser, running, tmp_path, capsys):
    database = running.database
    bob, eve = one_study(browser, running)
    join(browser, running, bob)
    assert texts(browser, "h2") == ["Guidelines"]
    press(browser, Keys.ENTER)  # begins
    for position in range(1, COUNT + 1):
        at(browser, position)
        if position == 5:  # a reload within an answer keeps it
            press(browser, "q4c")
            press(browser, "not *sure*")
            press(browser, Keys.ESCAPE)
            browser.refresh()
            at(browser, position)
            assert checked(browser) == ["acceptable_a=yes", "preference=b-is-slightly-better"]
            assert browser.find_element(By.ID, "comment").get_attribute("value") == "not *sure*"
            press(browser, "p" + Keys.ENTER)
        elif position == 9:  # a lost connection
            offline(browser, True)
            press(browser, "qo3" + Keys.ENTER)
            wait(browser, lambda: "kept in this browser" in "".join(texts(browser, "#status")))
            assert count_answers(database) == 8
            offline(browser, False)
            browser.execute_script("dispatchEvent(new Event('online'))")
        elif position == 14:  # the server ends, and is started again
            running.stop()
            press(browser, "wp1" + Keys.ENTER)
            wait(browser, lambda: "kept in this browser" in "".join(texts(browser, "#status")))
            running.start()
        else:
            press(browser, "qp" + str(position % 5 + 1) + Keys.ENTER)
    wait(browser, lambda: "done=1" in browser.current_url)
    assert "20 of 20 answered" in texts(browser, ".progress span")[0]
    assert count_answers(database) == COUNT
    fifth = read_annotations(database)[4]
    assert (fifth.preference, fifth.comment) == ("b-is-slightly-better", "not *sure*")
    browser.get(running.url("/task/2"))  # going back changes an answer, by a new row
    press(browser, "o" + Keys.ENTER)
    wait(browser, lambda: count_answers(database) == COUNT + 1)

    join(browser, running, eve)
    browser.get(running.url("/settings"))
    find(browser, "[name=auto]")[0].click()
    press(browser, Keys.ENTER)
    wait(browser, lambda: texts(browser, ".good") == ["Saved."])
    browser.get(running.url("/"))
    press(browser, Keys.ENTER)
    for position in range(1, OVERLAP + 1):  # goes on by itself
        at(browser, position)
        press(browser, "qo5")
    at(browser, OVERLAP + 1)

    log_in(browser, running, "ada")
    assert "30 of 40 annotations of 20 instances" in texts(browser, ".progress span")[0]
    assert find(browser, "svg.wins")
    browser.get(running.url("/admin/disagreements"))
    assert len(find(browser, ".places a")) == len(disagreements(database)) > 1
    find(browser, ".places a")[0].click()
    assert "bob" in texts(browser, "tbody th")
    for selector in ("[name=acceptable_a][value=yes]", "[name=acceptable_b][value=no]",
                     "[name=preference][value=tie]"):  # fmt: skip
        find(browser, selector)[0].click()
    find(browser, "main form button")[0].click()
    wait(browser, lambda: [one for one in settled(database) if "adjudicated" in one.evaluator])
    assert len(settled(database)) == COUNT
    assert [one.preference for one in settled(database) if "adjudicated" in one.evaluator] == [
        "tie"
    ]
    from tulu_jax.cli.main import main

    sheet = tmp_path / "sheet.xlsx"
    assert main(["annotate", "export", "--db", str(tmp_path / "s.db"), "--output", str(sheet)]) == 0
    capsys.readouterr()
    assert main(["annotate", "report", str(sheet)]) == 0
    assert "yak-model against zebra-model: 20 instances" in capsys.readouterr().out


@pytest.fixture
def bob(browser, running):
    studies.add_user(running.database, "bob")
    log_in(browser, running, "bob")
    press(browser, Keys.ENTER)
    at(browser, 1)
    return browser


def test_an_answer_waits_for_the_next_log_in(bob, running):
    with running.database.write() as connection:
        connection.execute(tables.sessions.delete())
    press(bob, "qp2" + Keys.ENTER)
    wait(bob, lambda: "Log in again" in "".join(texts(bob, "#status")))
    log_in(bob, running, "bob")
    wait(bob, lambda: count_answers(running.database) == 1)


def test_a_study_that_is_paused_keeps_the_answer_waiting(bob, running):
    def state(name):
        with running.database.write() as connection:
            connection.execute(tables.study.update().values(state=name))

    state("paused")
    press(bob, "qp2" + Keys.ENTER)
    wait(bob, lambda: "The study is paused" in "".join(texts(bob, "#status")))
    state("open")
    at(bob, 2)
    assert count_answers(running.database) == 1


def test_what_is_missing_is_asked_for(bob, running):
    press(bob, "q1" + Keys.ENTER)
    assert bob.switch_to.active_element.get_attribute("name") == "acceptable_b"
    assert count_answers(running.database) == 0 and bob.current_url.endswith("/task/1")


def test_keys_move_about_and_write_nothing_in_comments(bob, running):
    press(bob, "c")
    press(bob, "qp1 z,.")
    assert bob.find_element(By.ID, "comment").get_attribute("value") == "qp1 z,."
    assert checked(bob) == []
    press(bob, Keys.ESCAPE + ".")
    at(bob, 2)
    press(bob, ",")
    at(bob, 1)
    assert bob.find_element(By.ID, "comment").get_attribute("value") == "qp1 z,."  # the draft
    press(bob, "l")
    at(bob, 2)
    press(bob, "z")
    wait(bob, lambda: texts(bob, "h1")[:1] == ["My list"])
    assert texts(bob, ".tag.later") == ["later"]


def position_of(database, text):
    with database.read() as connection:
        return connection.scalar(
            sa.select(tables.assignments.c.position)
            .join(tables.instances, tables.instances.c.id == tables.assignments.c.instance_id)
            .where(tables.instances.c.completion_0.startswith(text))
        )


def test_both_completions_scroll_together(browser, annotated):
    bob = browser
    log_in(bob, annotated, "bob")
    bob.get(annotated.url(f"/task/{position_of(annotated.database, 'left Paragraph')}"))
    press(bob, "m")  # as plain text
    assert find(bob, ".completion .exact") and not find(bob, ".completion .rendered")
    press(bob, "m")
    script = """
      const [place, done] = arguments;
      const [one, two] = [...document.querySelectorAll(".completion .scroll")]
        .sort((x, y) => y.scrollHeight - x.scrollHeight);
      two.firstElementChild.style.height = "3000px";
      one.scrollTop = place;
      setTimeout(() => done(two.scrollTop), 300);"""
    assert bob.execute_async_script(script, 400) == 0
    press(bob, "y")
    assert bob.execute_async_script(script, 900) > 400


def test_right_to_left_text_runs_right_to_left(browser, annotated):
    bob = browser
    log_in(bob, annotated, "bob")
    bob.get(annotated.url(f"/task/{position_of(annotated.database, 'left اكتب')}"))
    script = """
      const p = document.querySelector(".prompt .rendered p");
      const range = document.createRange(); range.selectNodeContents(p);
      const [text, box] = [range.getBoundingClientRect(), p.getBoundingClientRect()];
      return [box.right - text.right, text.left - box.left,
              getComputedStyle(document.querySelector(".prompt pre, .prompt code")).direction];"""
    right, left, _ = bob.execute_script(script)
    assert right < 2 < 100 < left


def test_a_phone_shows_all_one_below_the_other_and_scrolls_nothing_aside(browser, annotated):
    """So does a screen of 1,280 pixels at 200 %."""
    long = position_of(annotated.database, "left Paragraph")
    pages = {"bob": (f"/task/{long}", "/", "/settings", "/nothing"),
             "ada": ("/admin", "/admin/people", "/admin/disagreements", "/admin/adjudicate/1",
                     "/admin/study")}  # fmt: skip
    try:
        for name, paths in pages.items():
            log_in(browser, annotated, name)
            for path in paths:
                browser.get(annotated.url(path))
                for width, scale in ((390, 1), (640, 2)):
                    size = {"width": width, "height": 800 // scale, "deviceScaleFactor": scale,
                            "mobile": False}  # fmt: skip
                    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    aside = browser.execute_script("""
                        return [document.documentElement, ...document.querySelectorAll(".wide")]
                            .map((e) => e.scrollWidth - e.clientWidth)""")
                    assert max(aside) <= 0, (path, width)
        browser.get(annotated.url("/admin/adjudicate/1"))
        tops = browser.execute_script("""return [...document.querySelectorAll('.completion')]
            .map((e) => e.getBoundingClientRect().top)""")
        assert tops[1] > tops[0] + 20
        labels = """return [...document.querySelectorAll('.stack td[data-label]')]
            .map((e) => getComputedStyle(e, '::before').content)"""
        assert '"A acceptable"' in browser.execute_script(labels)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def serious(browser, rules=()):
    """What axe-core finds serious or worse: rules and the elements that break them."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core is not installed")
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    return [
        (one["id"], [node["html"][:80] for node in one["nodes"]])
        for one in axe.Axe().run(browser, options=options)["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def scheme(browser, name):
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_axe_finds_nothing_serious(browser, annotated):
    with annotated.database.write() as connection:
        token = accounts.invite(connection, "zoe", accounts.ANNOTATOR)
    long = position_of(annotated.database, "left Paragraph")
    pages = {None: ("/login", f"/join/{token}"),
             "bob": ("/", f"/task/{long}", "/settings", "/nothing"),
             "ada": ("/admin", "/admin/people", "/admin/disagreements", "/admin/adjudicate/1",
                     "/admin/study")}  # fmt: skip
    browser.delete_all_cookies()
    found = {}
    for name, paths in pages.items():
        if name is not None:
            log_in(browser, annotated, name)
        for path in paths:
            browser.get(annotated.url(path))
            found[path, "light"] = serious(browser)
            scheme(browser, "dark")  # changes colours and nothing else
            found[path, "dark"] = serious(browser, ["color-contrast"])
            scheme(browser, "light")
    assert len(found) == 22 and {path: bad for path, bad in found.items() if bad} == {}
