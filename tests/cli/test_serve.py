"""`tulu serve`: what it refuses before it loads anything, and its life as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

from tulu_jax.cli import serve
from tulu_jax.cli.main import main, make_parser
from tulu_jax.errors import ConfigError

from .small_model import write_model

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "small")


def run(*words):
    args = make_parser().parse_args(["serve", *map(str, words)])
    return args.func(args)


def test_a_public_address_without_a_key_is_refused(model, monkeypatch):
    monkeypatch.delenv("TULU_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"everybody without a key - got --host 0\.0"):
        run("--model", model, "--host", "0.0.0.0")


def test_a_key_file_that_others_read_is_refused(model, tmp_path):
    (tmp_path / "keys").write_text("a-key-of-ours\n")
    (tmp_path / "keys").chmod(0o644)
    with pytest.raises(ConfigError, match="key file can be read by others"):
        run("--model", model, "--api_key_file", tmp_path / "keys")


def test_a_port_in_use_is_told_before_the_model_is_opened(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigError, match="port is in use"),
    ):
        run("--model", tmp_path / "none", "--port", other.getsockname()[1])


def test_a_folder_that_is_gone_and_memory_that_is_short(model, tmp_path, monkeypatch, capsys):
    status = main(["serve", "--model", str(tmp_path / "none"), "--port", "0"])
    assert status == 2 and "tulu serve: " in capsys.readouterr().err
    monkeypatch.setattr("tulu_jax.generate.sizes.free_memory", lambda: 1000)
    status = main(["serve", "--model", str(model), "--port", "0"])
    assert status == 2 and "do not fit into the memory" in capsys.readouterr().err


def test_packages_that_are_missing_are_named(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "tulu_jax.serve.app", None)
    with pytest.raises(ConfigError, match=r"packages of the server .* pip install 'tulu-jax\[ser"):
        run("--model", model)


def test_the_example_is_a_command_line():
    line = serve.example("it's", "http://127.0.0.1:1", True)
    assert line.startswith("  curl http://127.0.0.1:1/v1/chat/completions -H 'content-type")
    assert '"authorization: Bearer $TULU_API_KEY"' in line
    assert line.endswith(""" -d '{"model": "it'"'"'s", "messages": [{"role": "user", "content":"""
                         """ "Name three colours."}]}'""")  # fmt: skip


def test_a_process_that_is_terminated_under_load_gives_what_it_began(model):
    """Streams end whole, the exit status is 0, and nothing is printed on the error stream."""
    words = ["-W", "error", "-m", "tulu_jax", "serve", "--model", str(model), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TULU_API_KEY": "a-key-of-ours"}
    process = subprocess.Popen(
        [sys.executable, *words, "--slots", "2"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("serving small (") and "in 2 slots of 128 tokens" in line
        address = line.split(" at ")[1].split("/v1")[0]
        assert process.stdout.readline().startswith(f"  curl {address}/v1/chat/completions")
        body = {"prompt": [1, 5], "max_tokens": 100, "stream": True, "logit_bias": {"2": -100}}
        headers = {"authorization": "Bearer a-key-of-ours"}
        assert httpx2.post(f"{address}/v1/completions", json=body).status_code == 401
        ends, begun = [], threading.Semaphore(0)

        def client():
            with httpx2.stream(
                "POST", f"{address}/v1/completions", json=body, headers=headers, timeout=120
            ) as response:
                begun.release()
                ends.append(list(response.iter_lines()))

        clients = [threading.Thread(target=client) for _ in range(6)]
        for one in clients:
            one.start()
        for _ in clients:
            assert begun.acquire(timeout=120)
        process.send_signal(signal.SIGTERM)
        for one in clients:
            one.join()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    for lines in ends:
        assert lines[-2:] == ["data: [DONE]", ""]
        assert json.loads(lines[-4][6:])["choices"][0]["finish_reason"] == "length"
    assert len(ends) == 6 and process.returncode == 0
    assert out == "server ended\n" and "Traceback" not in err and "a-key-of-ours" not in err
