"""Load for the template service, and what goes wrong meanwhile, for test/build/service_faults.sh.

    service_faults.py ORDERS DONE POSTGRESQL PROGRAM...

What is to be done to PostgreSQL is written to ORDERS, a line for each, and DONE has a line once it is done.
"""
import asyncio
import collections
import json
import os
import random
import resource
import socket
import sys
import time

from service_daemon import TEXTS, Daemon, is_equal, is_true, template, until

orders, done = open(sys.argv[1], "w", 1), open(sys.argv[2])
DATABASE, PROGRAM = "postgresql:///postgres?" + sys.argv[3], sys.argv[4:]

WORKERS, TTL_MS, TIMEOUT_MS, QUERY_TIMEOUT_MS = 16, 300, 4000, 2500
SLACK = 6  # for a machine that is busy
HOT, WRITTEN, FIRST_COLD = range(1, 9), range(11, 16), 1000
COLUMNS = "200", "stale", "404", "503", "504", "none"


def order(what):
    orders.write(what + "\n")
    is_true(done.readline(), f"it was done: {what}")


async def order_now(what):
    await asyncio.to_thread(order, what)


# ---- a client, and what it must not see ----

class Connection:
    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def ask(self, method, path, body=b""):
        """Status, what it was answered from, body."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        answer = await self.reader.readexactly(int(headers["content-length"]))
        return int(head.split(" ", 2)[1]), headers.get("cache-status", ""), answer

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.writer = None


class Fault:
    """What clients see from when it begins until it has passed."""

    def __init__(self, name, server):
        self.name, self.server = name, server
        self.seen, self.longest = collections.Counter(), 0
        self.by_kind = collections.defaultdict(collections.Counter)
        self.queries_before = server.queries()

    async def ask(self, kind, connection, method, path, body=b""):
        began = time.monotonic()
        limit = (TIMEOUT_MS + QUERY_TIMEOUT_MS) / 1000 + SLACK
        try:
            status, source, answer = await asyncio.wait_for(connection.ask(method, path, body), limit)
            what = "stale" if "stale" in source else str(status)
        except asyncio.TimeoutError:
            sys.exit(f"{self.name}: no answer to {method} {path} within {limit} s")
        except (OSError, asyncio.IncompleteReadError):
            connection.close()
            what, answer = "none", b""
        self.longest = max(self.longest, time.monotonic() - began)
        self.seen["200" if what == "201" else what] += 1
        self.by_kind[kind][what] += 1
        return what, answer

    def has_seen(self, kind, *allowed):
        is_true(set(self.by_kind[kind]) <= set(allowed), f"{self.name}: {kind} saw {dict(self.by_kind[kind])}, not only {allowed}")
        is_true(self.by_kind[kind], f"{self.name}: {kind} saw something")

    def report(self, left):
        is_true(set(self.seen) <= set(COLUMNS), f"{self.name}: {dict(self.seen)}")
        row = [self.name, sum(self.seen.values())] + [self.seen[column] for column in COLUMNS]
        row += [self.server.queries() - self.queries_before, round(self.longest * 1000)]
        print("%-30s %8s %8s %6s %5s %5s %5s %5s %8s %7s   " % tuple(row) + left, flush=True)


def report_head():
    print("%-30s %8s %8s %6s %5s %5s %5s %5s %8s %7s   " % ("fault", "requests", *COLUMNS, "queries", "max ms") + "what is left")


class Load:
    """Readers of hot templates and of cold ones; writers, and readers of what they write."""

    def __init__(self, server):
        self.server, self.fault, self.running = server, None, True
        self.cold = FIRST_COLD
        self.acknowledged = collections.defaultdict(int)
        self.tasks = []

    def begin(self, hot=6, cold=3, writers=2, readers=4):
        for task, count in (self.read_hot, hot), (self.read_cold, cold), (self.write, writers), (self.read_written, readers):
            self.tasks += [asyncio.create_task(self.repeat(task)) for _ in range(count)]

    async def repeat(self, task):
        connection = Connection(self.server.port)
        while self.running:
            await task(connection)
            await asyncio.sleep(0.005)
        connection.close()

    async def end(self):
        self.running = False
        await asyncio.gather(*self.tasks)

    async def read_hot(self, connection):
        await self.fault.ask("hot", connection, "GET", template(random.choice(HOT)))

    async def read_cold(self, connection):
        self.cold += 1
        await self.fault.ask("cold", connection, "GET", template(self.cold))
        await asyncio.sleep(0.02)

    async def write(self, connection):
        id_ = random.choice(WRITTEN)
        what, answer = await self.fault.ask("writers", connection, "PUT", template(id_), json.dumps(TEXTS).encode())
        if what in ("200", "201"):
            self.acknowledged[id_] = max(self.acknowledged[id_], json.loads(answer)["version"])

    async def read_written(self, connection):
        """Nothing older than what was acknowledged before the question, whatever it comes from."""
        id_ = random.choice(WRITTEN)
        least = self.acknowledged[id_]
        what, answer = await self.fault.ask("readers", connection, "GET", template(id_))
        if what in ("200", "stale"):
            version = json.loads(answer)["version"]
            is_true(version >= least, f"{self.fault.name}: version {version} of {id_} after {least} was acknowledged")


# ---- what is there when nothing is wrong ----

class Calm:
    """All workers are at work once, so that from then on neither threads nor connections grow."""

    def __init__(self, server):
        self.server = server
        order("lock_table")
        clients = [server.client() for _ in range(WORKERS)]
        for id_, client in enumerate(clients, 900):
            client.send_request("GET", template(id_))
        server.await_flights(WORKERS, state="running")
        order("unlock_table")
        for client in clients:
            is_equal(client.answer().status, 200, "an answer before all faults")
            client.close()
        is_equal(server.put(WRITTEN[0]).status, 200, "a write before all faults")
        for id_ in HOT:
            server.get(id_)
        self.threads, self.descriptors = server.threads(), self.settled_descriptors()

    def settled_descriptors(self):
        """But for the one by which metrics are asked, its connections are closed soon after the client's end."""
        before = -1
        while (now := self.server.descriptors()) != before:
            before = now
            time.sleep(0.2)
        return now

    def is_back(self):
        return self.server.threads() == self.threads and self.server.descriptors() <= self.descriptors

    def left(self):
        until(lambda: not self.server.flights(), "no flights are left", 15)
        until(lambda: self.server.metrics()["http_in_flight_requests"] == 1, "no request is left", 30)
        until(self.is_back, f"{self.threads} threads and {self.descriptors} descriptors: "
              f"{self.server.threads()}, {self.server.descriptors()}", 30)
        return f"{self.server.threads() - self.threads:+} threads, {self.server.descriptors() - self.descriptors:+} fds"


