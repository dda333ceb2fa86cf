"""Opens the status page in Chromium: what it shows is compared with /metrics, and whoever uses it by keyboard, by a reader
of the screen, on a phone or in the dark has to be able to.

    page.py flowing URL FOLDER   while traffic flows: rates, screenshots to FOLDER
    page.py still URL            while none does: exact counts
    page.py keyboard URL TOKEN   without a token at first
    page.py harmless URL NAME    a user of this name has an allocation, and somebody of this name has failed
    page.py restart URL          the relay ends when `ready` is printed, and is there again after `lost`
    page.py hidden URL           nobody looks at the page
"""

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
SIZES = {"phone": (360, 740), "desktop": (1440, 900)}
SCHEMES = ["light", "dark"]
PATIENCE = 40_000
# How long the page waits between two scrapes, in milliseconds, and how much earlier a timer may come.
EVERY, EARLY = 2000, 20
FILES = {"/", "/page.css", "/page.svg", "/page.js"}
DATA = {"/metrics", "/v1/status", "/v1/allocations", "/v1/failures"}
TABLE = """id => [...document.getElementById(id).tBodies[0].rows].map(row => ({key: row.dataset.key,
    cells: [...row.cells].map(cell => ({text: cell.firstChild.textContent, value: cell.dataset.value, title: cell.title}))}))"""

expect.set_options(timeout=PATIENCE)


