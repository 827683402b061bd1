"""Many annotators at once, who send an answer until it is acknowledged, as our script does."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import sqlalchemy as sa

from eval.annotate.records import PREFERENCES
from eval.annotate.store import accounts, assign, tables
from eval.annotate.store.database import open_database
from eval.annotate.web.context import Site
from tests.eval.annotate import studies

ROOT = Path(__file__).parents[3]
FORK = """
import argparse, json, os, sys
from alembic import command
from eval.annotate.store import database
from eval.annotate.web import app
from tulu_jax.cli import annotate, annotate_serve
from tulu_jax.serve import listen

parser = argparse.ArgumentParser()
annotate._add_serve(parser)
for line in sys.stdin:
    word, *rest = json.loads(line)
    if word == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(rest[0], 0)[1]), flush=True)
        continue
    if os.fork():
        continue
    status = 1
    try:
        print(os.getpid(), flush=True)
        status = annotate_serve.serve(parser.parse_args(rest))
    finally:
        print(f"status {status}", flush=True)
        os._exit(status)
"""
"""Forks servers from a process that has imported everything: each starts in no time, and is a
process of its own all the same."""


class Member:
    """One annotator with a session of one's own."""

    def __init__(self, name, session, csrf):
        self.name, self.session, self.csrf = name, session, csrf
        self.acknowledged = {}
        self.seconds = []


def gather(where, people, each):
    """A study in which each of so many people has so many instances; the people."""
    database = studies.make(
        where, studies.instances(each), annotators=people, overlap=1.0, batch=each
    )
    site, members = Site(database), []
    for i in range(people):
        user = studies.add_user(database, f"p{i}", password=None)
        session = accounts.start_session(database, user)
        members.append(Member(user.name, session, site.csrf(session)))
        with database.write() as connection:
            assign.draw(connection, user.id, each)
    database.close()
    return members


class Servers:
    """Where servers are forked from."""

    def __init__(self, log):
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORK], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip

    def tell(self, *words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def line(self, start=""):
        """The next line, which must begin so."""
        found = self.process.stdout.readline()
        assert found.startswith(start), found
        return found

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(120) == 0
        self.process.stdout.close()


class Server:
    """`tulu annotate serve` in a process of its own, without the other commands, at one port."""

    def __init__(self, where, servers):
        self.where, self.servers, self.port, self.pid = str(where), servers, 0, None

    def start(self):
        self.servers.tell("serve", "--db", self.where, "--port", str(self.port))
        self.pid = int(self.servers.line())
        self.port = int(self.servers.line("serving").split(":")[-1].split(";")[0])

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.servers.tell("wait", self.pid)
        assert int(self.servers.line()) == -signal.SIGKILL

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        self.servers.tell("wait", self.pid)
        assert self.servers.line("server ended") and self.servers.line("status 0")
        assert int(self.servers.line()) == 0


class Line:
    """A connection that is kept, and opened anew when it breaks."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def post(self, path, form, headers):
        """The status and JSON of an answer; OSError where none came whole."""
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            body = urlencode(form).encode()
            head = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}",
                    "accept: application/json", f"content-length: {len(body)}",
                    "content-type: application/x-www-form-urlencoded", *headers]  # fmt: skip
            self.writer.write("\r\n".join([*head, "", ""]).encode() + body)
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            length = next(
                int(one.split(":")[1]) for one in lines if one.startswith("content-length")
            )
            return int(lines[0].split()[1]), json.loads(await self.reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise OSError(str(error)) from error

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.writer = None


async def annotate(member, port, count, think=0.0, start=0.0):
    """Answers so many instances, each until it is acknowledged."""
    line = Line(port)
    headers = [f"cookie: annotate_session={member.session}", f"x-csrf-token: {member.csrf}"]
    await asyncio.sleep(start)
    for position in range(1, count + 1):
        form = studies.said(key=f"{member.name}-{position}", comment=f"{member.name} {position}",
                            preference=PREFERENCES[position % 5])  # fmt: skip
        while True:
            began = time.perf_counter()
            try:
                status, said = await line.post(f"/task/{position}", form, headers)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            assert status in (200, 503), (status, said)
            if status == 200:
                break
        member.seconds.append(time.perf_counter() - began)
        member.acknowledged[position] = form["comment"]
        if think:
            await asyncio.sleep(think)
    line.close()


async def everybody(members, port, count, **options):
    await asyncio.gather(*(annotate(one, port, count, **options) for one in members))


async def while_killed(members, server, count, kills, log=None):
    """The same while the server is killed so many times; what had been acknowledged each time."""
    work = asyncio.ensure_future(everybody(members, server.port, count))
    seen = []
    total = len(members) * count
    for kill in range(kills):
        while sum(len(one.acknowledged) for one in members) < total * (kill + 1) / (kills + 1):
            await asyncio.sleep(0.002)
        await asyncio.to_thread(server.kill)
        # What a browser was told is there, though nobody tidied up.
        seen.append({(one.name, p) for one in members for p in one.acknowledged})
        missing = seen[-1] - kept(server.where)
        assert not missing
        await asyncio.to_thread(server.start)
    await work
    return seen


def kept(where):
    """(name, position) of every answer in a study."""
    return {(name, position) for name, position, _ in rows(where)}


def rows(where):
    database = open_database(str(where))
    with contextlib.closing(database), database.read() as connection:
        return connection.execute(
            sa.select(tables.users.c.name, tables.assignments.c.position, tables.answers.c.comment)
            .join_from(tables.answers, tables.assignments)
            .join(tables.users, tables.users.c.id == tables.assignments.c.user_id)
        ).all()  # fmt: skip


def check_all(where, members, count):
    """Every answer that was acknowledged is there, once, as it was sent, and nothing else."""
    found = sorted(tuple(row) for row in rows(where))
    sent = sorted((m.name, p, c) for m in members for p, c in m.acknowledged.items())
    assert len(sent) == len(members) * count
    assert found == sent


def percentile(members, share):
    times = sorted(s for one in members for s in one.seconds)
    return times[int(share * len(times))]


if __name__ == "__main__":  # how long a submission takes: DB [THINK]
    where, think = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    crowd = gather(where, 50, 40)
    servers = Servers(None)
    server = Server(where, servers)
    server.start()
    begin = time.perf_counter()
    asyncio.run(everybody(crowd, server.port, 40, think=think))
    took = time.perf_counter() - begin
    server.stop()
    servers.close()
    check_all(where, crowd, 40)
    print(
        f"{os.cpu_count()} cores, think {think:g} s: {2000 / took:.0f} submissions/s, median "
        f"{1000 * percentile(crowd, 0.5):.0f} ms, p95 {1000 * percentile(crowd, 0.95):.0f} ms"
    )