async def under_load(name, server, calm, scenario, **load_options):
    load = Load(server)
    load.fault = fault = Fault(name, server)
    load.cold = under_load.cold
    load.begin(**load_options)
    await scenario(fault, load)
    await load.end()
    under_load.cold = load.cold
    for kind in "hot", "cold", "writers", "readers":
        is_true(not fault.by_kind[kind]["none"], f"{name}: each of {kind} was answered")
    fault.report(await asyncio.to_thread(calm.left))
    is_true(fault.longest < (TIMEOUT_MS + QUERY_TIMEOUT_MS) / 1000 + SLACK, f"{name}: the longest answer")
    return fault


under_load.cold = FIRST_COLD


async def recovers(server):
    """What has failed is remembered for two seconds at most."""
    def is_found():
        under_load.cold += 1
        return server.get(under_load.cold + 5000).status == 200
    await asyncio.to_thread(until, is_found, "a cold template is found again", 20)


# ---- faults ----

async def nothing(fault, load):
    await asyncio.sleep(3)


async def killed(fault, load):
    await asyncio.sleep(1)
    await order_now("kill_server")
    load.fault = while_dead = Fault(fault.name, load.server)
    await asyncio.sleep(2.5)
    load.fault = fault
    while_dead.has_seen("hot", "200", "stale")
    is_true(while_dead.by_kind["hot"]["stale"] > 0, "stale templates were served")
    while_dead.has_seen("cold", "503", "504", "200")  # who asked before
    is_true(while_dead.by_kind["cold"]["503"] > 0, "cold templates failed")
    is_true(while_dead.by_kind["writers"]["503"] > 0, "writes failed that had not been sent")
    is_true(while_dead.by_kind["writers"]["504"] <= 2, "only of writes that had been sent it is unknown whether they were made")
    for kind, seen in while_dead.by_kind.items():
        fault.by_kind[kind] += seen
    fault.seen += while_dead.seen
    fault.longest = max(fault.longest, while_dead.longest)
    await order_now("start_server")
    await recovers(load.server)
    await asyncio.sleep(1)


async def stopped(fault, load):
    await asyncio.sleep(1)
    await order_now("signal_server STOP")
    await asyncio.sleep(10)
    await order_now("signal_server CONT")
    await recovers(load.server)
    await asyncio.sleep(1)


async def slow(fault, load):
    await order_now("slow_down")
    await asyncio.sleep(4)
    await order_now("speed_up")


