"""What the parts of `tulu annotate` do, besides serving."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tulu_jax.cli.annotate_serve import check_origin
from tulu_jax.console import one_line, plain_console, print_line, write_verbatim
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import whole_file, write_whole

if TYPE_CHECKING:
    from eval.annotate.records import Annotation, Instance


def make(args: argparse.Namespace) -> int:
    """Makes a study; the exit status."""
    from eval.annotate.instances import check_instances, read_instances, sample
    from eval.annotate.store.annotations import instance_rows
    from eval.annotate.store.assign import plan_places
    from eval.annotate.store.database import Settings, is_made, make_database

    if args.if_absent and is_made(args.db):
        write_verbatim(f"{args.db}: there is a study already")
        return 0
    found = _instances(args)
    if args.limit is not None:
        found = sample(found, args.limit, args.seed)
    if args.gold is not None:
        gold = read_instances(args.gold)
        if any(one.gold is None for one in gold):
            raise DataError("instance has no gold answer", at=args.gold,
                            expected="gold in every line")  # fmt: skip
        found = check_instances([*found, *gold], args.gold)
    places = plan_places(found, annotators=args.annotators, overlap=args.overlap, seed=args.seed)
    if not any(places):
        raise DataError("there are no instances but gold", expected="one at least to annotate")
    guidelines = _read_text(args.guidelines) if args.guidelines else ""
    settings = Settings(batch=args.batch, guidelines=guidelines)
    make_database(args.db, args.name, settings, instance_rows(found, places)).close()
    several = sum(one > 1 for one in places)
    write_verbatim(
        f"{len(found):,} instances, {several:,} of them for {args.annotators} people, "
        f"{places.count(0):,} gold: {sum(places):,} annotations are wanted\n"
        "next: tulu annotate user invite NAME --admin, then tulu annotate serve"
    )
    return 0


def _instances(args: argparse.Namespace) -> list[Instance]:
    from eval.annotate.instances import check_instances, pair_up, read_instances

    if bool(args.instances) == bool(args.predictions):
        raise ConfigError("a study is made of one thing",
                          got="both" if args.instances else "nothing",
                          expected="--instances FILE, or --predictions A B")  # fmt: skip
    if args.instances:
        for flag, value in (("--names", args.names), ("--group", args.group)):
            if value:
                raise ConfigError(f"{flag} has no effect", got="--instances, which are taken as "
                                  "they are", do="leave it out")  # fmt: skip
        return read_instances(args.instances)
    if args.names and len(args.names) != len(args.predictions):
        raise ConfigError("--names are of another number", got=len(args.names),
                          expected=f"{len(args.predictions)}, as of --predictions")  # fmt: skip
    found = []
    for place, (first, second) in enumerate(args.predictions):
        pairs, left_out = pair_up(
            first, second, args.names[place] if args.names else (), args.group
        )
        found += pairs
        if left_out:
            print_line(plain_console(stderr=True),
                       f"{left_out:,} instances were answered by one of the two only: left out",
                       "yellow")  # fmt: skip
    same = sum(one.completions[0].strip() == one.completions[1].strip() for one in found)
    if same:
        words = f"{same:,} of {len(found):,} instances have the same answer by both models"
        print_line(
            plain_console(stderr=True), f"{words}: people are asked about them too", "yellow"
        )
    return check_instances(found, "--predictions")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("guidelines cannot be read", at=path,
                          got=getattr(error, "strerror", None) or "bytes that are no UTF-8",
                          expected="a text file in UTF-8")  from error  # fmt: skip


def user(args: argparse.Namespace) -> int:
    """Invitations and accounts; the exit status."""
    from eval.annotate.store import accounts, assign
    from eval.annotate.store.database import open_database

    database = open_database(args.db)
    if args.what == "list":
        _list_users(database)
        return 0
    with database.write() as connection:
        if args.what == "invite":
            role = accounts.ADMIN if args.admin else accounts.ANNOTATOR
            token = accounts.invite(connection, args.name, role, days=args.days)
        else:
            found = accounts.find_user(connection, args.name)
            if found is None:
                raise ConfigError("there is no such account", got=repr(args.name),
                                  do="see tulu annotate user list")  # fmt: skip
            if args.what == "password":
                token = accounts.invite(connection, found.name, found.role, days=args.days,
                                        user=found)  # fmt: skip
            else:
                accounts.set_disabled(connection, found.id, args.what == "shut")
                if args.what == "shut":
                    assign.release(connection, found.id)
                token = ""
        accounts.note(connection, None, f"{args.what} {args.name!r}")
    if token:
        write_verbatim(f"{check_origin(args.origin)}/join/{token}")
    return 0


def _list_users(database: object) -> None:
    from eval.annotate.store.database import Database
    from eval.annotate.store.tables import users

    assert isinstance(database, Database)
    with database.read() as connection:
        for row in connection.execute(users.select().order_by(users.c.folded)):
            log_in = "shut" if row.disabled else "open" if row.password else "no log-in"
            write_verbatim(f"{one_line(row.name):24} {row.role:10} {log_in}")


def _annotations(source: str, settled_only: bool) -> tuple[list[Annotation], int]:
    """The annotations of a study or sheet, and how many rows of it were blank."""
    from eval.annotate.sheet import FORMATS, read_sheet
    from eval.annotate.store.annotations import read_annotations, settled
    from eval.annotate.store.database import open_database

    if "://" in source or Path(source).suffix.lower().removeprefix(".") not in FORMATS:
        database = open_database(source)
        return (settled if settled_only else read_annotations)(database), 0
    if settled_only:
        raise ConfigError("--settled has no effect", got="a sheet, which has no decisions",
                          expected="a study", do="leave it out")  # fmt: skip
    return read_sheet(Path(source))


def report(args: argparse.Namespace) -> int:
    """Prints the paper's figures; the exit status."""
    from eval.annotate.figures import compute, describe

    found, blank = _annotations(args.source, args.settled)
    if not found:
        raise DataError("there are no answers yet", expected="one at least")
    figures = compute(found, blank=blank)
    if args.json:
        json.dump(figures.as_json(), sys.stdout, indent=2)
        write_verbatim("")
    else:
        for line in describe(figures):
            write_verbatim(line)
    if args.html:
        from eval.annotate.page import make_page

        write_whole(args.html, make_page(figures, args.source))
        print_line(plain_console(stderr=True), f"{args.html}: open it with a browser")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes the answers to a file; the exit status."""
    from eval.annotate.sheet import FORMATS, row_of, write_rows
    from eval.annotate.store.annotations import read_annotations, settled
    from eval.annotate.store.database import open_database

    name = args.format or args.output.suffix.lower().removeprefix(".")
    if name not in FORMATS:
        raise ConfigError("format is not known", got=args.output.name,
                          expected=f"a name that ends with {', '.join(FORMATS)}",
                          do="give --format")  # fmt: skip
    database = open_database(args.db)
    found = settled(database) if args.settled else read_annotations(database)
    with whole_file(args.output, "wb") as stream:
        cut = write_rows([row_of(one) for one in found], name, stream)
    write_verbatim(f"{len(found):,} answers: {args.output}")
    if cut:
        print_line(plain_console(stderr=True), f"{cut:,} texts are longer than a cell of xlsx, and "
                   "were cut: csv and jsonl have them whole", "yellow")  # fmt: skip
    return 0


def import_sheet(args: argparse.Namespace) -> int:
    """Takes a sheet's answers into a study; the exit status."""
    from eval.annotate.sheet import read_sheet
    from eval.annotate.store.annotations import add_annotations
    from eval.annotate.store.database import open_database

    found, blank = read_sheet(args.sheet)
    database = open_database(args.db)
    added, there = add_annotations(database, found)
    write_verbatim(
        f"{added:,} answers taken, {there:,} were there already, {blank:,} blank rows left out"
    )
    return 0
