"""A way to run commands on a simulated host over its network, as ssh is one to a real host.

    channel.py serve                     on the host, as its init process: runs what it is asked for
    channel.py connect ADDRESS WORD...   runs the words there; stdin and stdout are theirs

Like ssh it has one TCP connection, whose loss nobody tells: stdin's end is passed on, silence is not.
"""

import json
import os
import select
import signal
import socket
import sys

PORT = 2222
CONNECT_S = 5.0


def serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # init also reaps what others left
    with socket.create_server(("", PORT)) as server:
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run(connection)
            connection.close()


def run(connection: socket.socket) -> None:
    os.setsid()
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)  # no more than the line: the rest is for the command
    words = json.loads(line)
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    os.execvp(words[0], words)


def connect(address: str, words: list) -> None:
    connection = socket.create_connection((address, PORT), timeout=CONNECT_S)
    connection.settimeout(None)
    connection.sendall(json.dumps(words).encode() + b"\n")
    ways = {0: connection.fileno(), connection.fileno(): 1}
    while connection.fileno() in ways:
        for source in select.select(list(ways), [], [])[0]:
            try:
                data = os.read(source, 65536)
            except ConnectionError:
                data = b""
            if data:
                write(ways[source], data)
            else:
                del ways[source]
                if source == 0:
                    connection.shutdown(socket.SHUT_WR)


def write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if sys.argv[1] == "serve":
    serve()
else:
    connect(sys.argv[2], sys.argv[3:])