def samples(text):
    """Every series of a scrape, with its labels as pairs."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name, _, labels = name.partition("{")
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found


def total(scrape, name, **labels):
    return sum(value for (other, has), value in scrape.items() if other == name and has >= set(labels.items()))


def human(value, unit):
    """A number as the page should say it: three digits or so."""
    for prefix in ["", "k", "M", "G"]:
        if value < 999.5:
            break
        value /= 1000
    digits = 1 if value < 99.95 and (prefix or value != int(value)) else 0
    return f"{value:.{digits}f}\u00a0{prefix}{unit}" if prefix or unit else f"{value:.0f}"


def count(value):
    return f"{value:,.0f}" if value < 10_000 else human(value, "")


class Opened:
    """A page, and everything that it has asked for or complained of."""

    def __init__(self, browser, url, size="desktop", scheme="light"):
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.scrapes = []
        self.page.on("response", self.took)
        self.page.add_init_script("addEventListener('securitypolicyviolation', event => console.error(event.blockedURI))")
        self.origin = "http://" + urlsplit(url).netloc
        self.page.goto(url)
        expect(self.page.locator("#state")).to_have_text("Serving")

    def took(self, response):
        if urlsplit(response.url).path == "/metrics":
            self.scrapes.append(response)

    def table(self, name):
        return {row["key"]: row["cells"] for row in self.page.evaluate(TABLE, name)}

    def value(self, name):
        return self.page.locator(f"#{name}").get_attribute("data-value")

    def expect_two_scrapes(self):
        expect(self.page.locator("#packets")).to_have_attribute("data-value", re.compile(".+"))

    def check(self, wants_token=True):
        """Nothing leaves the origin, nothing is complained of, nothing is too wide, and nobody is left out."""
        asked = {urlsplit(url).path for url in self.requests}
        assert all(url.startswith(self.origin + "/") for url in self.requests), self.requests
        modules = {path for path in asked if re.fullmatch(r"/page/\w+\.js", path)}
        data = DATA if wants_token else {"/metrics"}
        assert modules and asked == FILES | modules | data, asked ^ (FILES | modules | data)
        assert not self.complaints, self.complaints
        widths = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], f"it is scrolled sideways: {widths}"
        violations = Axe().run(self.page).response["violations"]
        assert not violations, json.dumps([[found["help"], [node["html"] for node in found["nodes"]]] for found in violations], indent=1)


def within(value, delta, least, most):
    assert delta / most <= value <= delta / least, f"{value} is not between {delta / most} and {delta / least}"


def flowing(browser, url, folder):
    for size in SIZES:
        for scheme in SCHEMES:
            opened = Opened(browser, url, size, scheme)
            opened.expect_two_scrapes()
            expect(opened.page.locator("#largest tbody tr").first).to_be_visible()
            compare_rates(opened)
            opened.check()
            dark = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (scheme == "dark") == (max(map(int, re.findall(r"\d+", dark)[:3])) < 64), dark
            opened.page.evaluate("scrollTo(0, 0)")
            opened.page.screenshot(path=Path(folder) / f"{size}-{scheme}.png", full_page=True)
            opened.context.close()
    return {"compared": len(SIZES) * len(SCHEMES)}


def compare_rates(opened):
    """What is shown is what two scrapes say of the time between them, as far as it is known from outside."""
    before = len(opened.scrapes)
    shown = opened.table("traffic")
    tiles = {name: float(opened.value(name)) for name in ["packets", "bits"]}
    while len(opened.scrapes) < before + 2:
        opened.page.wait_for_timeout(100)
    bodies = [samples(response.text()) for response in opened.scrapes]
    packets = "hairpin_relayed_packets_total"

    def is_shown(scrape):
        return all(
            float(shown[f"To {who} {path}"][4]["value"]) == total(scrape, packets, direction=direction, path=path)
            for who, direction in [("peers", "to_peer"), ("clients", "to_client")] for path in ["kernel", "userspace"]
        )

    last = next(index for index, scrape in enumerate(bodies) if is_shown(scrape))
    times = [opened.scrapes[index].request.timing for index in (last - 1, last, last + 1)]
    begun = [time["startTime"] for time in times]
    ended = [time["startTime"] + time["responseEnd"] for time in times]
    # A scrape is taken when its answer is there, and the next one is begun two seconds later, or more.
    least = (ended[1] - begun[1] + EVERY - EARLY) / 1000
    most = (begun[2] - EVERY + EARLY - ended[0]) / 1000
    everything = {"packets": 0, "bits": 0}
    for who, direction in [("peers", "to_peer"), ("clients", "to_client")]:
        for path in ["kernel", "userspace"]:
            cells = shown[f"To {who} {path}"]
            for column, metric, factor, unit in [(2, packets, 1, "pkt/s"), (3, "hairpin_relayed_bytes_total", 8, "bit/s")]:
                old, new = (total(bodies[index], metric, direction=direction, path=path) for index in (last - 1, last))
                value = float(cells[column]["value"])
                assert new > old, f"nothing flows {direction} by {path}"
                within(value, factor * (new - old), least, most)
                assert cells[column]["text"] == human(value, unit), cells[column]
                everything["packets" if factor == 1 else "bits"] += value
    for name, value in tiles.items():
        # The tiles may be of the scrape after the table, which is of as steady a flow.
        assert everything[name] / 3 < value < everything[name] * 3, (name, value, everything[name])


def still(browser, url):
    opened = Opened(browser, url)
    opened.expect_two_scrapes()
    expect(opened.page.locator("#shown")).to_be_visible()
    scrape = samples(opened.page.request.get(f"{opened.origin}/metrics").text())
    compared = 0

    def same(cell, value, text):
        nonlocal compared
        assert (float(cell["value"]), cell["text"]) == (value, text), f"{cell} is not {value}, {text}"
        assert cell["title"].split(" ")[0].replace(",", "") == f"{value:.0f}", cell
        compared += 1

    shown = opened.table("traffic")
    for who, direction in [("peers", "to_peer"), ("clients", "to_client")]:
        for path in ["kernel", "userspace"]:
            labels = {"direction": direction, "path": path}
            packets, size = (total(scrape, f"hairpin_relayed_{what}_total", **labels) for what in ["packets", "bytes"])
            assert packets > 0, labels
            cells = shown[f"To {who} {path}"]
            same(cells[4], packets, count(packets))
            same(cells[5], size, human(size, "B"))
            same(cells[2], 0, "0\u00a0pkt/s")

    shown = opened.table("clients")
    for transport in ["udp", "tcp", "tls", "dtls"]:
        cells = shown[transport.upper()]
        for cell, labels in zip(cells[1:4], [{"family": "ipv4"}, {"family": "ipv6"}, {}]):
            value = total(scrape, "hairpin_allocations", transport=transport, **labels)
            same(cell, value, count(value))
    for family in ["ipv4", "ipv6"]:
        for transport in ["udp", "tcp"]:
            assert total(scrape, "hairpin_allocations", transport=transport, family=family) > 0, (transport, family)
    live = total(scrape, "hairpin_allocations")
    same(shown["All"][3], live, count(live))
    assert opened.page.locator("#allocations").inner_text() == count(live)

    shown = opened.table("ports")
    ports = {dict(labels)["address"]: value for (name, labels), value in scrape.items() if name == "hairpin_relay_ports_in_use"}
    assert shown.keys() == ports.keys() and sum(ports.values()) > 0, (shown, ports)
    for address, used in ports.items():
        capacity = total(scrape, "hairpin_relay_ports_capacity", address=address)
        same(shown[address][1], used, count(used))
        same(shown[address][2], capacity, count(capacity))

    shown = {key: cells[1]["text"] for key, cells in opened.table("interfaces").items()}
    attached = [dict(labels) for (name, labels), _ in scrape.items() if name == "hairpin_xdp_attached"]
    assert shown == {labels["interface"]: labels["mode"] for labels in attached} and "native" in shown.values(), shown

    wrong = ["hairpin_dropped_packets_total", "hairpin_refusals_total"]
    expected = {}
    for (name, labels), value in scrape.items():
        if name in wrong and value > 0:
            labels = dict(labels)
            expected[labels.get("reason") or labels["cause"], labels.get("path")] = value
    assert {"no_permission", "wrong_password"} <= {reason for reason, _ in expected}, expected
    shown = opened.table("dropped")
    assert len(shown) == len(expected), (shown, expected)
    for cells in shown.values():
        value = expected[cells[0]["text"], cells[1]["text"].partition(", ")[2] or None]
        same(cells[4], value, count(value))
        same(cells[3], 0, "0")

    causes = opened.page.locator("#failures tbody th").all_inner_texts()
    assert "wrong_password" in causes, causes
    users = opened.page.locator("#largest tbody th").all_inner_texts()
    assert len(users) == min(live, 10) and set(users) == {"alice"}, users
    return {"compared": compared}


FOCUSABLE = "a[href], button, input, [tabindex='0']"


def keyboard(browser, url, token):
    opened = Opened(browser, url, "phone")
    page = opened.page
    opened.expect_two_scrapes()
    opened.check(wants_token=False)

    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    assert page.locator(".skip").bounding_box()["x"] >= 0, "who is there sees it"
    wanted = page.evaluate(f"[...document.querySelectorAll(\"{FOCUSABLE}\")].filter(one => one.checkVisibility()).length")
    seen = set()
    for _ in range(wanted):
        name, outline = page.evaluate("[document.activeElement.outerHTML, getComputedStyle(document.activeElement).outlineStyle]")
        assert outline != "none", f"nobody sees that the focus is on {name}"
        seen.add(name)
        page.keyboard.press("Tab")
    assert len(seen) == wanted, f"{wanted} can be reached, and the key Tab comes to {seen}"

    page.locator("#token").focus()
    page.keyboard.type("nobodys")
    page.keyboard.press("Enter")
    expect(page.locator("#token-problem")).to_contain_text("does not know this token")
    page.locator("#token").focus()
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_be_visible()
    expect(page.locator("#token-form")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 1
    page.reload()
    expect(page.locator("#shown")).to_be_visible()
    page.locator("#forget").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    # The answer to the wrong token is the only complaint.
    assert all("401" in complaint for complaint in opened.complaints), opened.complaints
    return {"reached": wanted}


def harmless(browser, url, name):
    opened = Opened(browser, url)
    page = opened.page
    expect(page.locator("#largest tbody th").first).to_have_text(name)
    expect(page.locator("#failures tbody tr").first).to_contain_text(name)
    assert urlsplit(page.url).fragment == "", "the token is not left in the address bar"
    opened.expect_two_scrapes()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.harm") is None
    opened.check()
    return {"shown": name}


def restart(browser, url):
    opened = Opened(browser, url)
    page = opened.page
    opened.expect_two_scrapes()
    expect(page.locator("#shown")).to_be_visible()
    print("ready", flush=True)
    expect(page.locator("#state")).to_contain_text("Not reachable since")
    packets = page.locator("#packets").inner_text()
    assert packets, "what was known last stays"
    print("lost", flush=True)
    expect(page.locator("#state")).to_have_text("Serving")
    expect(page.locator("#token-problem")).to_contain_text("does not know this token")
    opened.expect_two_scrapes()
    values = page.evaluate("[...document.querySelectorAll('[data-value]')].map(place => Number(place.dataset.value))")
    assert values and min(values) >= 0, f"counters began again, and nothing is less than nothing: {values}"
    return {"recovered": True}


def hidden(browser, url):
    opened = Opened(browser, url)
    opened.expect_two_scrapes()
    look = "hidden => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});" \
        " document.dispatchEvent(new Event('visibilitychange')); }"
    opened.page.evaluate(look, True)
    before = len(opened.scrapes)
    opened.page.wait_for_timeout(4 * EVERY)
    # One may have been under way.
    asked = len(opened.scrapes) - before
    assert asked <= 1, f"{asked} scrapes for nobody"
    opened.page.evaluate(look, False)
    while len(opened.scrapes) < before + asked + 2:
        opened.page.wait_for_timeout(100)
    return {"asked": asked}


with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    task = {task.__name__: task for task in [flowing, still, keyboard, harmless, restart, hidden]}[sys.argv[1]]
    print(json.dumps(task(chromium, *sys.argv[2:])))
    chromium.close()
