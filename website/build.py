"""`python -m website.build`: the documentation as pages that need neither network nor server."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from website.links import faults
from website.source import ROOT
from website.stage import LinkError, stage

CONFIG = Path(__file__).parent / "zensical.toml"
FOLDER = ROOT / "build" / "website"

FETCHED = "https://unpkg.com/iframe-worker/shim"
"""What pages of the generator would fetch from the network."""

DOCSTRINGS = "griffe:"
"""How a complaint about a docstring begins, which strict builds do not count."""

ZENSICAL = "from zensical.main import cli; cli()"


def build(folder: Path = FOLDER) -> Path:
    """Builds the site anew; the folder of its pages.

    Raises:
      SystemExit: a page is missing, a link is broken, or the generator warns of something.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    try:
        stage(folder / "pages")
    except LinkError as error:
        raise SystemExit(str(error)) from None
    config = folder / "zensical.toml"
    config.write_text(CONFIG.read_text(encoding="utf-8").replace("@ROOT@", str(ROOT)))
    command = [sys.executable, "-W", "ignore", "-c", ZENSICAL, "build", "--strict", "--clean"]
    done = subprocess.run(
        [*command, "--config-file", str(config)], cwd=folder, capture_output=True, text=True
    )
    print(done.stdout, done.stderr, sep="", end="", file=sys.stderr)
    if done.returncode or DOCSTRINGS in done.stdout + done.stderr:
        raise SystemExit("the generator found faults in the pages, which are told above")
    site = folder / "site"
    (site / "404.html").unlink()  # its links fit one address of a server alone
    _use_own_worker(site)
    wrong = list(faults(site))
    if wrong:
        raise SystemExit("\n".join(["the site does not hang together:", *wrong]))
    return site


def _use_own_worker(site: Path) -> None:
    """Puts our script in the place of the one that pages would fetch to search without a server."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        ours = os.path.relpath(site / "worker.js", page.parent)
        page.write_text(text.replace(FETCHED, ours), encoding="utf-8")


def main() -> None:
    """Builds, and says where the first page lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to build")
    site = build(parser.parse_args().folder.resolve())
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages: {site / 'index.html'}")


if __name__ == "__main__":
    main()
