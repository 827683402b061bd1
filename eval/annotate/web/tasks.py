"""The annotator's pages: a list, an instance, and one's own answers. None names a model.

All that a page, its address, its cookies and its size depend on is in `store.answers.Task`: the
texts in the order in which they are shown.
"""

from __future__ import annotations

import io
import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from eval.annotate.records import PREFERENCES, QUALITIES
from eval.annotate.sheet import write_rows
from eval.annotate.store import answers
from eval.annotate.store.accounts import User
from eval.annotate.store.answers import Answer, NotOpenError, Task
from eval.annotate.store.database import CLOSED, Study
from eval.annotate.web.context import (
    PageError,
    go,
    need_annotator,
    need_user,
    number,
    read_form,
    show,
    site,
    wants_json,
)
from eval.annotate.web.keys import keys_of
from tulu_jax.errors import DataError

WORDS = ("A is better", "A is slightly better", "Tie", "B is slightly better", "B is better")


def home(request: Request) -> Response:
    """The annotator's list, and where to go on."""
    if need_user(request).is_admin:
        return go("/admin")
    user = need_annotator(request)
    database = site(request).database
    places = answers.read_places(database, user.id)
    study = database.study()
    return show(
        request, "home.html", user=user, study=study, places=places,
        done=sum(one.answered is not None for one in places),
        finished="done" in request.query_params,
    )  # fmt: skip


def go_on(request: Request) -> Response:
    """Leads to what comes next; that may draw new instances, so it is a form."""
    user = need_annotator(request)
    read_form(request)
    return go(_address(answers.next_position(site(request).database, user.id)))


def _address(position: int | None) -> str:
    return "/?done=1" if position is None else f"/task/{position}"


def task(request: Request) -> Response:
    """An instance to annotate, or to look at again; and the answer that is sent."""
    user = need_annotator(request)
    position = number(request, "position")
    try:
        if request.method == "POST":
            return _take_answer(request, user, position)
        found, study = answers.read_task(site(request).database, user.id, position)
        return _task_page(request, user, found, study)
    except LookupError:
        raise PageError(404, "There is no such page.") from None


def _task_page(
    request: Request, user: User, found: Task, study: Study, status: int = 200, wrong: str = ""
) -> Response:
    here = site(request)
    done, total = answers.count_places(here.database, user.id)
    given = found.answer
    chosen = {
        "acceptable_a": given and ("yes" if given.acceptable[0] else "no"),
        "acceptable_b": given and ("yes" if given.acceptable[1] else "no"),
        "preference": given and given.preference,
        "quality": given and given.quality,
    }
    return show(
        request, "task.html", status, user=user, study=study, task=found, wrong=wrong, done=done,
        total=total, keys=keys_of(user), auto=user.settings.get("auto", False), chosen=chosen,
        comment=given.comment if given else "", key=secrets.token_urlsafe(16),
        opened=here.sign_time(user.handle, found.position), longest=answers.COMMENT,
        preferences=list(zip(PREFERENCES, WORDS, strict=True)), qualities=QUALITIES,
        last=found.position >= total,
    )  # fmt: skip


def _take_answer(request: Request, user: User, position: int) -> Response:
    form = read_form(request)
    here = site(request)
    try:
        answer = answers.read_answer(form)
        follows = answers.submit(here.database, user.id, position, form.get("key", ""), answer,
                                 _seconds(request, user, position, form))  # fmt: skip
    except DataError as error:
        if wants_json(request):
            return JSONResponse({"wrong": str(error)}, 422)
        found, study = answers.read_task(here.database, user.id, position)
        return _task_page(request, user, found, study, 422, str(error))
    except NotOpenError as error:
        words = f"The study is {error}: it takes no answers now."
        if wants_json(request):
            return JSONResponse({"wait": words}, 409)
        raise PageError(409, words) from None
    if wants_json(request):
        return JSONResponse({"saved": True, "next": _address(follows)})
    return go(_address(follows))


def _seconds(request: Request, user: User, position: int, form: dict[str, str]) -> float | None:
    """How long the answer took: what the browser counted, but no more than since it was opened."""
    passed = site(request).seconds_since(form.get("opened", ""), user.handle, position)
    try:
        counted = float(form.get("spent", ""))
    except ValueError:
        return passed
    if passed is None or not counted >= 0:
        return passed
    return min(counted, passed)


def later(request: Request) -> Response:
    """Leaves an instance for later."""
    user = need_annotator(request)
    read_form(request)
    try:
        follows = answers.put_off(site(request).database, user.id, number(request, "position"))
    except LookupError:
        raise PageError(404, "There is no such page.") from None
    return go(_address(follows))


def own_answers(request: Request) -> Response:
    """The annotator's own answers as CSV: with models' names once the study is closed."""
    user = need_annotator(request)
    database = site(request).database
    closed = database.study().state == CLOSED
    rows = []
    for place in answers.read_places(database, user.id):
        if place.answered is None:
            continue
        found, _ = answers.read_task(database, user.id, place.position)
        assert found.answer is not None
        row = {"position": place.position, "prompt": found.prompt, **_said(found.answer)}
        if closed:
            names = answers.models_of(database, user.id, place.position)
            row.update(model_a=names[0], model_b=names[1])
        rows.append(row)
    stream = io.BytesIO()
    write_rows(rows, "csv", stream)
    return Response(
        stream.getvalue(), media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="my-answers.csv"'},
    )  # fmt: skip


def _said(answer: Answer) -> dict[str, str]:
    a, b = ("yes" if one else "no" for one in answer.acceptable)
    return {"completion_a_is_acceptable": a, "completion_b_is_acceptable": b,
            "preference": answer.preference, "instance_quality": answer.quality,
            "comment": answer.comment}  # fmt: skip
