"""The live page of docs/examples/template-service in a browser without a screen, for test/build/service_page.sh.

    service_page.py PROGRAM [DIRECTORY]    PROGRAM is the daemon; screenshots go to DIRECTORY, else nowhere

Chromium is driven over WebDriver, the daemon is the real one, with a database that is made slow.
"""
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from decimal import ROUND_HALF_UP, Decimal

PATIENCE = 60
CALLERS = 60
QUERY_DELAY_MS = 300

# What the page was answered when a stampede was over, and what went wrong where nobody looked.
RECORDER = """{
window.answers = [];
window.wrong = [];
const ask = window.fetch;
window.fetch = async (path, options) => {
    const answer = await ask(path, options);
    if (String(path).startsWith('/stampede'))
        window.answers.push({path: path, status: answer.status, text: await answer.clone().text()});
    return answer;
};
addEventListener('error', event => window.wrong.push(event.message));
addEventListener('unhandledrejection', event => window.wrong.push(String(event.reason)));
}"""

# Texts that are too faint to read: less than 4.5 to 1 (WCAG 2.1, 1.4.3).
FAINT = """
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = element => {
    for (; element; element = element.parentElement) {
        const colour = getComputedStyle(element).backgroundColor;
        if (parts(colour).length === 3 || parts(colour)[3] === 1)
            return colour;
    }
    return 'rgb(255, 255, 255)';
};
const faint = [];
for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
    if (!text || !element.checkVisibility() || element.closest('script, style, .unseen') ||
        element.getAttribute('class') === 'tag-text')
        continue;
    const style = getComputedStyle(element);
    const ink = light(element.namespaceURI.endsWith('svg') ? style.fill : style.color), back = light(ground(element));
    const ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    if (ratio < 4.5)
        faint.push(text + ': ' + ratio.toFixed(2));
}
return faint;
"""


def fail(text):
    raise SystemExit("service_page.py: " + text)


def check(holds, text):
    if not holds:
        fail(text)


def await_true(what, holds, patience=PATIENCE):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.05)
    fail("this does not come about: " + what)


def line_with(stream, pattern):
    """The match in the first line that has one; what follows is read to keep the writer from waiting."""
    for line in stream:
        match = re.search(pattern, line)
        if match:
            threading.Thread(target=stream.read, daemon=True).start()
            return match
    fail("it has ended without saying " + pattern)


