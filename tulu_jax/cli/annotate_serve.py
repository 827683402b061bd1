"""`tulu annotate serve`: where it listens, and what it refuses to."""

from __future__ import annotations

import argparse
import logging
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tulu_jax.errors import ConfigError

DRAIN_SECONDS = 10.0


def serve(args: argparse.Namespace) -> int:
    """Serves a study until a signal; the exit status."""
    from eval.annotate.store.database import open_database
    from eval.annotate.web.app import make_app
    from tulu_jax.console import write_verbatim
    from tulu_jax.serve import listen

    options = listen_options(args)
    origin = check_origin(args.origin)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    database = open_database(args.db)
    secure = bool(args.tls_certificate) or args.behind_proxy
    bound = listen.bind(args.host, args.port)
    address = listen.url(args.host, bound)
    if args.tls_certificate:
        address = address.replace("http://", "https://", 1)
    study = database.study()
    with bound:
        server = listen.Server(
            make_app(database, secure=secure, origin=origin),  # type: ignore[arg-type]
            drain_seconds=DRAIN_SECONDS,
            on_ready=lambda: write_verbatim(
                f"serving {study.name!r} ({study.state}) at {origin or address}; Ctrl-C ends"
            ),
            **options,
        )
        server.run(sockets=[bound])
    database.close()
    write_verbatim("server ended")
    return 0


def listen_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the server is told about TLS and proxies.

    Raises:
      ConfigError: all the network would be served without TLS, or the certificate is of no use.
    """
    from tulu_jax.serve.listen import is_loopback

    if bool(args.tls_certificate) != bool(args.tls_key):
        raise ConfigError("TLS needs a certificate and its key", got="one of them",
                          expected="--tls_certificate FILE --tls_key FILE")  # fmt: skip
    if not (is_loopback(args.host) or args.tls_certificate or args.behind_proxy):
        raise ConfigError(
            "passwords would go through the network in clear",
            got=f"--host {args.host}",
            expected="127.0.0.1, or TLS",
            do="give --tls_certificate and --tls_key, or --behind_proxy if a proxy does TLS",
        )
    options: dict[str, Any] = {"proxy_headers": args.behind_proxy, "lifespan": "off"}
    if args.behind_proxy:
        options["forwarded_allow_ips"] = args.proxy
    if args.tls_certificate:
        _check_certificate(args.tls_certificate, args.tls_key)
        options.update(ssl_certfile=str(args.tls_certificate), ssl_keyfile=str(args.tls_key))
    return options


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # ssl's errors are such too
        missing = next((path for path in (certificate, key) if not path.is_file()), certificate)
        raise ConfigError("certificate cannot be used", got=error.strerror or error, at=missing,
                          expected="a certificate and its key in PEM")  from error  # fmt: skip


def check_origin(text: str) -> str:
    """The address that invitations begin with, without a slash at its end.

    Raises: ConfigError.
    """
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/")
                 or parts.query):  # fmt: skip
        raise ConfigError("--origin is no address of a server", got=text,
                          expected="such as https://lab.example")  # fmt: skip
    return text.rstrip("/")
