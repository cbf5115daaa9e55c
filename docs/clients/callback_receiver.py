#!/usr/bin/env python3
"""A client's server for events that the HTTP entrance posts: checks the signature and whether an
event came before. Standard library only.

    python3 docs/clients/callback_receiver.py --key-file /run/secrets/tandem-callback-sign-key --port 8113

It prints one line an event: `taken ID DESTINATION`, `again ID`, or `refused` and why.
"""

import argparse
import hashlib
import hmac
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# An older signature is no proof any more: somebody may have kept the request.
TOLERANCE_S = 300
MAX_BODY = 1024 * 1024
REMEMBERED = 10_000


def problem(key: bytes, header: str, body: bytes, now: float) -> str | None:
    """Why a request is not believed; None where it is."""
    parts = [part.split("=", 1) for part in header.split(",") if "=" in part]
    times = [value for name, value in parts if name.strip() == "t"]
    if len(times) != 1 or not times[0].isdigit():
        return "it is not signed"
    if abs(now - int(times[0])) > TOLERANCE_S:
        return "its signature is too old, or the clocks differ"
    wanted = hmac.new(key, times[0].encode() + b"." + body, hashlib.sha256).hexdigest()
    given = [value for name, value in parts if name.strip() == "v1"]
    if not any(hmac.compare_digest(wanted, one) for one in given):
        return "its signature is wrong"
    return None


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key = b""
    seen: "OrderedDict[str, None]" = OrderedDict()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)
        header = self.headers.get("X-Tandem-Signature", "")
        if why := problem(self.key, header, body, time.time()):
            print("refused", why, flush=True)
            # The entrance tries again, until the event is too old: a wrong key loses nothing.
            return self.answer(401)
        event = self.headers.get("Idempotency-Key", "")
        if event in self.seen:
            print("again", event, flush=True)
            return self.answer(204)
        # Here the event is dealt with; only what was dealt with is answered 2xx.
        self.seen[event] = None
        while len(self.seen) > REMEMBERED:
            self.seen.popitem(last=False)
        print("taken", event, self.headers.get("X-Destination", ""), flush=True)
        return self.answer(204)

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--key-file", required=True)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8113)
    given = arguments.parse_args()
    with open(given.key_file, encoding="utf-8") as file:
        Receiver.key = file.read().strip().encode()
    server = ThreadingHTTPServer((given.host, given.port), Receiver)
    print("listening", server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
