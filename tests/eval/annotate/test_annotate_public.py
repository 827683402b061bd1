"""`tulu annotate serve` to a network: by TLS, behind a proxy, and slow clients; by real sockets."""

import argparse
import contextlib
import datetime
import functools
import http.client
import http.server
import ipaddress
import re
import socket
import ssl
import threading

import httpx2
import pytest

from eval.annotate.store.annotations import read_annotations
from eval.annotate.web import app
from tests.eval.annotate.studies import Visitor
from tulu_jax.cli import annotate, annotate_serve
from tulu_jax.serve import listen

x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

LIMIT = 40
"""Invitations that are tried from one address."""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate of this machine, signed by itself, and its key: two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def serve(study, tmp_path, monkeypatch):
    """Runs `tulu annotate serve` with flags in a thread, at a free port, which it returns."""
    running, threads = [], []

    class Kept(listen.Server):
        def __init__(self, *arguments, on_ready, **options):
            self.ready = threading.Event()
            super().__init__(*arguments, on_ready=self.ready.set, **options)
            running.append(self)

    monkeypatch.setattr(listen, "Server", Kept)
    parser = argparse.ArgumentParser()
    annotate._add_serve(parser)

    def start(*flags):
        words = ["--db", str(tmp_path / "study.db"), "--port", "0", *map(str, flags)]
        threads.append(
            threading.Thread(target=annotate_serve.serve, args=(parser.parse_args(words),))
        )
        threads[-1].start()
        while len(running) < len(threads):
            threads[-1].join(0.005)
            assert threads[-1].is_alive()
        assert running[-1].ready.wait(60)
        return running[-1].servers[0].sockets[0].getsockname()[1]

    yield start
    for one in running:
        one.should_exit = True
    for one in threads:
        one.join(60)


class Proxy(http.server.ThreadingHTTPServer):
    """What does TLS before a lab's server: behind what clients claim it says whom it serves."""

    def __init__(self, tls, to):
        super().__init__(("127.0.0.1", 0), Forward)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.to, self.client = to, "203.0.113.7"


class Forward(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        claimed = [self.headers["x-forwarded-for"]] if "x-forwarded-for" in self.headers else []
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers["x-forwarded-for"] = ", ".join([*claimed, self.server.client])
        headers["x-forwarded-proto"] = "https"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.to)) as line:
            line.request(self.command, self.path, body, headers)
            answer = line.getresponse()
            content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def proxy(tls):
    """Starts a proxy before a port."""
    started = []

    def start(port):
        started.append(Proxy(tls, port))
        thread = threading.Thread(target=started[-1].serve_forever, args=(0.01,))
        thread.start()
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


@contextlib.contextmanager
def visit(base, tls=None):
    trusted = True if tls is None else ssl.create_default_context(cafile=str(tls[0]))
    with httpx2.Client(
        base_url=base, verify=trusted, follow_redirects=False, trust_env=False, timeout=60
    ) as client:
        yield Visitor(client)


def check_secure(answer):
    """A log-in's cookie goes by TLS only, to this very host, and to no script."""
    cookies = answer.headers.get_list("set-cookie")
    (session,) = (one for one in cookies if "annotate_session" in one)
    assert session.startswith("__Host-annotate_session=")
    parts = {part.strip().lower().split("=")[0] for part in session.split(";")[1:]}
    assert {"secure", "httponly", "samesite", "path"} <= parts and "domain" not in parts
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def invitation(ada, **headers):
    """How the address begins that the people's page shows for a new invitation."""
    ada.get("/admin/people")
    form = {"name": "zoe", "role": "annotator", "days": "2"}
    page = ada.post("/admin/invite", form, 200, headers=headers).text
    return re.search(r'<code id="link">(\S+)/join/', page)[1]


