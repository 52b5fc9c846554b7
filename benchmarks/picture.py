"""The picture in the README: the curves of a run's page, as a browser shows them.

    .venv/bin/python -m benchmarks.picture runs/demo dashboards/example.png

Needs chromium, which `make test` sets up.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's directory, with its report.html")
    parser.add_argument("picture", type=Path, help="where to")
    parser.add_argument("--section", default="curves", help="the anchor of what is shown")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1100})
        page.goto((given.run / "report.html").resolve().as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length > 2")
        page.locator(f"#{given.section}").screenshot(path=given.picture)
        browser.close()


if __name__ == "__main__":
    main()
