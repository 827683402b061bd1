"""A real browser without a screen, for the tests of pages, and what they do with it."""

import shutil

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
         "disable-background-networking", "disable-component-update", "disable-sync",
         "disable-dev-shm-usage", "window-size=1200,900")  # fmt: skip
VISIBLE = "[...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"

in_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: install both to run this"
    ),
]
"""The marks of a module whose tests need it."""


def open_browser(profile):
    """A browser that keeps what it must in this folder, closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.implicitly_wait(0)
    yield driver
    driver.quit()


def press(page, keys):
    ActionChains(page).send_keys(keys).perform()


def find(page, selector):
    return page.execute_script(f"return {VISIBLE}", selector)


def texts(page, selector):
    return page.execute_script(f"return {VISIBLE}.map((e) => e.innerText.trim())", selector)


def wait(page, condition):
    WebDriverWait(page, 60, poll_frequency=0.05).until(lambda _: condition())


def contrasts(page, selectors):
    """How far text stands out from its ground, by selector."""
    script = """
      const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const level = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
          .map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const ground = (e) => {
        for (; e; e = e.parentElement) {
          const colour = getComputedStyle(e).backgroundColor;
          if (colour !== "rgba(0, 0, 0, 0)") return colour;
        }
      };
      return arguments[0].map((selector) => {
        const e = document.querySelector(selector);
        const [a, b] = [level(getComputedStyle(e).color), level(ground(e))].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
      });"""
    return dict(zip(selectors, page.execute_script(script, selectors), strict=True))
