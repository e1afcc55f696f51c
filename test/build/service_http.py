"""What the template service answers, for test/build/service_http.sh.

    service_http.py SLOWNESS PROGRAM...    PROGRAM... is the daemon, with what is to run it before it

SLOWNESS stretches the times that a database plays to be slow by, for a daemon that runs under something.
"""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import syslog
import tempfile
import time
from http.client import HTTPException

from service_daemon import TEXTS, Client, Daemon, is_equal, is_true, parse_metrics, template, until

SLOWNESS = int(sys.argv[1])
PROGRAM = sys.argv[2:]


def ms(time_ms):
    return time_ms * SLOWNESS


def daemon(*options, **more):
    return Daemon(PROGRAM, *options, **more)


def is_error(answer, status, what):
    is_equal(answer.status, status, what)
    is_equal(list(json.loads(answer.body)), ["error"], f"{what}: what the body has")
    is_equal(answer.headers.get("retry-after"), "1" if status == 503 else None, f"{what}: Retry-After")


def is_template(answer, id_, version, **texts):
    is_equal(answer.status, 200, f"template {id_}")
    is_equal(answer.headers["content-type"], "application/json", "Content-Type")
    found = json.loads(answer.body)
    is_true(found.pop("query") > 0, "the answer says by which query it came")
    if texts:
        is_equal(found, {"id": id_, "version": version, **TEXTS, **texts}, "the template")
    is_equal((found["id"], found["version"]), (id_, version), "id and version")


# ---- one daemon for all of these: nothing is slow ----

def routes_and_methods(server):
    allowed = {"/template-details?id=1": "GET, HEAD, PUT", "/metrics": "GET, HEAD", "/healthz": "GET, HEAD",
               "/flights": "GET, HEAD", "/history": "GET, HEAD", "/": "GET, HEAD", "/stampede?id=1": "POST"}
    client = server.client()
    for path, methods in allowed.items():
        for method in "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "NONSENSE":
            answer = client.ask(method, path)
            if method not in methods:
                is_equal((answer.status, answer.headers.get("allow")), (405, methods), f"{method} {path}")
            elif method in ("GET", "HEAD"):
                is_equal(answer.status, 200, f"{method} {path}")
                is_true(int(answer.headers["content-length"]) > 0, "the answer to HEAD says how long it would be")
    for path in "/nowhere", "/template-details/", "//", "/metrics/x", "/Healthz":
        is_error(client.ask("GET", path), 404, path)
    is_equal(client.ask("GET", "/healthz").body, b'{"status":"ok"}\n', "health")
    is_equal(json.loads(client.ask("GET", "/flights").body), [], "flights")
    is_true("seconds" in json.loads(client.ask("GET", "/history").body), "there is a history")
    is_true(b"<html" in client.ask("GET", "/").body.lower(), "there is a page")
    client.close()


def a_template_is_a_miss_and_then_a_hit(server):
    client, before = server.client(), server.queries()
    first, second = client.ask("GET", template(7)), client.ask("GET", template(7))
    is_template(first, 7, 1)
    is_equal(second.body, first.body, "the second answer")
    is_equal(first.headers["cache-status"], "libaside; fwd=miss", "the first Cache-Status")
    is_equal(second.headers["cache-status"], "libaside; hit", "the second Cache-Status")
    head = client.ask("HEAD", template(7))
    is_equal((head.status, head.headers["content-length"]), (200, str(len(first.body))), "HEAD")
    is_equal(server.queries(), before + 1, "queries")
    client.close()


def ids_are_read_with_care(server):
    client = server.client()
    good = {"7": 7, "%37": 7, "007": 7, "7&x=y": 7, "7&id=8": 7, "1000": 1000}
    for text, id_ in good.items():
        is_template(client.ask("GET", template(text)), id_, 1)
    is_template(client.ask("GET", "/template%2Ddetails?id=7"), 7, 1)
    is_template(client.ask("GET", "/template-details?x=1&id=7"), 7, 1)
    bad = ["", "0", "-1", "%2B1", "+1", "%207", "7%20", "7x", "x7", "1.5", "0x7", "1e3", "7%00", "7%008", "%D9%A7", "7,8",
           "9223372036854775808", "18446744073709551623", "9" * 5000, "&id=7"]
    for text in bad:
        is_error(client.ask("GET", template(text)), 400, f"id={text[:40]}")
        is_error(client.ask("PUT", template(text), json.dumps(TEXTS)), 400, f"PUT id={text[:40]}")
    is_error(client.ask("GET", "/template-details"), 400, "no id")
    is_error(client.ask("GET", template("9223372036854775807")), 404, "the greatest id")
    client.close()
    answer = server.ask("GET", template("9" * 100000))
    is_true(answer.status in (413, 414, 431), f"a request line that is too long: {answer.status}")


