"""A stand-in for a container engine: it continues a stop whose client was killed.

::

    container_engine.py serve SOCKET SECONDS COMMAND …   run COMMAND; a stop of it takes SECONDS
    container_engine.py start SOCKET                     as its client; nothing if it runs
    container_engine.py stop SOCKET                      as its client; ends when it has stopped
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time


def main() -> None:
    """Run as the one or the other."""
    verb, path, *more = sys.argv[1:]
    if verb == "serve":
        seconds, *command = more
        _serve(path, float(seconds), command)
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
        end.sendall(verb.encode())
        end.recv(100)


def _serve(path: str, seconds: float, command: list[str]) -> None:
    container = [subprocess.Popen(command)]

    def answer(client: socket.socket) -> None:
        with client:
            verb = client.recv(100).decode()
            if verb == "start" and container[0].poll() is not None:
                container[0] = subprocess.Popen(command)
            if verb == "stop":
                time.sleep(seconds)
                container[0].terminate()
                container[0].wait()
            client.sendall(b"done")

    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - the agent's user is a client
        server.listen()
        while True:
            threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()


if __name__ == "__main__":
    main()
