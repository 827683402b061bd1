"""The server with many clients beside the same engine offline: new tokens a second of both.

Engine and server live in processes of their own, with the same weights, prompts, slots and
allocator settings, and work in turn; the clients are a third process. The median of the ratios
counts. Prompts have no end token, so each gets exactly the number of new tokens drawn for it.

    python benchmarks/serve.py --shape 58m --clients 64 --rounds 3
    python benchmarks/serve.py --shape 15m --case shared --stream
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from generate import SHAPES, draw_work, write_weights


def make_engine(folder: Path, work: dict[str, Any], slots: int) -> Any:
    """The engine that both have."""
    from tasks import demo
    from tulu_jax.chat import load_tokenizer
    from tulu_jax.checkpoint import hf
    from tulu_jax.generate import Engine

    config, params = hf.load(folder / "weights")
    longest = max(len(p) + n for p, n in zip(work["prompts"], work["new"], strict=True))
    # Any tokenizer does: prompts are token ids, and what is no text of it is left out.
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    length = min(-(-longest // 256) * 256, config.max_length)
    return Engine(config, params, slots=slots, stop_ids=[], tokenizer=tokenizer, max_length=length)


def offline(folder: Path, slots: int) -> None:
    """Answers all prompts once for every line on standard input, and says the seconds."""
    from tulu_jax.generate import Request

    work = json.loads((folder / "work.json").read_text())
    engine = make_engine(folder, work, slots)
    pairs = zip(work["prompts"], work["new"], strict=True)
    requests = [Request(prompt, new) for prompt, new in pairs]
    engine.run(requests)  # compiles
    print("ready", flush=True)
    for _ in sys.stdin:
        engine._table.forget()
        begin = time.perf_counter()
        engine.run(requests)
        print(time.perf_counter() - begin, flush=True)


def serve(folder: Path, slots: int) -> None:
    """Serves until it is terminated; the first line is the address."""
    from tulu_jax.serve import listen
    from tulu_jax.serve.app import make_app
    from tulu_jax.serve.guard import Limits
    from tulu_jax.serve.runner import Runner
    from tulu_jax.serve.service import Service

    work = json.loads((folder / "work.json").read_text())
    engine = make_engine(folder, work, slots)
    assert engine.tokenizer is not None
    service = Service(Runner(engine, 4096), engine.tokenizer, "model", Limits())
    with listen.bind("127.0.0.1", 0) as bound:
        address = listen.url("127.0.0.1", bound)
        listen.Server(
            make_app(service), drain_seconds=1, on_ready=lambda: print(address, flush=True)
        ).run(sockets=[bound])


async def ask(address: str, work: dict[str, Any], clients: int, stream: bool) -> int:
    """All prompts through so many clients, each sending its next when it has an answer; tokens."""
    import httpx2

    waiting = list(range(len(work["prompts"])))[::-1]
    total = 0

    async def one_client() -> None:
        nonlocal total
        async with httpx2.AsyncClient(base_url=address, timeout=None) as client:
            while waiting:
                index = waiting.pop()
                body = {
                    "prompt": work["prompts"][index], "max_tokens": work["new"][index],
                    "temperature": 0, "stream": stream,
                }  # fmt: skip
                response = await client.post("/v1/completions", json=body)
                response.raise_for_status()
                total += work["new"][index]

    await asyncio.gather(*(one_client() for _ in range(clients)))
    return total


def start(role: str, args: argparse.Namespace, folder: Path) -> subprocess.Popen[str]:
    """A process of this file in one of the roles."""
    from tulu_jax.cli.allocator import SETTINGS, VARIABLE

    return subprocess.Popen(
        [sys.executable, __file__, "--role", role, "--slots", str(args.slots),
         "--folder", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
             VARIABLE: SETTINGS},
    )  # fmt: skip


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError("a process ended without an answer")
    return line


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Both in turn."""
    work = draw_work(args.case, args.prompts)
    (folder / "work.json").write_text(json.dumps(work))
    write_weights(folder / "weights", args.shape)
    total = sum(work["new"])
    engine, server = start("offline", args, folder), start("serve", args, folder)
    line_of(engine)
    address = line_of(server)
    asyncio.run(ask(address, work, args.clients, args.stream))  # compiles
    found = []
    for _ in range(args.rounds):
        assert engine.stdin is not None
        engine.stdin.write("\n")
        engine.stdin.flush()
        alone = float(line_of(engine))
        begin = time.perf_counter()
        asyncio.run(ask(address, work, args.clients, args.stream))
        served = time.perf_counter() - begin
        found.append((total / served, total / alone))
        print(
            f"server {total / served:.0f} tokens/s, engine {total / alone:.0f}: "
            f"{alone / served:.2f}",
            flush=True,
        )
    server.terminate()
    server.wait()
    assert engine.stdin is not None
    engine.stdin.close()
    engine.wait()
    ratio = statistics.median(mine / other for mine, other in found)
    print(
        f"{args.shape} {args.case}, {args.clients} clients, {args.slots} slots: median ratio "
        f"of server to engine {ratio:.2f}"
    )


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="58m")
    parser.add_argument("--case", choices=("unrelated", "shared"), default="unrelated")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", action="store_true", help="clients take their answers so")
    parser.add_argument("--role", choices=("offline", "serve"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        return (offline if args.role == "offline" else serve)(args.folder, args.slots)
    with tempfile.TemporaryDirectory() as name:
        compare(args, Path(name))
    return None


if __name__ == "__main__":
    main()
