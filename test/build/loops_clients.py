"""Clients of docs/examples/loops/epoll_sqlite, for test/build/loops.sh.

    loops_clients.py CLIENTS PROGRAM...    PROGRAM... is the server, with what is to run it before it

The database is made slow by locking it: the workers' queries wait, for as long as a scenario likes.
"""
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 60
CLIENTS = int(sys.argv[1])


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")

    def send(self, text):
        self.socket.sendall(text.encode())

    def line(self):
        return self.lines.readline().rstrip("\n")

    def ask(self, key):
        self.send(key + "\n")
        return self.line()

    def close(self):
        self.lines.close()
        self.socket.close()


class Server:
    def __init__(self, directory, deadline_ms):
        self.path = os.path.join(directory, "socket")
        self.database = os.path.join(directory, "pairs.db")
        self.process = subprocess.Popen(sys.argv[2:] + [self.path, self.database, str(deadline_ms)])
        until(self.listens, "the server listens")
        self.watcher = self.client()

    def listens(self):
        """Its file may be there a moment before that."""
        try:
            self.client().close()
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def client(self):
        return Client(self.path)

    def clients(self, count=CLIENTS):
        return [self.client() for _ in range(count)]

    def figures(self):
        return {name: int(number) for name, number in (pair.split("=") for pair in self.watcher.ask("").split())}

    def await_figures(self, **wanted):
        until(lambda: wanted.items() <= self.figures().items(), f"{wanted}, not {self.figures()}")

    def sockets(self):
        directory = f"/proc/{self.process.pid}/fd"
        return sum(os.readlink(f"{directory}/{fd}").startswith("socket:") for fd in os.listdir(directory))

    @contextlib.contextmanager
    def locked(self):
        lock = sqlite3.connect(self.database, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        yield
        lock.execute("ROLLBACK")
        lock.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        is_equal(self.process.wait(PATIENCE), 0, "the exit status")


def until(condition, what):
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            sys.exit(f"this does not come about: {what}")
        time.sleep(0.005)


def is_equal(is_, should_be, what):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r}, not {should_be!r}")


def name_of(user):
    return f"ok name of user {user}"


def all_who_want_one_cold_key_share_one_query(server):
    clients, before = server.clients(), server.figures()["queries"]
    with server.locked():
        for client in clients:
            client.send("user:1\n")
        server.await_figures(waiting=CLIENTS)
    for client in clients:
        is_equal(client.line(), name_of(1), "the answer")
        is_equal(client.ask("user:1"), name_of(1), "the answer of a hit")
        client.close()
    is_equal(server.figures()["queries"], before + 1, "queries")


def cold_keys_take_a_query_each(server):
    clients, before = server.clients(), server.figures()["queries"]
    keys = [100 + i % 50 for i in range(CLIENTS)]
    for client, key in zip(clients, keys):
        client.send(f"user:{key}\n")
    for client, key in zip(clients, keys):
        is_equal(client.line(), name_of(key), "the answer")
        client.close()
    is_equal(server.figures()["queries"], before + len(set(keys)), "queries")


def what_is_not_there_is_asked_for_once(server):
    client, before = server.client(), server.figures()["queries"]
    is_equal(client.ask("nobody"), "none", "the answer")
    is_equal(client.ask("nobody"), "none", "the answer that is remembered")
    client.close()
    is_equal(server.figures()["queries"], before + 1, "queries")


def who_leaves_disturbs_nobody(server):
    clients, before = server.clients(), server.figures()
    leaving = CLIENTS * 3 // 4
    with server.locked():
        for client in clients:
            client.send("user:200\n")
        server.await_figures(waiting=CLIENTS)
        for client in clients[:leaving]:
            client.close()
        server.await_figures(waiting=CLIENTS - leaving, left=before["left"] + leaving)
    for client in clients[leaving:]:
        is_equal(client.line(), name_of(200), "the answer")
        client.close()
    is_equal(server.figures()["queries"], before["queries"] + 1, "queries")


def the_query_of_those_who_all_left_is_kept(server):
    before = server.figures()
    with server.locked():
        for client in server.clients(3):
            client.send("user:201\n")
            server.await_figures(waiting=1)
            client.close()
            server.await_figures(waiting=0)
    server.await_figures(fetching=0)
    client = server.client()
    is_equal(client.ask("user:201"), name_of(201), "the answer")
    client.close()
    after = server.figures()
    is_equal(after["queries"], before["queries"] + 1, "queries")
    is_equal(after["hits"], before["hits"] + 1, "hits")


def a_client_that_sends_before_it_reads_is_answered_in_order(server):
    client, users = server.client(), [1000 + i % 300 for i in range(20000)]
    sender = threading.Thread(target=client.send, args=["".join(f"user:{user}\n" for user in users)])
    sender.start()
    is_equal([client.line() for _ in users], [name_of(user) for user in users], "the answers")
    sender.join()
    client.close()


def lines_come_in_pieces_and_end_with_the_client(server):
    client = server.client()
    for piece in "use", "r:", "7\nuser:8\nus":
        client.send(piece)
        time.sleep(0.01)
    is_equal(client.line(), name_of(7), "the answer")
    is_equal(client.line(), name_of(8), "the answer")
    client.send("er:9\n")
    client.socket.shutdown(socket.SHUT_WR)
    is_equal(client.lines.read(), name_of(9) + "\n", "all that is left")
    client.close()
    client = server.client()
    client.send("x" * 512)
    is_equal(client.lines.read(), "", "the answer to a line that is too long")
    client.close()


def no_descriptor_is_left(server):
    until(lambda: server.sockets() == 2, "there are two sockets: one that listens, and the watcher's")


def a_deadline_ends_the_wait_and_not_the_query(server):
    clients = server.clients(20)
    with server.locked():
        for client in clients:
            client.send("user:300\n")
        for client in clients:
            is_equal(client.line(), "error the caller's deadline has passed", "the answer")
    server.await_figures(fetching=0, late=20)
    for client in clients:
        is_equal(client.ask("user:300"), name_of(300), "the answer")
        client.close()
    is_equal(server.figures()["queries"], 1, "queries")


def who_waits_at_the_end_is_told(server):
    clients = server.clients()
    with server.locked():
        for client in clients:
            client.send("user:301\n")
        server.await_figures(waiting=CLIENTS)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not os.path.exists(server.path), "the server has seen the signal")
    answers = {client.lines.read() for client in clients}
    if not answers <= {"error the cache is closed\n", name_of(301) + "\n"}:
        sys.exit(f"at the end {answers}")


def run(deadline_ms, *scenarios):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, deadline_ms)
        try:
            for scenario in scenarios:
                scenario(server)
                print("ok", scenario.__name__, flush=True)
            server.stop()
        finally:
            server.process.kill()


run(
    PATIENCE * 1000,
    all_who_want_one_cold_key_share_one_query,
    cold_keys_take_a_query_each,
    what_is_not_there_is_asked_for_once,
    who_leaves_disturbs_nobody,
    the_query_of_those_who_all_left_is_kept,
    a_client_that_sends_before_it_reads_is_answered_in_order,
    lines_come_in_pieces_and_end_with_the_client,
    no_descriptor_is_left,
)
run(300, a_deadline_ends_the_wait_and_not_the_query, no_descriptor_is_left)
run(PATIENCE * 1000, who_waits_at_the_end_is_told)
