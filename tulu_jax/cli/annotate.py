"""`tulu annotate`: the human evaluation of two models' answers, as a web application."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from tulu_jax.cli.flags import new_command, number, path_argument, path_text, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import between

DATABASE = "TULU_ANNOTATE_DB"
FORMATS = ("jsonl", "csv", "xlsx")

DESCRIPTION = """\
The paper's human evaluation: people see two completions of one prompt, without the models' names
and in an order of each one's own, and say which are acceptable and which they prefer.

  tulu annotate make      a study from what two models answered, or from instances
  tulu annotate user      invitations and accounts
  tulu annotate serve     the web application
  tulu annotate report    acceptance, wins and agreement, from a study or a sheet
  tulu annotate export    the answers as JSON lines, CSV or xlsx
  tulu annotate import    a sheet's answers into a study

A study lies in one file, or in PostgreSQL (--db postgresql://USER@HOST/NAME).
More: docs/human_evaluation.md
"""

EPILOG = """\
examples:
  tulu annotate make --db study.db --predictions results/base/alpaca results/tuned/alpaca
  tulu annotate user invite ada --admin --db study.db
  tulu annotate serve --db study.db
  tulu annotate report study.db --html report.html
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu annotate` with its own commands to the command line."""
    parser = new_command(
        subparsers, "annotate", run, help="human evaluation in the browser, and its figures",
        description=DESCRIPTION, epilog=EPILOG,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    _add_make(actions.add_parser("make", help="make a study"))
    _add_serve(actions.add_parser("serve", help="serve a study to browsers"))
    _add_user(actions.add_parser("user", help="invite people, shut accounts"))
    _add_report(actions.add_parser("report", help="acceptance, wins, agreement"))
    _add_export(actions.add_parser("export", help="write the answers to a file"))
    _add_import(actions.add_parser("import", help="take a sheet's answers into a study"))


def database_text(text: str) -> str:
    """The address of a database, or the path of its file; for `add_argument(type=...)`."""
    return text if "://" in text else path_text(text)


def _add_db(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db", type=database_text, metavar="DB", default=os.environ.get(DATABASE, "annotate.db"),
        help="the study: a file, or postgresql://USER@HOST/NAME (its password from ~/.pgpass or "
        f"PGPASSWORD); default {DATABASE} of the environment, else annotate.db",
    )  # fmt: skip


def _add_make(parser: argparse.ArgumentParser) -> None:
    _add_db(parser)
    parser.add_argument(
        "--if_absent", action="store_true", help="do nothing where there is a study already"
    )
    parser.add_argument(
        "--instances", type=path_argument, metavar="FILE",
        help="JSON lines: {id, prompt, completions: [{model, completion}, {model, completion}]}",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", nargs=2, type=path_argument, action="append", default=[],
        metavar=("A", "B"),
        help="what two models answered: result folders of tulu eval, or files of tulu generate, "
        "eval.predict or AlpacaEval (repeatable, a pair each)",
    )  # fmt: skip
    parser.add_argument(
        "--names", nargs=2, action="append", default=[], metavar=("A", "B"),
        help="names of the models of each --predictions (default: as the files say)",
    )  # fmt: skip
    parser.add_argument(
        "--group", action="append", default=[], metavar="NAME",
        help="of --predictions only instances of this group, such as AlpacaEval's selfinstruct "
        "(repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--gold", type=path_argument, metavar="FILE",
        help="instances with a gold answer, mixed in for everybody to see who pays attention",
    )  # fmt: skip
    parser.add_argument("--name", default="Human evaluation", help="what pages call the study")
    parser.add_argument(
        "--annotators", type=whole(1, 1000), default=2, metavar="K",
        help="people for each instance of the overlap (default 2)",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", type=number(between(0, 1)), default=0.2, metavar="SHARE",
        help="share of the instances that K people annotate, for agreement (default 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=whole(1, 10_000), default=20, metavar="N",
        help="instances that an annotator is given at once (default 20)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=whole(1), metavar="N", help="draw so many instances from all"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="of draws (default 0)")
    parser.add_argument(
        "--guidelines", type=path_argument, metavar="FILE",
        help="Markdown that annotators read first",
    )  # fmt: skip


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_db(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=5001, help="default 5001; 0 takes a free one"
    )
    parser.add_argument(
        "--tls_certificate", type=path_argument, metavar="FILE", help="serve by TLS (PEM)"
    )
    parser.add_argument("--tls_key", type=path_argument, metavar="FILE", help="its key (PEM)")
    parser.add_argument(
        "--behind_proxy", action="store_true",
        help="a proxy with TLS stands before: cookies go by TLS only, addresses come from it",
    )  # fmt: skip
    parser.add_argument(
        "--proxy", default="127.0.0.1", metavar="ADDRESS",
        help="address of that proxy, whose X-Forwarded-For is believed (default 127.0.0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--origin", default="", metavar="URL",
        help="how people reach it, for invitations: https://lab.example",
    )  # fmt: skip


def _add_user(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", metavar="COMMAND", required=True)
    texts = {
        "invite": "print an address that makes an account, once",
        "password": "print an address that sets somebody's password, once",
        "shut": "let somebody log in no more, and give open instances to others",
        "open": "let somebody log in again",
        "list": "list accounts",
    }
    for name, text in texts.items():
        one = actions.add_parser(name, help=text)
        _add_db(one)
        if name != "list":
            one.add_argument("name", metavar="NAME")
        if name == "invite":
            one.add_argument("--admin", action="store_true", help="as an administrator")
        if name in ("invite", "password"):
            one.add_argument(
                "--days", type=number(between(0.001, 90)), default=7.0, metavar="X",
                help="how long it is good (default 7)",
            )  # fmt: skip
            one.add_argument(
                "--origin", default="http://127.0.0.1:5001", metavar="URL",
                help="how the server is reached (default http://127.0.0.1:5001)",
            )  # fmt: skip


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=database_text, metavar="SOURCE",
        help="a study's database, or a sheet (.xlsx, .csv, .jsonl) in the reference's columns",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--html", type=path_argument, metavar="FILE", help="write a page with the chart"
    )
    parser.add_argument(
        "--settled", action="store_true",
        help="count adjudicators' decisions in place of the first annotator (of a study)",
    )  # fmt: skip


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_db(parser)
    parser.add_argument("--output", type=path_argument, required=True, metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, help="default: what the file's name ends with")
    parser.add_argument(
        "--settled", action="store_true",
        help="one answer an instance: an adjudicator's, else the first annotator's",
    )  # fmt: skip


def _add_import(parser: argparse.ArgumentParser) -> None:
    _add_db(parser)
    parser.add_argument("sheet", type=path_argument, metavar="SHEET", help=".xlsx, .csv or .jsonl")


def run(args: argparse.Namespace) -> int:
    """Runs the part of `tulu annotate` that the first word names."""
    try:
        from tulu_jax.cli import annotate_run, annotate_serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("tulu_jax", "eval"):
            raise
        raise ConfigError(
            "packages of human evaluation are missing",
            got=f"no {error.name}",
            do="pip install 'tulu-jax[annotate]'",
        ) from error
    parts: dict[str, Callable[[argparse.Namespace], int]] = {
        "make": annotate_run.make,
        "serve": annotate_serve.serve,
        "user": annotate_run.user,
        "report": annotate_run.report,
        "export": annotate_run.export,
        "import": annotate_run.import_sheet,
    }
    return parts[args.action](args)