def guess(visitor, count, claimed="198.51.100.{}"):
    """The statuses of so many invitations that were made up, each claimed to be of another."""
    headers = [{"x-forwarded-for": claimed.format(i)} for i in range(count)]
    return [visitor.client.get("/join/x", headers=one).status_code for one in headers]


TOO_MANY = [404] * LIMIT + [429]


def test_all_the_network_by_tls(study, serve, tls):
    port = serve("--host", "0.0.0.0", "--tls_certificate", tls[0], "--tls_key", tls[1])
    base = f"https://localhost:{port}"
    with visit(base, tls) as bob, visit(base, tls) as ada:
        check_secure(bob.log_in("bob"))
        assert bob.annotate() == 6
        ada.log_in("ada")
        spoofed = {"x-forwarded-proto": "http", "x-forwarded-host": "evil.example"}
        assert invitation(ada, **spoofed) == base
        assert guess(bob, LIMIT + 1) == TOO_MANY  # who one says to be is not believed
    assert len(read_annotations(study)) == 6
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False)


def test_behind_a_proxy_that_does_tls(study, serve, tls, proxy):
    port = serve("--host", "0.0.0.0", "--behind_proxy")
    front = proxy(port)
    base = f"https://localhost:{front.server_address[1]}"
    with visit(base, tls) as bob, visit(base, tls) as ada:
        check_secure(bob.log_in("bob"))
        assert bob.annotate() == 6
        ada.log_in("ada")
        assert invitation(ada) == base
        bob.get("/")
        bob.post("/go", status=403, headers={"origin": "https://evil.example"})
        bob.post("/go", headers={"origin": base})
        assert guess(bob, LIMIT + 1) == TOO_MANY  # claims before the proxy's word count nothing
        front.client = "203.0.113.8"
        assert guess(bob, 1) == [404]  # another client of the proxy is not shut out
    assert len(read_annotations(study)) == 6
    with visit(f"http://127.0.0.1:{port}") as direct:  # in clear there is no session
        direct.get("/login")
        direct.post("/login", {"name": "bob", "password": "x"}, 403)


@pytest.mark.parametrize("flags", [[], ["--behind_proxy", "--proxy", "192.0.2.9"]])
def test_who_is_no_proxy_is_not_believed(serve, flags):
    with visit(f"http://127.0.0.1:{serve(*flags)}") as thief:
        assert guess(thief, LIMIT + 1) == TOO_MANY


def test_without_a_proxy_nobody_says_that_it_was_tls(serve):
    base = f"http://127.0.0.1:{serve()}"
    with visit(base) as ada:
        answer = ada.log_in("ada")
        assert "strict-transport-security" not in answer.headers
        assert invitation(ada, **{"x-forwarded-proto": "https"}) == base


def until_cut_off(port, head, drip):
    """Sends a head and then one piece again and again; what came back until the server hung up."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(head)
        line.settimeout(0.02)
        said = b""
        for _ in range(3000):
            try:
                got = line.recv(4096)
                if not got:
                    return said
                said += got
            except TimeoutError:
                with contextlib.suppress(OSError):
                    line.sendall(drip)
            except ConnectionError:
                return said
    raise AssertionError(f"never cut off: {said!r}")


def test_slow_clients_are_cut_off_and_others_served_meanwhile(serve, monkeypatch):
    quick = functools.partial(app.make_app, body_seconds=0.3)
    monkeypatch.setattr(app, "make_app", quick)
    monkeypatch.setattr(
        annotate_serve, "listen_options", lambda _: {"lifespan": "off", "head_seconds": 0.3}
    )
    port = serve()
    begun = b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as silent:
        with visit(f"http://127.0.0.1:{port}") as bob:
            bob.log_in("bob")
        assert until_cut_off(port, b"GET / HTTP/1.1\r\nx", b"x") == b""
        assert until_cut_off(port, begun, b"a: b\r\n") == b""
        assert b"408 Request Timeout" in until_cut_off(port, begun + b"\r\n", b"a")
        assert silent.recv(1) == b""
