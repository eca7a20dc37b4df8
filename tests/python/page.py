"""Walks through the server's page in a real browser, as an operator and a reviewer would.

page.py URL TOKEN_FILE PICTURES: prints what it saw as JSON, keeps pictures in the folder PICTURES, and ends with an
error when a script fails, when something is loaded that the page's policy forbids, when a check of accessibility
(axe-core, WCAG 2.2 A and AA) finds something, or when a narrow window has to be scrolled sideways.
"""

import json
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

BROWSER = "/usr/bin/chromium-headless-shell"
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
# Longest wait for anything on a busy machine.
PATIENCE = 60_000


def accessible(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"


def fits(page: Page) -> None:
    """At 320 pixels, what a phone or 400 % of zoom leaves (WCAG 1.4.10), nothing sticks out."""
    page.set_viewport_size({"width": 320, "height": 640})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 320, f"the page is {wide} pixels wide in a window of 320"
    page.set_viewport_size({"width": 1280, "height": 900})


def segment(page: Page) -> dict[str, str]:
    drift = page.get_by_role("region", name="Drift")
    row = drift.get_by_role("row").filter(has=page.get_by_role("button", name="porto"))
    expect(row).to_be_visible()
    cells = [cell.inner_text() for cell in row.get_by_role("cell").all()]
    # Chosen by keyboard alone, from the table; then all requests again, from the list.
    page.get_by_role("button", name="porto").focus()
    page.keyboard.press("Enter")
    expect(drift).to_contain_text("Segment porto:")
    expect(page.get_by_label("Segment")).to_have_value("porto")
    expect(drift).to_contain_text("How right it was")
    page.get_by_label("Segment").select_option("")
    expect(drift).to_contain_text("By segment")
    # Unfolded it stays so when the page draws its news.
    drift.get_by_text("Confidence kept its word?").click()
    with page.expect_response(lambda answer: "/api/v1/drift" in answer.url):
        pass
    expect(drift.get_by_text("It was so sure")).to_be_visible()
    return {"requests": cells[1], "right": cells[6]}


def review(page: Page, token: str) -> str:
    queue = page.get_by_role("region", name="Review")
    looks = queue.get_by_role("button", name="Look")
    expect(looks).to_have_count(4)
    looks.first.click()
    expect(queue.get_by_role("alert")).to_contain_text("say who you are")
    page.get_by_label("Your name").fill("ann")
    looks.first.click()
    # Contents are for operators only.
    expect(page.get_by_label("Operator token")).to_be_visible()
    # What is public goes on being shown, and the question stays.
    with page.expect_response(lambda answer: "/api/v1/drift" in answer.url):
        pass
    expect(page.get_by_label("Operator token")).to_be_visible()
    page.get_by_label("Operator token").fill(token)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Operator token")).to_be_hidden()
    looks.first.click()
    sample = queue.get_by_role("article")
    expect(sample).to_be_focused()
    expect(sample).to_contain_text("pixels, FP32, 1 × 64")
    name = sample.get_by_role("heading").first.inner_text().split()[1]
    page.get_by_label("Right class").fill("3")
    sample.get_by_role("button", name="Wrong").click()
    expect(sample).to_be_hidden()
    expect(queue).to_contain_text("wrong, ann")
    return name


def main() -> None:
    url, token_file, pictures = sys.argv[1:4]
    token = Path(token_file).read_text(encoding="utf-8").strip()
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # The browser only ever sees this test's own server, often as root in a container.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        # That contents are refused without the token is part of the walk.
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" and "401" not in said.text else None)
        streams: list[str] = []
        page.on("request", lambda asked: streams.append(asked.url) if asked.url.endswith("/stream") else None)
        page.goto(url)
        expect(page.get_by_role("status")).to_have_text("live")
        expect(page.get_by_role("region", name="Devices")).to_contain_text("digits@1.0.0")
        expect(page.get_by_role("region", name="Rollouts")).to_contain_text("completed")
        expect(page.get_by_role("region", name="Alerts")).to_contain_text("digits@1.0.0, segment other")
        seen: dict[str, object] = {"porto": segment(page)}
        page.screenshot(path=f"{pictures}/light.png", full_page=True)
        fits(page)
        accessible(page, "light")
        accessible(page, "dark")
        seen["judged"] = review(page, token)
        page.screenshot(path=f"{pictures}/dark.png", full_page=True)
        browser.close()
    assert not faults, faults
    assert len(streams) == 1, f"a token that is shown later opens no second stream: {streams}"
    print(json.dumps(seen))


main()