def that_there_is_none_is_remembered_until_it_is_put(server):
    before = server.queries()
    for _ in range(5):
        is_error(server.get(5000), 404, "a template that is not there")
    is_equal(server.queries(), before + 1, "queries")
    created = server.put(5000, name="first")
    is_equal((created.status, json.loads(created.body)), (201, {"id": 5000, "version": 1}), "PUT of a new one")
    is_template(server.get(5000), 5000, 1, name="first")
    replaced = server.put(5000, name="second \u00fc \U0001f600 \"\\\n")
    is_equal((replaced.status, json.loads(replaced.body)), (200, {"id": 5000, "version": 2}), "PUT of an old one")
    is_template(server.get(5000), 5000, 2, name="second \u00fc \U0001f600 \"\\\n")
    is_equal(server.queries(), before + 3, "queries")


def bodies_that_are_no_template(server):
    client = server.client()
    whole = json.dumps(TEXTS)
    extra, twice = json.dumps({**TEXTS, "id": 1}), whole[:-1] + ',"name":"again"}'
    bad = [b"", b" ", b"{", b"[]", b"7", b"null", b'"x"', b"{}", extra, twice, whole + "x", whole[:-1], b"\xff" + whole.encode(),
           whole.replace("a name", "\\u0000"), whole.replace('"a name"', "7"), whole.replace("a name", "\xff").encode("latin-1"),
           whole.replace("a name", "\\ud800"), "[" * 60000, '{"a\\"b":1}', '{"%s":1}' % ("\u00fc" * 30), '"' + "\u20ac" * 90,
           json.dumps({**TEXTS, "\"quoted\"": 1}), whole.replace("name", "Name")]
    for body in bad:
        data = body.encode() if isinstance(body, str) else body
        is_error(client.ask("PUT", template(6000), data), 400, f"PUT of {data[:60]}")
    is_error(client.ask("GET", template(6000)), 404, "what was refused")
    client.close()


def bodies_are_of_64_kib_at_most(server):
    def body(size):
        empty = json.dumps({**TEXTS, "body": ""})
        return empty.replace('"body": ""', '"body": "%s"' % ("x" * (size - len(empty))))
    client = server.client()
    is_equal(client.ask("PUT", template(6001), body(65536)).status, 201, "PUT of 64 KiB")
    is_error(client.ask("PUT", template(6001), body(65537)), 413, "PUT of a byte more")
    is_error(client.ask("PUT", template(6001), body(1 << 20)), 413, "PUT of a MiB")
    chunks = (piece.encode() for piece in re.findall(".{1,999}", body(60000)))
    is_equal(client.ask("PUT", template(6001), chunks).status, 200, "PUT in chunks")
    is_equal(len(json.loads(client.ask("GET", template(6001)).body)["body"]) > 59000, True, "what was put")
    client.close()


