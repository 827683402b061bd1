"""The administrator's pages: how the study stands, people, disagreements, the study itself."""

from __future__ import annotations

import io
import json
import math
import threading
from dataclasses import asdict, replace

import sqlalchemy as sa
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from eval.annotate.chart import win_chart
from eval.annotate.dashboard import Dashboard, read_dashboard, read_stamp
from eval.annotate.figures import latest
from eval.annotate.instances import fit
from eval.annotate.records import PREFERENCES
from eval.annotate.sheet import FORMATS, row_of, write_rows
from eval.annotate.store import accounts, answers, assign, tables
from eval.annotate.store.accounts import ROLES, User
from eval.annotate.store.annotations import (
    adjudicate,
    disagreements,
    read_annotations,
    settled,
)
from eval.annotate.store.database import CLOSED, OPEN, PAUSED, Settings
from eval.annotate.web.context import PageError, Site, go, need_admin, read_form, show, site
from eval.annotate.web.context import number as row_number
from eval.annotate.web.tasks import WORDS
from tulu_jax.errors import TuluError

TYPES = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
MOST_DAYS = 90
STATES = {"pause": PAUSED, "open": OPEN, "close": CLOSED}


class _Kept:
    """The last figures, as long as no answer comes: the bootstrap takes a while."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.found: Dashboard | None = None


def _board(here: Site) -> Dashboard:
    """How the study stands; made anew where answers or people came."""
    kept: _Kept = here.kept.setdefault("dashboard", _Kept())
    with kept.lock:
        if kept.found is None or kept.found.stamp != read_stamp(here.database):
            kept.found = read_dashboard(here.database)
        return kept.found


def dashboard(request: Request) -> Response:
    """How the study stands."""
    user = need_admin(request)
    found = _board(site(request))
    return show(
        request, "dashboard.html", user=user, study=site(request).database.study(), board=found,
        chart=Markup(win_chart(found.figures.pairs)),
    )  # fmt: skip


def people(request: Request) -> Response:
    """Accounts and invitations."""
    user = need_admin(request)
    return _people_page(request, user)


def _people_page(
    request: Request,
    user: User,
    status: int = 200,
    *,
    wrong: str = "",
    link: str = "",
    said: str = "",
) -> Response:
    with site(request).database.read() as connection:
        rows = connection.execute(sa.select(tables.users).order_by(tables.users.c.folded)).all()
        waiting = connection.execute(
            sa.select(tables.invitations)
            .where(tables.invitations.c.used.is_(None))
            .order_by(tables.invitations.c.created.desc())
        ).all()
    return show(
        request, "people.html", status, user=user, people=rows, invitations=waiting, wrong=wrong,
        link=link, said=said, roles=ROLES, days=accounts.INVITATION_DAYS,
    )  # fmt: skip


def invite(request: Request) -> Response:
    """Makes an invitation, whose address is shown once."""
    user = need_admin(request)
    form = read_form(request)
    role = form.get("role", "")
    try:
        days = float(form.get("days", ""))
    except ValueError:
        days = math.nan
    if not 0 < days <= MOST_DAYS:
        return _people_page(request, user, 400, wrong="The number of days is no number up to 90.")
    if role not in ROLES:
        return _people_page(request, user, 400, wrong="There is no such role.")
    try:
        with site(request).database.write() as connection:
            sent = accounts.invite(connection, form.get("name", ""), role, days=days)
            accounts.note(connection, user, f"invited {form.get('name', '')!r} as {role}")
    except TuluError as error:
        return _people_page(request, user, 400, wrong=str(error))
    return _people_page(request, user, link=_join_link(request, sent))


def _join_link(request: Request, sent: str) -> str:
    origin = site(request).origin or str(request.base_url).rstrip("/")
    return f"{origin}/join/{sent}"


def change_person(request: Request) -> Response:
    """Shuts or opens an account, takes back what is not answered, or sets a password anew."""
    user = need_admin(request)
    form = read_form(request)
    what, handle = form.get("what", ""), fit(request.path_params["handle"])
    link = said = ""
    with site(request).database.write() as connection:
        row = connection.execute(
            sa.select(tables.users).where(tables.users.c.handle == handle)
        ).one_or_none()
        if row is None:
            raise PageError(404, "There is no such account.")
        if what == "disable":
            if row.id == user.id:
                raise PageError(400, "This is your own account.")
            accounts.set_disabled(connection, row.id, True)
            assign.release(connection, row.id)
            said = f"{row.name} cannot log in any more; what was not answered is given to others."
        elif what == "enable":
            accounts.set_disabled(connection, row.id, False)
            said = f"{row.name} can log in again."
        elif what == "release":
            count = assign.release(connection, row.id)
            said = f"{count} instances of {row.name} are given to others."
        elif what == "password":
            sent = accounts.invite(connection, row.name, row.role, user=accounts.user_of(row))
            link = _join_link(request, sent)
        else:
            raise PageError(400, "There is nothing of that kind to do.")
        accounts.note(connection, user, f"{what} {row.name!r}")
    return _people_page(request, user, link=link, said=said)


def list_disagreements(request: Request) -> Response:
    """Instances on which annotators differ."""
    user = need_admin(request)
    found = disagreements(site(request).database)
    return show(request, "disagreements.html", user=user, found=found,
                open=sum(not one["done"] for one in found))  # fmt: skip


def adjudicate_one(request: Request) -> Response:
    """One such instance, blind like an annotator's, with what was said; and the decision."""
    user = need_admin(request)
    here, number = site(request), row_number(request, "instance")
    swapped = assign.adjudication_order(here.secret, user.id, number)
    if request.method == "POST":
        form = read_form(request)
        with here.database.write() as connection:
            try:
                answer = answers.read_answer(form)
            except TuluError as error:
                raise PageError(422, str(error)) from None
            if _instance(connection, number) is None:
                raise PageError(404, "There is no such instance.")
            adjudicate(connection, user.id, number, swapped, answer)
        rest = [one["instance"] for one in disagreements(here.database) if not one["done"]]
        follows = next((one for one in rest if one > number), rest[0] if rest else None)
        return go("/admin/disagreements" if follows is None else f"/admin/adjudicate/{follows}")
    with here.database.read() as connection:
        row = _instance(connection, number)
    if row is None:
        raise PageError(404, "There is no such instance.")
    texts = (row.completion_0, row.completion_1)
    return show(
        request, "adjudicate.html", user=user, prompt=row.prompt, number=number,
        completions=texts[::-1] if swapped else texts, said=_said(here, number, swapped),
        preferences=list(zip(PREFERENCES, WORDS, strict=True)), longest=answers.COMMENT,
    )  # fmt: skip