class Daemon:
    def __init__(self, stack, program, directory, port=0):
        self.process = subprocess.Popen(
            [program, "--port", str(port), "--db", os.path.join(directory, "templates.db"),
             "--query-delay-ms", str(QUERY_DELAY_MS), "--ttl-ms", "2000"],
            stderr=subprocess.PIPE, text=True, errors="replace")
        stack.callback(self.kill)
        self.port = int(line_with(self.process.stderr, r"listening on http://127\.0\.0\.1:(\d+)/").group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path, method="GET"):
        request = urllib.request.Request(self.url + path, method=method)
        with contextlib.suppress(urllib.error.HTTPError):
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()
        return None

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        check(status == 0, f"the daemon has ended with {status}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Load:
    """A client that asks for templates all the time: most are hits, until their ttl is over."""

    def __init__(self, daemon):
        self.daemon, self.over = daemon, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.over.is_set():
            number += 1
            with contextlib.suppress(OSError):
                self.daemon.ask(f"/template-details?id={number % 4 + 1}")
            time.sleep(0.002)

    def end(self):
        self.over.set()
        self.thread.join()


class Browser:
    def __init__(self, stack, directory):
        home = os.path.join(directory, "home")
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True,
                                       stderr=subprocess.DEVNULL, env={**os.environ, "HOME": home})
        stack.callback(self.end)
        port = line_with(self.driver.stdout, r"successfully on port (\d+)").group(1)
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                            "--disable-background-networking", "--hide-scrollbars", "--user-data-dir=" + home]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self.base += "/" + self.send("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source=RECORDER)

    def send(self, path, body=None, method="POST"):
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            fail(f"{path}: {error.read().decode(errors='replace')[:600]}")

    def devtools(self, command, **parameters):
        return self.send("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script):
        return self.send("/execute/sync", {"script": script, "args": []})

    def element(self, selector):
        found = self.send("/element", {"using": "css selector", "value": selector})
        return "/element/" + next(iter(found.values()))

    def click(self, selector):
        self.send(self.element(selector) + "/click")

    def type(self, selector, text):
        element = self.element(selector)
        self.send(element + "/clear")
        self.send(element + "/value", {"text": text})

    def text(self, selector):
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent")

    def is_shown(self, selector):
        return self.run(f"return document.querySelector({json.dumps(selector)}).checkVisibility()")

    def count(self, selector):
        return self.run(f"return document.querySelectorAll({json.dumps(selector)}).length")

    def log(self, kind):
        return self.send("/se/log", {"type": kind})

    def set_look(self, width, height, scheme):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=False)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.3)  # bars have a transition

    def picture(self, to, whole=False):
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        with open(to, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def end(self):
        with contextlib.suppress(Exception, SystemExit):
            self.send("", method="DELETE")
        self.driver.terminate()
        self.driver.wait()


# ---- as the page writes numbers ----

def fixed(value, digits):
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def milliseconds(ms):
    if ms >= 1000:
        return fixed(ms / 1000, 2 if ms < 10000 else 1) + " s"
    return fixed(ms, 2 if ms < 10 else 1 if ms < 100 else 0) + " ms"


def row_of(wave):
    times = [milliseconds(wave[name]) for name in ("p50_ms", "p95_ms", "max_ms", "took_ms")]
    return [f"{wave['queries']:,}"] + times + [f"{wave['failed']:,}"]


# ---- what is looked at ----

def check_state(browser):
    await_true("the state is serving", lambda: browser.text("#state") == "serving")
    check(browser.is_shown("#banner") is False, "there is a banner though all is well")
    await_true("the database is seen to answer", lambda: browser.text("#database") == "answering")
    check(re.match(r"\d+ s$|\d+ min$", browser.text("#uptime")), f"it is up for {browser.text('#uptime')}")


def check_charts(browser):
    """Six lines with points; the requests, and what came of them, are seen to be some."""
    points = "return [...document.querySelectorAll('.chart')].map(c => Math.max(0, ...[...c.querySelectorAll" \
             "('.line')].map(l => l.getAttribute('d').split('L').length)))"
    names = "return [...document.querySelectorAll('.chart h3')].map(h => h.firstChild.data)"
    await_true("six charts of four points or more",
               lambda: len(browser.run(points)) == 6 and min(browser.run(points)) >= 4)
    check(browser.run(names) == ["Requests", "Hits", "Shared", "95th percentile", "Misses", "Database queries"],
          f"not the charts there should be: {browser.run(names)}")
    figures = "return [...document.querySelectorAll('.figure')].map(f => parseFloat(f.textContent.replace(',', '')))"
    seen = set()

    def all_seen():
        seen.update(i for i, value in enumerate(browser.run(figures)) if value and value > 0)
        return seen >= {0, 1, 3, 4, 5}

    await_true("requests, hits, misses, queries and how long it took, in the charts", all_seen)


def check_keyboard(browser):
    """An arrow key goes to an earlier second, on all charts; Escape goes back."""
    value = "return document.querySelector('.plot').getAttribute('aria-valuetext')"
    browser.run("document.querySelector('.plot').focus()")
    for _ in range(3):
        browser.send(browser.element(".plot") + "/value", {"text": "\ue012"})
    check(browser.count(".cursor") == 6, "an arrow key does not set the cursor of all charts")
    check(re.match(r"\d\d:\d\d:\d\d: [\d,]+ a second$", browser.run(value)), f"a value is read as {browser.run(value)}")
    browser.send(browser.element(".plot") + "/value", {"text": "\ue00c"})
    check(browser.count(".cursor") == 0, "Escape does not take the cursor away")


def check_report(browser):
    """What is shown equals what was answered."""
    answer = browser.run("return window.answers.at(-1)")
    check(answer["status"] == 200, f"a stampede was answered with {answer}")
    check(answer["path"] == f"/stampede?id=7&callers={CALLERS}", f"the page has asked {answer['path']}")
    report = json.loads(answer["text"])
    check((report["id"], report["callers"]) == (7, CALLERS), f"another stampede: {report}")
    check(report["protected"]["queries"] == 1, f"not one query with protection: {report}")
    check(report["unprotected"]["queries"] == CALLERS, f"not a query for each without: {report}")
    check(report["protected"]["failed"] == report["unprotected"]["failed"] == 0, f"callers failed: {report}")
    shown = browser.run("return [...document.querySelectorAll('#comparison tbody tr')].map(r => "
                        "[...r.querySelectorAll('td')].map(c => c.textContent))")
    expected = [row_of(report["protected"]), row_of(report["unprotected"])]
    check(shown == expected, f"shown {shown}, answered {expected}")
    check_bars(browser, report)
    verdict = browser.text("#verdict")
    for part in (f"{CALLERS} callers", "template 7", "With protection: 1 query in " + expected[0][4],
                 f"Without: {CALLERS} queries in " + expected[1][4]):
        check(part in verdict, f"the sentence lacks '{part}': {verdict}")


def check_bars(browser, report):
    texts = browser.run("return [...document.querySelectorAll('#bars b')].map(b => b.textContent)")
    waves = (report["protected"], report["unprotected"])
    check(texts == [str(wave["queries"]) for wave in waves] + [milliseconds(wave["took_ms"]) for wave in waves],
          f"the bars say {texts}")
    shares = browser.run("return [...document.querySelectorAll('.bar')].map(b => parseFloat(b.style.width))")
    for first, pair in ((0, "queries"), (2, "took_ms")):
        most = max(wave[pair] for wave in waves)
        for share, wave in zip(shares[first:first + 2], waves):
            check(abs(share - 100 * wave[pair] / most) < 0.1, f"a bar of {share} % for {wave[pair]} of {most}")


def check_stampede(browser):
    """By mouse; meanwhile the table shows what is under way."""
    browser.type("#callers", str(CALLERS))
    browser.click("#start")
    rows = "return [...document.querySelectorAll('#flights tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    await_true("the stampede's flights", lambda: any(row[0] == "template:7" and int(row[3]) >= 1 for row in browser.run(rows)))
    check(browser.is_shown("#flights"), "the table of flights is not shown")
    for row in browser.run(rows):
        check(row[0].startswith("template:") and row[1] in ("templates", "unshared") and
              row[2].startswith(("running", "queued", "pending")) and row[3].isdigit() and
              re.match(r"[\d.]+ m?s$", row[4]), f"a flight is shown as {row}")
    await_true("a report", lambda: browser.is_shown("#result"))
    check_report(browser)


def check_refusals(browser, daemon):
    browser.type("#callers", "5000")
    browser.click("#start")
    check("from 1 to 2000" in browser.text("#stampede-error"), "5000 callers are not refused in words")
    check(browser.run("return document.activeElement.id") == "callers", "the field that is wrong has no focus")
    check(browser.run("return window.answers.length") == 1, "what is wrong was sent all the same")
    browser.type("#callers", str(CALLERS))
    other = threading.Thread(target=daemon.ask, args=(f"/stampede?id=9&callers={CALLERS}", "POST"))
    other.start()
    await_true("another stampede", lambda: any(flight.get("key") == "template:9"
                                               for flight in json.loads(daemon.ask("/flights"))))
    browser.send(browser.element("#callers") + "/value", {"text": "\ue007"})  # Enter
    await_true("a message", lambda: browser.is_shown("#stampede-error"))
    check("already under way" in browser.text("#stampede-error"), f"409 is told as {browser.text('#stampede-error')}")
    other.join()


def check_looks(browser, directory):
    """Two sizes, light and dark: nothing wider than the screen, no text too faint; pictures."""
    grounds = {}
    for width, height in ((1280, 900), (390, 844)):
        for scheme in ("light", "dark"):
            browser.set_look(width, height, scheme)
            wide = browser.run("return document.documentElement.scrollWidth")
            check(wide <= width, f"{wide} wide on a screen of {width}")
            faint = browser.run(FAINT)
            check(not faint, f"{scheme}: too faint: {faint}")
            grounds[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
            if directory:
                browser.picture(os.path.join(directory, f"page-{width}-{scheme}.png"))
                browser.picture(os.path.join(directory, f"page-{width}-{scheme}-whole.png"), whole=True)
    check(grounds["light"] != grounds["dark"], "dark is as light")
    browser.set_look(1280, 900, "light")


def check_unreachable(browser, daemon, directory):
    """The daemon ends, which is told; it comes back, which is seen, with a gap where it was away."""
    browser.run("scrollTo(0, 0)")
    daemon.end()
    await_true("a banner", lambda: browser.is_shown("#banner"))
    check(re.search(r"cannot be reached|does not answer", browser.text("#lost")), f"told: {browser.text('#lost')}")
    check(browser.text("#state") == "no answer", f"the state is {browser.text('#state')}")
    await_true("a gap in the charts", lambda: browser.count(".hatch") >= 6)
    if directory:
        browser.set_look(1280, 900, "light")
        browser.picture(os.path.join(directory, "page-unreachable.png"))


def check_back(browser, daemon):
    daemon.ask("/template-details?id=1")
    browser.run("document.getElementById('retry').click()")  # the page may have found it by itself
    await_true("no banner", lambda: not browser.is_shown("#banner"))
    check_state(browser)
    await_true("new seconds in the charts", lambda: browser.count(".dot") >= 5)
    check(browser.count(".hatch") >= 6, "the gap is forgotten")


def check_console(browser, allowed=()):
    """No message but those that are allowed, and no exception."""
    messages = [entry["message"] for entry in browser.log("browser")]
    others = [text for text in messages if not any(re.search(pattern, text) for pattern in allowed)]
    check(not others, f"the console says {others}")
    check(browser.run("return window.wrong") == [], f"exceptions: {browser.run('return window.wrong')}")


def check_hosts(browser, daemon):
    """Nobody but the daemon was asked anything."""
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # Not those of the browser's own start page.
    urls = {params["request"]["url"] for params in sent if params["documentURL"].startswith(daemon.url)}
    asked = {url for url in urls if not url.startswith("data:")}
    check(daemon.url + "/history" in asked, "the log of requests has none of /history")
    others = [url for url in asked if not url.startswith(daemon.url + "/")]
    check(not others, f"others were asked: {others}")


def look(stack, program, scratch, directory):
    daemon = Daemon(stack, program, scratch)
    browser = Browser(stack, scratch)
    browser.set_look(1280, 900, "light")
    load = Load(daemon)
    stack.callback(load.end)
    browser.send("/url", {"url": daemon.url + "/"})
    check_state(browser)
    check_charts(browser)
    check_keyboard(browser)
    check_stampede(browser)
    check_console(browser)
    check_looks(browser, directory)
    check_refusals(browser, daemon)
    check_console(browser, [r"/stampede.* 409 "])
    load.end()
    check_unreachable(browser, daemon, directory)
    again = Daemon(stack, program, scratch, daemon.port)
    check_back(browser, again)
    check_console(browser, [r"net::ERR_CONNECTION_REFUSED|net::ERR_CONNECTION_RESET|net::ERR_EMPTY_RESPONSE| 503 "])
    check_hosts(browser, daemon)
    again.end()


def main():
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        look(stack, sys.argv[1], scratch, sys.argv[2] if len(sys.argv) > 2 else None)
    print(f"the live page shows what the daemon answers: {CALLERS} callers, light and dark, gone and back")


main()