def connections_are_kept_and_closed_as_asked(server):
    client = server.client()
    for id_ in range(1, 51):
        is_true(client.ask("GET", template(id_)).headers.get("connection") != "close", "the connection is kept")
    is_equal(client.ask("GET", template(1), headers={"Connection": "close"}).headers["connection"].lower(), "close",
             "Connection")
    client.close()
    stream = server.raw(b"GET /template-details?id=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                        b"GET /nowhere HTTP/1.0\r\n\r\n")
    whole = stream.makefile("rb").read()
    is_equal(re.findall(rb"HTTP/1\.\d (\d+)", whole), [b"200", b"200", b"404"], "answers to requests sent at once")
    stream.close()


def grown(server, before, names):
    after = server.metrics()
    return {name: int(after[name] - before[name]) for name in names}


def metrics_have_their_names(server):
    for _ in range(2):
        server.get(100), server.get(7000)
    server.ask("DELETE", "/nowhere"), server.ask("GET", "/x/y")
    answer = server.ask("GET", "/metrics")
    is_equal(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8", "Content-Type")
    text = answer.body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    wanted = {"http_request_total": "counter", "http_request_duration_seconds": "histogram",
              "http_in_flight_requests": "gauge", "cache_hits_total": "counter", "cache_misses_total": "counter",
              "db_hits_total": "counter", "singleflight_shared_total": "counter", "aside_hits_total": "counter",
              "aside_entries": "gauge"}
    is_equal({name: kinds.get(name) for name in wanted}, wanted, "kinds of metrics")
    until(lambda: server.metrics()["http_in_flight_requests"] == 1, "those before are counted")
    before = server.metrics()
    for name in ('http_request_total{path="/template-details",method="GET",status="404"}',
                 'http_request_total{path="other",method="other",status="404"}', 'aside_hits_total{cache="templates"}'):
        is_true(before.get(name, 0) > 0, f"{name} is counted")
    server.get(100), server.get(101), server.get(7000)
    details = 'http_request_total{path="/template-details",method="GET",status="%d"}'
    wanted = {details % 200: 2, details % 404: 1, "cache_hits_total": 2, "cache_misses_total": 1, "db_hits_total": 1}
    # A request is counted when its answer has been sent: the client may be faster.
    until(lambda: grown(server, before, wanted) == wanted, f"{grown(server, before, wanted)}, not {wanted}")
    until(lambda: server.metrics()["http_in_flight_requests"] == 1, "this request alone is in flight")
    after = server.metrics()
    histogram = 'http_request_duration_seconds_%s{path="/template-details"%s}'
    is_equal(after[histogram % ("bucket", ',le="+Inf"')], after[histogram % ("count", "")], "the last bucket")
    is_true(after[histogram % ("sum", "")] > 0, "requests took some time")
    if shutil.which("promtool"):
        lint = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
        is_equal((lint.returncode, lint.stderr), (0, ""), "promtool")


def one_by_one():
    with daemon() as server:
        for scenario in (routes_and_methods, a_template_is_a_miss_and_then_a_hit, ids_are_read_with_care,
                         that_there_is_none_is_remembered_until_it_is_put, bodies_that_are_no_template,
                         bodies_are_of_64_kib_at_most, connections_are_kept_and_closed_as_asked, metrics_have_their_names):
            scenario(server)
            print("ok", scenario.__name__, flush=True)
        until(lambda: server.metrics()["http_in_flight_requests"] == 1, "no request is left")
        server.stop()


# ---- each with a daemon of its own ----

def who_misses_together_shares_one_query():
    with daemon("--query-delay-ms", ms(400)) as server:
        answers = server.at_once(*[7] * 10)
        is_equal(len({answer.body for answer in answers}), 1, "different answers")
        is_equal(sorted(answer.headers["cache-status"] for answer in answers),
                 ["libaside; fwd=miss"] + ["libaside; fwd=miss; collapsed"] * 9, "Cache-Status")
        metrics = server.metrics()
        is_equal((metrics["db_hits_total"], metrics["singleflight_shared_total"]), (1, 9), "queries, shared")
        server.stop()


def without_singleflight_each_miss_is_a_query():
    with daemon("--no-singleflight", "--query-delay-ms", ms(400), "--workers", 10) as server:
        for answer in server.at_once(*[7] * 10):
            is_template(answer, 7, 1)
        is_equal(server.queries(), 10, "queries")
        is_equal(server.get(7).headers["cache-status"], "libaside; hit", "Cache-Status")
        is_equal(server.queries(), 10, "queries after a hit")
        metrics = server.metrics()
        is_equal((metrics["cache_hits_total"], metrics["cache_misses_total"]), (1, 10), "hits and misses")
        server.stop()


def without_a_cache_each_request_is_a_query():
    with daemon("--no-cache") as server:
        for i in range(3):
            is_template(server.get(7), 7, 1)
            is_equal(server.queries(), i + 1, "queries")
        is_equal(server.metrics()["cache_hits_total"], 0, "hits")
        is_error(server.get(5000), 404, "what is not there")
        is_equal(server.put(5000).status, 201, "PUT")
        is_template(server.get(5000), 5000, 1)
        server.stop()


def without_a_reaper_it_serves_as_well():
    with daemon("--reaper-interval-ms", 0, "--ttl-ms", 50) as without, daemon("--ttl-ms", 50) as reaped:
        is_equal(without.threads(), reaped.threads() - 1, "threads without a reaper")
        for server in without, reaped:
            is_template(server.get(7), 7, 1)
            time.sleep(0.1)
            is_equal(server.get(7).headers["cache-status"], "libaside; fwd=miss", "Cache-Status past the ttl")
            is_equal(server.queries(), 2, "queries")
            server.stop()


def templates_change_by_themselves():
    with daemon("--change-every-ms", 20, "--ttl-ms", 10) as server:
        until(lambda: json.loads(server.get(7).body)["version"] > 3, "the template changes")
        server.stop()


def a_deadline_is_one_callers_alone():
    with daemon("--timeout-ms", ms(600), "--query-delay-ms", ms(1200), "--query-timeout-ms", 60000) as server:
        early, late = server.client(), server.client()
        early.send_request("GET", template(7))
        began = time.monotonic()
        is_error(early.answer(), 504, "who came first")
        is_true(time.monotonic() - began < ms(1200) / 1000, "the answer came before the query's end")
        time.sleep(max(0, began + ms(900) / 1000 - time.monotonic()))
        late.send_request("GET", template(7))
        is_template(late.answer(), 7, 1)
        is_equal(early.ask("GET", template(7)).headers["cache-status"], "libaside; hit", "Cache-Status of the next")
        is_equal(server.queries(), 1, "queries")
        server.stop()


def who_leaves_disturbs_nobody():
    with daemon("--query-delay-ms", ms(800)) as server:
        leaves, stays = server.client(), server.client()
        for count, client in enumerate((leaves, stays), 1):
            client.send_request("GET", template(7))
            server.await_flights(1, waiters=count)
        leaves.close()
        server.await_flights(1, waiters=1)
        is_template(stays.answer(), 7, 1)
        alone = server.client()
        alone.send_request("GET", template(8))
        server.await_flights(1, waiters=1)
        alone.close()
        server.await_flights(0)
        is_equal(server.get(8).headers["cache-status"], "libaside; hit", "the query of who left alone was kept")
        left = 'http_request_total{path="/template-details",method="GET",status="499"}'
        until(lambda: server.metrics().get(left) == 2, "those who left are counted")
        until(lambda: server.metrics()["http_in_flight_requests"] == 1, "no request is left")
        is_equal(server.queries(), 2, "queries")
        server.stop()


def past_a_queue_requests_are_shed():
    with daemon("--workers", 1, "--max-waiting", 1, "--query-delay-ms", ms(400)) as server:
        first = server.client()
        first.send_request("GET", template(1))
        server.await_flights(1, state="running")
        answers = server.at_once(*range(2, 7))
        is_equal(sorted(answer.status for answer in answers), [200] + [503] * 4, "statuses")
        is_template(first.answer(), 1, 1)
        for answer in answers:
            is_true(answer.status == 200 or answer.headers["retry-after"] == "1", "Retry-After")
        is_template(server.get(6), 6, 1)
        server.stop()


def stampedes():
    with daemon("--query-delay-ms", ms(100), "--workers", 50) as server:
        for bad in "id=7", "id=7&callers=0", "id=7&callers=2001", "id=x&callers=7", "callers=7":
            is_error(server.ask("POST", f"/stampede?{bad}"), 400, bad)
        first, leaves = server.client(), server.client()
        first.send_request("POST", "/stampede?id=7&callers=100")
        server.await_flights(1)
        is_error(server.ask("POST", "/stampede?id=8&callers=100"), 409, "a second stampede")
        report = json.loads(first.answer().body)
        is_equal((report["protected"]["queries"], report["protected"]["joined"]), (1, 99), "with protection")
        is_equal((report["unprotected"]["queries"], report["unprotected"]["failed"]), (100, 0), "without")
        leaves.send_request("POST", "/stampede?id=9&callers=10")
        server.await_flights(1)
        leaves.close()
        until(lambda: server.metrics()["http_in_flight_requests"] == 1, "the stampede of who left has ended")
        is_template(server.get(9), 9, 1)
        server.stop()


# ---- the end ----

def what_is_under_way_is_answered_at_the_end():
    with daemon("--query-delay-ms", ms(1000)) as server:
        kept, clients = server.client(), [server.client() for _ in range(5)]
        for id_, client in enumerate(clients, 1):
            client.send_request("GET", template(id_))
        server.await_flights(5)
        server.terminate()
        until(server.refuses, "no new connections")
        is_error(kept.ask("GET", "/healthz"), 503, "health at the end")
        for id_, client in enumerate(clients, 1):
            answer = client.answer()
            is_template(answer, id_, 1)
            is_equal(answer.headers["connection"].lower(), "close", "Connection")
        server.ends()


def a_query_that_does_not_end_is_not_waited_for():
    """A request that comes by a connection that was kept, while all is taken down, is refused."""
    with daemon("--query-delay-ms", 100000, "--drain-ms", 200, "--timeout-ms", 100000) as server:
        waits, stampede, puts, gets = (server.client() for _ in range(4))
        waits.send_request("GET", template(7))
        server.await_flights(1)
        stampede.send_request("POST", "/stampede?id=8&callers=20")
        server.await_flights(2)
        began = time.monotonic()
        server.terminate()
        until(server.refuses, "no new connections")
        time.sleep(0.6)
        for client, method in (puts, "PUT"), (gets, "GET"):
            try:
                is_error(client.ask(method, template(9), json.dumps(TEXTS)), 503, "who comes late")
            except (OSError, HTTPException):
                pass  # it may have ended
        is_error(waits.answer(), 503, "who waits for the query")
        is_equal(json.loads(stampede.answer().body)["protected"]["failed"], 20, "the stampede's failures")
        server.ends()
        is_true(time.monotonic() - began < 5 * SLOWNESS, "it ended in time")


def writes_that_wait_are_refused_at_the_end():
    with daemon("--drain-ms", 200, "--query-timeout-ms", ms(1000), "--timeout-ms", 100000) as server:
        lock = sqlite3.connect(server.database, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        clients = [server.client() for _ in range(10)]
        for client in clients:
            client.send_request("PUT", template(7), json.dumps(TEXTS))
        until(lambda: server.metrics()["http_in_flight_requests"] == 11, "all of them wait")
        began = time.monotonic()
        server.terminate()
        statuses = sorted(client.answer().status for client in clients)
        is_equal(statuses[:8], [503] * 8, "writes that had not begun")
        server.ends()
        is_true(time.monotonic() - began < 5 * SLOWNESS, "it ended in time")
        lock.execute("ROLLBACK")
        is_equal(lock.execute("SELECT version FROM templates WHERE id = 7").fetchone(), (1,), "the version")
        lock.close()


def requests_that_come_all_the_time_do_not_keep_it():
    """The socket that listens goes away under load, which has been a race."""
    for _ in range(1 if SLOWNESS > 1 else 5):
        with daemon() as server:
            clients = [server.client() for _ in range(4)]
            for client in clients:
                client.ask("GET", template(7))
            server.terminate()
            try:
                while True:
                    server.raw(b"GET /healthz HTTP/1.0\r\n\r\n").close()
                    for client in clients:
                        client.ask("GET", template(7))
            except (OSError, HTTPException):
                pass
            server.ends()


# ---- as a daemon ----

def adopt_orphans():
    PR_SET_CHILD_SUBREAPER = 36
    is_equal(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1), 0, "prctl")


def in_the_background():
    adopt_orphans()
    with tempfile.TemporaryDirectory() as directory:
        pid_file, log_path = os.path.join(directory, "pid"), os.path.join(directory, "log")
        command = [*PROGRAM, "--db", os.path.join(directory, "templates.db"), "--port", "0", "--daemonize", "--pid-file",
                   pid_file, "--reaper-interval-ms", "50", "--ttl-ms", "100", "--stale-if-error-ms", "0"]
        with open(log_path, "w") as log:
            is_equal(subprocess.run(command, stderr=log, timeout=60).returncode, 0, "the exit status of who started it")
        with open(pid_file) as file:
            pid = int(file.read())
        try:
            serves_in_the_background(log_path, pid)
            again = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
            is_equal(again.returncode, 1, "the exit status of a second one")
            is_true("another process has it" in again.stderr, f"it says why: {again.stderr}")
            os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
            pid = None
            is_equal(status, 0, "its exit status")
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
        is_true(not os.path.exists(pid_file), "the pid file is removed")


def serves_in_the_background(log_path, pid):
    """Without waiting for it: who started it has. The cache's threads are made anew after the fork."""
    with open(log_path) as log:
        client = Client(int(re.search(r"listening on .*:(\d+)/", log.read())[1]))
    is_template(client.ask("GET", template(7)), 7, 1)
    def entries():
        return parse_metrics(client.ask("GET", "/metrics").body.decode())['aside_entries{cache="templates"}']
    until(lambda: entries() == 0, "the reaper takes what has expired")
    client.close()
    is_equal(os.getsid(pid), pid, "its session")
    is_equal(os.readlink(f"/proc/{pid}/fd/0"), "/dev/null", "its standard input")


def run_to_the_end(*options):
    return subprocess.run([*PROGRAM, *options], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def options():
    for word in "--help", "--version":
        done = run_to_the_end(word)
        is_equal((done.returncode, done.stdout != ""), (0, True), word)
    names = set(re.findall(r"--[a-z-]+", run_to_the_end("--help").stdout))
    is_true({"--port", "--db", "--no-cache", "--no-singleflight", "--pid-file", "--drain-ms"} <= names, "--help names them")
    for bad in (["--port", "65536"], ["--port", "x"], ["--port", ""], ["--port"], ["--bogus"], ["-x"], ["stray"],
                ["--timeout-ms", "0"], ["--workers", "0"], ["--ttl-ms", "1ms"], ["--ttl-ms", "99999999999999999999"]):
        done = run_to_the_end(*bad)
        is_equal((done.returncode, done.stdout, done.stderr != ""), (64, "", True), f"{bad}")


def what_keeps_it_from_starting():
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as taken:
        database, port = os.path.join(directory, "templates.db"), str(taken.getsockname()[1])
        pid_file = os.path.join(directory, "pid")
        for bad in (["--port", port, "--db", database], ["--address", "nowhere.invalid", "--db", database],
                    ["--port", "0", "--db", os.path.join(directory, "no", "such.db")],
                    ["--port", "0", "--db", "postgresql://%zz"],
                    ["--port", port, "--db", database, "--daemonize", "--pid-file", pid_file]):
            done = run_to_the_end(*bad)
            is_equal((done.returncode, done.stderr != ""), (1, True), f"{bad}: {done.stderr}")
        until(lambda: not os.path.exists(pid_file), "the pid file is removed")


def what_it_says_goes_to_syslog():
    """Under its name, as a daemon's; nothing to standard error."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "syslog")
        open(path, "w").close()
        environment = {**os.environ, "LD_PRELOAD": os.environ["SYSLOG_TO_FILE"], "SYSLOG_FILE": path}
        def said():
            with open(path) as lines:
                return lines.read()
        server = subprocess.Popen([*PROGRAM, "--db", os.path.join(directory, "templates.db"), "--port", "0", "--syslog"],
                                  env=environment, stderr=subprocess.PIPE, text=True)
        until(lambda: "listening on" in said(), "it says where it listens")
        server.terminate()
        _, complaints = server.communicate(timeout=60)
        is_equal((server.returncode, complaints), (0, ""), "its exit status, and what it says to standard error")
        for line in said().splitlines():
            is_true(line.startswith(f"{syslog.LOG_DAEMON >> 3} {syslog.LOG_INFO} template-service "), f"a message: {line}")


def a_service_manager_is_told():
    linked = subprocess.run(["ldd", PROGRAM[-1]], capture_output=True, text=True).stdout
    if "libsystemd" not in linked:
        return
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        os.environ["NOTIFY_SOCKET"] = os.path.join(directory, "notify")
        manager.bind(os.environ["NOTIFY_SOCKET"])
        manager.settimeout(60)
        with daemon() as server:
            is_equal(manager.recv(100), b"READY=1", "what it says at first")
            server.stop()
            is_equal(manager.recv(100), b"STOPPING=1", "what it says at last")
        del os.environ["NOTIFY_SOCKET"]


one_by_one()
for scenario in (who_misses_together_shares_one_query, without_singleflight_each_miss_is_a_query,
                 without_a_cache_each_request_is_a_query, without_a_reaper_it_serves_as_well, templates_change_by_themselves,
                 a_deadline_is_one_callers_alone, who_leaves_disturbs_nobody, past_a_queue_requests_are_shed, stampedes,
                 what_is_under_way_is_answered_at_the_end, a_query_that_does_not_end_is_not_waited_for,
                 writes_that_wait_are_refused_at_the_end, requests_that_come_all_the_time_do_not_keep_it,
                 in_the_background, options, what_keeps_it_from_starting, what_it_says_goes_to_syslog,
                 a_service_manager_is_told):
    if SLOWNESS > 1 and scenario in (options, what_keeps_it_from_starting):
        continue  # many starts, each of them slow
    scenario()
    print("ok", scenario.__name__, flush=True)