def _instance(connection: sa.Connection, number: int) -> sa.Row | None:
    return connection.execute(
        sa.select(tables.instances).where(tables.instances.c.id == number)
    ).one_or_none()


def _said(here: Site, number: int, swapped: bool) -> list[dict[str, str]]:
    """What the annotators said, turned to the order in which the adjudicator sees it."""
    with here.database.read() as connection:
        row = _instance(connection, number)
    assert row is not None
    first = row.model_1 if swapped else row.model_0
    found = []
    for one in latest(read_annotations(here.database)):
        if one.instance_index + 1 != number:
            continue
        step = 2 - one.margin(first)
        labels = [one.accepted(m) for m in (row.model_0, row.model_1)]
        a, b = labels[::-1] if swapped else labels
        found.append({"name": one.evaluator, "a": "yes" if a else "no", "b": "yes" if b else "no",
                      "preference": WORDS[step], "comment": one.comment})  # fmt: skip
    return found


def study(request: Request) -> Response:
    """Pauses, opens or closes the study, and changes its guidelines."""
    user = need_admin(request)
    here = site(request)
    if request.method == "GET":
        with here.database.read() as connection:
            events = connection.execute(
                sa.select(tables.events.c.created, tables.events.c.what, tables.users.c.name)
                .outerjoin(tables.users, tables.events.c.user_id == tables.users.c.id)
                .order_by(tables.events.c.id.desc()).limit(50)
            ).all()  # fmt: skip
        return show(request, "study.html", user=user, events=events, formats=FORMATS)
    form = read_form(request)
    what = form.get("what", "")
    with here.database.write() as connection:
        now = here.database.study(connection, lock=True)
        if what in STATES:
            if now.state == CLOSED:
                raise PageError(409, "The study is closed: its models are no secret any more.")
            if what == "close" and form.get("sure") != "yes":
                raise PageError(400, "Please tick that you are sure: a study is closed for good.")
            values = {"state": STATES[what]}
        elif what == "guidelines":
            values = {"settings": _with_guidelines(now.settings, form.get("guidelines", ""))}
        else:
            raise PageError(400, "There is nothing of that kind to do.")
        connection.execute(tables.study.update().values(values))
        accounts.note(connection, user, what)
    return go("/admin/study")


def _with_guidelines(settings: Settings, guidelines: str) -> str:
    return json.dumps(asdict(replace(settings, guidelines=fit(guidelines)[:20_000])))


def export(request: Request) -> Response:
    """The annotations as a file."""
    need_admin(request)
    name = request.path_params["format"]
    if name not in FORMATS:
        raise PageError(404, "There is no such page.")
    database = site(request).database
    chosen = "settled" in request.query_params
    found = settled(database) if chosen else read_annotations(database)
    stream = io.BytesIO()
    write_rows([row_of(one) for one in found], name, stream)
    file = f"annotations{'-settled' if chosen else ''}.{name}"
    return Response(
        stream.getvalue(), media_type=TYPES[name],
        headers={"content-disposition": f'attachment; filename="{file}"'},
    )  # fmt: skip
