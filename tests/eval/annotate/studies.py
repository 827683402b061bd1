"""Small studies, and somebody who uses their pages without a browser."""

import re
from contextlib import contextmanager

from argon2 import PasswordHasher
from starlette.testclient import TestClient

from eval.annotate.records import Instance
from eval.annotate.store import accounts
from eval.annotate.store.annotations import instance_rows
from eval.annotate.store.assign import plan_places
from eval.annotate.store.database import Settings, make_database
from eval.annotate.web.app import make_app

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse 7"
MODELS = ("zebra-model", "yak-model")


def instances(count=6, models=MODELS, start=0):
    return [
        Instance(f"task_{i}", f"Prompt {i}?", models, (f"left {i}", f"right {i}"))
        for i in range(start, start + count)
    ]


def make(where, found=None, *, annotators=2, overlap=1.0, batch=20, guidelines="", seed=0):
    """A study of these instances, that any number of people may annotate."""
    found = instances() if found is None else found
    places = plan_places(found, annotators=annotators, overlap=overlap, seed=seed)
    settings = Settings(batch=batch, guidelines=guidelines)
    return make_database(str(where), "A study", settings, instance_rows(found, places))


def add_user(database, name, role=accounts.ANNOTATOR, password=PASSWORD):
    with database.write() as connection:
        return accounts.add_user(connection, name, role, password)


def said(**changed):
    """The fields of an answer's form."""
    return {"acceptable_a": "yes", "acceptable_b": "no", "preference": "a-is-better", **changed}


class Visitor:
    """Sends forms as the pages that were last read have them."""

    def __init__(self, client):
        self.client = client
        self.page = None

    def get(self, path, status=200, **options):
        self.page = self.client.get(path, **options)
        assert self.page.status_code == status, self.page.text
        return self.page

    def post(self, path, data=None, status=303, **options):
        data = {"csrf": self.csrf(), **(data or {})}
        answer = self.client.post(path, data=data, **options)
        assert answer.status_code == status, answer.text
        return answer

    def csrf(self):
        found = re.search(r'<meta name="csrf" content="([0-9a-f]*)">', self.page.text)
        return found[1]

    def hidden(self, name):
        return re.search(rf'name="{name}" value="([^"]*)"', self.page.text)[1]

    def log_in(self, name, password=PASSWORD, status=303):
        self.get("/login")
        return self.post("/login", {"name": name, "password": password}, status)

    def answer(self, position, status=303, **changed):
        self.get(f"/task/{position}")
        return self.send(position, status, **changed)

    def send(self, position, status=303, **changed):
        form = said(key=self.hidden("key"), opened=self.hidden("opened"), **changed)
        return self.post(f"/task/{position}", form, status)

    def annotate(self, choose=lambda page: {}):
        """Goes on until there is nothing to do; how many instances that were."""
        self.get("/")
        count, to = 0, self.post("/go").headers["location"]
        while to.startswith("/task/"):
            position = int(to.split("/")[-1])
            self.get(to)
            to = self.send(position, **choose(self.page.text)).headers["location"]
            count += 1
        return count


@contextmanager
def visiting(database, *names, secure=False, **options):
    """Visitors of a study's site, each logged in under its name; None logs nobody in."""
    app = make_app(database, secure=secure, **options)
    base = "https://testserver" if secure else "http://testserver"
    options = {"base_url": base, "follow_redirects": False, "raise_server_exceptions": False}
    found = [Visitor(TestClient(app, **options)) for _ in names]
    for visitor, name in zip(found, names, strict=True):
        if name is not None:
            visitor.log_in(name)
    yield found[0] if len(found) == 1 else found
    for visitor in found:
        visitor.client.close()
