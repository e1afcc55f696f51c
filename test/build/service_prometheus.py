"""Requests to the template service, and what Prometheus makes of them, for test/build/service_prometheus.sh.

    service_prometheus.py SERVICE EXAMPLE SCRATCH    EXAMPLE has prometheus.yml and grafana-dashboard.json
"""
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

SERVICE, EXAMPLE, SCRATCH = sys.argv[1:]
PATIENCE, RANGE, SCRAPES_BEFORE, WORKERS = 30, 10, 4, 8
DELAY_MS, STAMPEDE, HITS = 400, 6, 100


def until(what, name):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"this does not come about: {name}")


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read().decode()


class Program:
    """A process whose log is a file; ended by its own id."""

    def __init__(self, name, listens, *command):
        self.name = name
        self.path = os.path.join(SCRATCH, name + ".log")
        with open(self.path, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.listens = listens

    def address(self):
        """host:port, once it has said where it listens."""
        return until(self.said, f"{self.name} listens")

    def said(self):
        with open(self.path) as log:
            text = log.read()
        if self.process.poll() is not None:
            sys.exit(f"{self.name} has ended:\n{text}")
        found = re.search(self.listens, text)
        return found and found.group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        status = self.process.wait(PATIENCE)
        if status:
            print(f"{self.name} has ended with {status}")


def configuration(target):
    """prometheus.yml, with this daemon's address, and scraped each second."""
    with open(os.path.join(EXAMPLE, "prometheus.yml")) as file:
        text = file.read()
    for old, new in (("127.0.0.1:8080", target), ("scrape_interval: 5s", "scrape_interval: 1s")):
        if text.count(old) != 1:
            sys.exit(f"prometheus.yml: not once {old}")
        text = text.replace(old, new)
    path = os.path.join(SCRATCH, "prometheus.yml")
    with open(path, "w") as file:
        file.write(text)
    return path


def start_prometheus(target):
    # On port 0 it does not say which one it has got: a port is tried that was free a moment ago.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    return Program("prometheus", f"({address})", "prometheus", f"--config.file={configuration(target)}",
                   f"--storage.tsdb.path={SCRATCH}/data", f"--web.listen-address={address}")


def query(prometheus, expression, at=None):
    """A list of (labels, number), none of which is NaN or infinite."""
    arguments = {"query": expression}
    if at is not None:
        arguments["time"] = at
    answer = json.loads(get(f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode(arguments)}"))
    return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]


def expressions():
    """{title of a panel: [(legend, expression)]} of the dashboard, variables filled in as Grafana does."""
    with open(os.path.join(EXAMPLE, "grafana-dashboard.json")) as file:
        dashboard = json.load(file)
    found = {}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in (("$__rate_interval", f"{RANGE}s"), ("$job", "template-service"), ("$instance", ".*")):
                text = text.replace(name, value)
            if "$" in text:
                sys.exit(f"an unknown variable: {text}")
            found.setdefault(panel["title"], []).append((target["legendFormat"], text))
    return found


def ask(service, first):
    """STAMPEDE clients for one cold template and as many for another, then HITS hits, then one that is not there."""
    url = f"{service}template-details?id="
    with ThreadPoolExecutor(2 * STAMPEDE) as clients:
        bodies = list(clients.map(lambda i: get(url + str(first + i % 2)), range(2 * STAMPEDE)))
    for i in range(HITS):
        bodies.append(get(url + str(first + i % 2)))
    queries = {(body["id"], body["query"]) for body in map(json.loads, bodies)}
    if len(queries) != 2:
        sys.exit(f"not 2 queries: {queries}")


def counters(service):
    rows = (line.split(" ") for line in get(service + "metrics").splitlines() if line[0] != "#" and line.count(" ") == 1)
    return {name: float(number) for name, number in rows}


def check_metrics(service):
    text = get(service + "metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"promtool check metrics: {done.stdout}{done.stderr}")


def last_scrape(prometheus):
    job = '{job="template-service"}'
    is_up = query(prometheus, f"up{job} == 1")
    rows = query(prometheus, f"timestamp(up{job})")
    return rows[0][1] if is_up and rows else 0


def near(name, number, least, most):
    print(f"{name}: {number:g}, from {least:g} to {most:g} expected")
    if not (math.isfinite(number) and least <= number <= most):
        sys.exit("that is wrong")


def check_totals(prometheus, before):
    """What Prometheus has stored, beside what was done."""
    wanted = {
        'http_request_total{path="/template-details",method="GET",status="200"}': 2 * STAMPEDE + HITS,
        "db_hits_total": 2,
        "cache_misses_total": 2 * STAMPEDE,
        "singleflight_shared_total": 2 * STAMPEDE - 2,
        "cache_hits_total": HITS,
    }
    for name, growth in wanted.items():
        rows = query(prometheus, name)
        if len(rows) != 1:
            sys.exit(f"{name}: {rows}")
        near(f"growth of {name}", rows[0][1] - before.get(name, 0), growth, growth)


def check_panels(prometheus, began, ended):
    """A rate over RANGE seconds that hold all that was done, times RANGE, is what was done or somewhat more: rate()
    takes the growth between the samples of the range, of which there are SCRAPES_BEFORE and more, for that of a time
    that is longer by up to a second at each end."""
    at = ended + 0.2
    if began < at - RANGE + 1:
        sys.exit("the machine is too slow: the requests do not lie within one range")
    done = {
        "Requests a second": [2 * STAMPEDE + HITS],
        "Hits and misses": [HITS, 2 * STAMPEDE],
        "Queries of the database": [2],
        "Shared calls": [2 * STAMPEDE - 2],
    }
    panels = expressions()
    if len(panels) != 6:
        sys.exit(f"not six panels: {list(panels)}")
    for title, targets in panels.items():
        for number, (legend, expression) in enumerate(targets):
            rows = [value for _, value in query(prometheus, expression, at)]
            name = f"{title}, {legend}"
            if len(rows) != 1:
                sys.exit(f"{name}: {expression}: {rows}")
            if title in done:
                wanted = done[title][number]
                near(name, rows[0] * RANGE, 0.95 * wanted, wanted * (SCRAPES_BEFORE + 2.4) / SCRAPES_BEFORE)
            elif title == "In flight":
                near(name, rows[0], 1, 2)
            else: # a tenth of the requests waited for DELAY_MS: in the bucket of 0.2 to 0.5, on a machine at rest
                near(name, rows[0], 0.2, 2)


def run(service, prometheus):
    until(lambda: last_scrape(prometheus), "Prometheus has scraped the daemon")
    before = counters(service)
    enough = last_scrape(prometheus) + SCRAPES_BEFORE - 0.5
    until(lambda: last_scrape(prometheus) > enough, "it has done so some more times")
    began = time.time()
    ask(service, 100)
    finished = time.time()
    until(lambda: last_scrape(prometheus) > finished, "what was done has been scraped")
    ended = last_scrape(prometheus)
    check_totals(prometheus, before)
    check_panels(prometheus, began, ended)


def main():
    with Program("service", "listening on (.*)", SERVICE, "--port", "0", "--db", f"{SCRATCH}/templates.db",
                 "--query-delay-ms", str(DELAY_MS), "--workers", str(WORKERS)) as daemon:
        service = daemon.address()
        check_metrics(service)
        get(service + "template-details?id=1")
        check_metrics(service)
        with start_prometheus(service.split("/")[2]) as server:
            prometheus = server.address()
            until(lambda: is_ready(prometheus), "Prometheus is ready")
            run(service, prometheus)


def is_ready(prometheus):
    try:
        return get(f"http://{prometheus}/-/ready")
    except OSError:
        return None


main()