def misbehave(port):
    """One after the other, each in another way; none of them is answered with 200."""
    some = random.Random(1)
    request = b"GET /template-details?id=1 HTTP/1.1\r\nHost: x\r\n"
    ways = [lambda: some.randbytes(some.randrange(1, 4000)), lambda: b"\r\n" * 500, lambda: request, lambda: request[:some.randrange(1, 30)],
            lambda: request + b"X: " + b"x" * 200000, lambda: request + b"".join(b"X%d: y\r\n" % i for i in range(5000)),
            lambda: b"PUT /template-details?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
            lambda: b"PUT /template-details?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{",
            lambda: b"PUT /template-details?id=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            lambda: b"GET " + b"/" * 100000 + b" HTTP/1.1\r\n\r\n", lambda: b"\x16\x03\x01\x02\x00\x01\x00" * 20]
    for i in range(20 * len(ways)):
        stream = socket.create_connection(("127.0.0.1", port), 10)
        try:
            stream.sendall(ways[i % len(ways)]())
            if i % 3 == 0:
                stream.shutdown(socket.SHUT_WR)
                stream.settimeout(0.1)
                is_true(not stream.recv(100).startswith(b"HTTP/1.1 200"), f"{i} is not taken for a request")
        except OSError:
            pass  # it was closed, as it should
        stream.close()


def leave_in_mid_request(server, id_):
    """Of a hundred who share a query each, half leave, the last of them after the first has been answered."""
    clients = [server.client() for _ in range(50)]
    for i, client in enumerate(clients):
        client.send_request("GET", template(id_ + i % 10))
    for client in clients[::2]:
        client.close()
    for client in clients[1::2]:
        is_equal(client.answer().status, 200, "the answer of who stays")
        client.close()


async def misbehaving(fault, load):
    slow_ones = [socket.create_connection(("127.0.0.1", load.server.port)) for _ in range(100)]
    garbage = asyncio.create_task(asyncio.to_thread(misbehave, load.server.port))
    for byte in b"GET /template-details?id=1 HT":
        for stream in slow_ones:
            stream.send(bytes([byte]))
        await asyncio.sleep(0.08)
    await garbage
    for stream in slow_ones:
        stream.close()


async def leaving(fault, load):
    for i in range(20):
        await asyncio.to_thread(leave_in_mid_request, load.server, 9000 + 10 * i)


async def all_of_them(server, calm):
    await under_load("none", server, calm, nothing)
    fault = await under_load("PUT races GET", server, calm, nothing, hot=0, cold=0, writers=6, readers=12)
    fault.has_seen("writers", "200"), fault.has_seen("readers", "200")
    fault = await under_load("clients send garbage", server, calm, misbehaving)
    for kind in "hot", "cold", "writers", "readers":
        fault.has_seen(kind, "200", "stale")
    fault = await under_load("clients leave in mid-request", server, calm, leaving)
    for kind in "hot", "cold", "writers", "readers":
        fault.has_seen(kind, "200", "stale")
    fault = await under_load("PostgreSQL takes 1 s a query", server, calm, slow, writers=0, readers=0)
    fault.has_seen("hot", "200", "stale"), fault.has_seen("cold", "200", "503", "504")
    fault = await under_load("PostgreSQL is killed, restarted", server, calm, killed)
    fault.has_seen("hot", "200", "stale"), fault.has_seen("writers", "200", "503", "504")
    fault = await under_load("PostgreSQL is stopped for 10 s", server, calm, stopped)
    fault.has_seen("hot", "200", "stale"), fault.has_seen("writers", "200", "503", "504")


# ---- a crowd ----

def crowd(count):
    """As many real connections, all waiting for one cold template."""
    options = "--query-timeout-ms", 60000, "--timeout-ms", 60000, "--workers", 2
    with Daemon(PROGRAM, *options, database=DATABASE) as server:
        server.get(1)
        threads, descriptors = server.threads(), server.descriptors()
        fault = Fault(f"{count} clients, one cold key", server)
        streams = [server.raw() for _ in range(count)]
        order("lock_table")
        began = time.monotonic()
        for stream in streams:
            stream.sendall(f"GET {template(7)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: [flight["waiters"] for flight in server.flights()] == [count], "all of them wait")
        order("unlock_table")
        bodies = set()
        for stream in streams:
            with stream, stream.makefile("rb") as lines:
                status = lines.readline().split()[1].decode()
                length = [int(line[16:]) for line in iter(lines.readline, b"\r\n") if line.startswith(b"Content-Length")]
                bodies.add(lines.read(*length))
                fault.seen[status] += 1
        fault.longest = time.monotonic() - began
        is_equal((dict(fault.seen), len(bodies)), ({"200": count}, 1), "statuses, and different answers")
        is_equal(server.queries(), fault.queries_before + 1, "queries")
        until(lambda: server.descriptors() <= descriptors, f"{descriptors} descriptors are left")
        until(lambda: server.threads() <= threads + 1, "threads")
        fault.report(f"{server.threads() - threads:+} threads, {server.descriptors() - descriptors:+} fds")
        server.stop()


options = ("--workers", WORKERS, "--ttl-ms", TTL_MS, "--timeout-ms", TIMEOUT_MS, "--query-timeout-ms", QUERY_TIMEOUT_MS,
           "--templates", 20000)
with Daemon(PROGRAM, *options, database=DATABASE) as server:
    report_head()
    asyncio.run(all_of_them(server, Calm(server)))
    server.stop()
files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
crowd(10000 if files == resource.RLIM_INFINITY or files > 10200 else files - 200)
