"""The template service as a process of a test's own, and its clients: for service_http.py and service_faults.py."""
import collections
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 60
Answer = collections.namedtuple("Answer", "status headers body")
TEXTS = {"name": "a name", "subject": "a subject", "body": "a body"}


def until(condition, what, patience=PATIENCE):
    give_up = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > give_up:
            sys.exit(f"this does not come about: {what}")
        time.sleep(0.005)
    return result


def is_equal(is_, should_be, what):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r}, not {should_be!r}")


def is_true(condition, what):
    if not condition:
        sys.exit(f"not so: {what}")


def read_answer(connection, method):
    response = connection.getresponse()
    body = response.read()
    is_true(method != "HEAD" or body == b"", "the answer to HEAD has no body")
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class Client(http.client.HTTPConnection):
    """One connection, which is kept."""

    def __init__(self, port):
        super().__init__("127.0.0.1", port, timeout=PATIENCE)
        self.connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_request(self, method, path, body=None, headers={}):
        self.method = method
        self.request(method, path, body, headers)

    def answer(self):
        return read_answer(self, self.method)

    def ask(self, method, path, body=None, headers={}):
        self.send_request(method, path, body, headers)
        return self.answer()


def template(id_):
    return f"/template-details?id={id_}"


def parse_metrics(text):
    """Each sample by its name and labels, as they are written."""
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.M)}


class Daemon:
    def __init__(self, command, *options, database=None):
        self.directory = tempfile.TemporaryDirectory()
        self.database = database or os.path.join(self.directory.name, "templates.db")
        self.log_path = os.path.join(self.directory.name, "log")
        log = open(self.log_path, "w")
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--db", self.database, *map(str, options)], stdin=subprocess.DEVNULL, stderr=log)
        log.close()
        self.port = until(self.listens, "the daemon listens")

    def listens(self):
        found = re.search(r"listening on http://.*:(\d+)/", self.log())
        is_true(found or self.process.poll() is None, f"the daemon runs: {self.log()}")
        return found and int(found[1])

    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def client(self):
        return Client(self.port)

    def ask(self, method, path, body=None, headers={}):
        client = self.client()
        answer = client.ask(method, path, body, headers)
        client.close()
        return answer

    def get(self, id_):
        return self.ask("GET", template(id_))

    def put(self, id_, **texts):
        return self.ask("PUT", template(id_), json.dumps({**TEXTS, **texts}))

    def raw(self, data=b""):
        stream = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        stream.sendall(data)
        return stream

    def at_once(self, *ids):
        """So many callers, each with a connection of his own; their answers."""
        clients = [self.client() for _ in ids]
        for client, id_ in zip(clients, ids):
            client.send_request("GET", template(id_))
        answers = [client.answer() for client in clients]
        for client in clients:
            client.close()
        return answers

    def metrics(self):
        return parse_metrics(self.ask("GET", "/metrics").body.decode())

    def queries(self):
        return int(self.metrics()["db_hits_total"])

    def flights(self):
        return json.loads(self.ask("GET", "/flights").body)

    def await_flights(self, count, **wanted):
        def they_are():
            flights = [flight for flight in self.flights() if not flight["superseded"]]
            return len(flights) == count and all(wanted.items() <= flight.items() for flight in flights)
        until(they_are, f"{count} flights, {wanted}")

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def refuses(self):
        try:
            self.raw().close()
            return False
        except ConnectionRefusedError:
            return True

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def ends(self, within=PATIENCE):
        try:
            is_equal(self.process.wait(within), 0, "the exit status")
        except subprocess.TimeoutExpired:
            sys.exit(f"the daemon has not ended after {within} s")

    def stop(self):
        self.terminate()
        self.ends()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.log(), file=sys.stderr)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.directory.cleanup()
