#!/usr/bin/env python3
"""A client's server for events that the HTTP entrance posts: checks the signature and whether an
event came before. Standard library only.

    python3 docs/clients/callback_receiver.py --key-file /run/secrets/tandem-callback-sign-key --port 8113

It prints one line an event: `taken ID DESTINATION`, `again ID`, or `refused` and why.
"""

import argparse
import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# An older signature is no proof any more: somebody may have kept the request.
TOLERANCE_S = 300
MAX_BODY = 1024 * 1024
# A client that says no more keeps its thread for so long.
SILENCE_S = 30
REMEMBERED = 10_000
# Signatures of the last minutes; where more came the oldest are forgotten.
SIGNATURES = 100_000


def number(text: str) -> int | None:
    """A number of ASCII digits only, and not of thousands of them."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def proof(key: bytes, header: str, body: bytes, now: float) -> tuple[str | None, bytes]:
    """Why a request is not believed, None where it is; and the signature that it must have."""
    parts = [part.split("=", 1) for part in header.split(",") if "=" in part]
    times = [value for name, value in parts if name.strip() == "t"]
    made = number(times[0]) if len(times) == 1 else None
    if made is None:
        return "it is not signed", b""
    if abs(now - made) > TOLERANCE_S:
        return "its signature is too old, or the clocks differ", b""
    wanted = hmac.new(key, times[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    # Bytes: of texts only ASCII may be compared.
    given = [value.encode("utf-8", "replace") for name, value in parts if name.strip() == "v1"]
    if not any(hmac.compare_digest(wanted, one) for one in given):
        return "its signature is wrong", b""
    return None, wanted


class Seen:
    """What was dealt with. The headers are not signed: a request that somebody has kept and sends
    under another Idempotency-Key is known by its signature. So are two events of the same text and
    second; the entrance signs the later one anew when it tries again."""

    def __init__(self):
        self.lock = threading.Lock()
        self.events: "OrderedDict[str, None]" = OrderedDict()
        self.signed: "OrderedDict[bytes, float]" = OrderedDict()

    def judged(self, event: str, signature: bytes, now: float) -> str:
        with self.lock:
            # A signature may be from a clock that is ahead: good for twice as long.
            while self.signed and next(iter(self.signed.values())) < now - 2 * TOLERANCE_S:
                self.signed.popitem(last=False)
            if event in self.events:
                return "again"
            if signature in self.signed:
                return "refused"
            self.events[event] = None
            self.signed[signature] = now
            if len(self.events) > REMEMBERED:
                self.events.popitem(last=False)
            if len(self.signed) > SIGNATURES:
                self.signed.popitem(last=False)
            return "taken"


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key = b""
    seen = Seen()
    timeout = SILENCE_S

    def do_POST(self):
        length = number(self.headers.get("Content-Length", "0").strip())
        if length is None:
            return self.answer(400)
        if length > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)
        if len(body) < length:
            return self.answer(400)
        header = self.headers.get("X-Tandem-Signature", "")
        now = time.time()
        why, signature = proof(self.key, header, body, now)
        if why:
            print("refused", why, flush=True)
            # The entrance tries again, until the event is too old: a wrong key loses nothing.
            return self.answer(401)
        event = self.headers.get("Idempotency-Key", "")
        known = self.seen.judged(event, signature, now)
        if known == "refused":
            print("refused its signature came before", flush=True)
            return self.answer(401)
        if known == "again":
            print("again", event, flush=True)
            return self.answer(204)
        # Here the event is dealt with; only what was dealt with is answered 2xx.
        print("taken", event, self.headers.get("X-Destination", ""), flush=True)
        return self.answer(204)

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status in (400, 413):
            # Its body was not read, so what follows it is no request.
            self.close_connection = True
            self.send_header("Connection", "close")
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
