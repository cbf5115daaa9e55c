"""What a client sends by mistake, by Debian's pika: for tests/interop_pika.rs.

Prints one line of JSON for each case: its name, and outcome, error code and number of the reply.
"""

import json
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pika

BROKER, QUEUE = sys.argv[1:3]
LIMIT = 60
MARK = b"\xef\xbb\xbf"
JSON = "application/json"
TEN_MINUTES = 600
NOW = time.time()

connection = pika.BlockingConnection(pika.URLParameters(BROKER))
channel = connection.channel()
channel.confirm_delivery()
replies = channel.queue_declare(queue="", exclusive=True).method.queue
got = {}


def received(_channel, _method, properties, body):
    got[properties.correlation_id] = json.loads(body)


channel.basic_consume(replies, received, auto_ack=True)


def ask(name, command, body=b"", **properties):
    """Sends one command, waits for its reply, prints what it says."""
    identity = str(uuid.uuid4())
    properties = {
        "type": command,
        "message_id": identity,
        "correlation_id": identity,
        "reply_to": replies,
        "timestamp": int(time.time()),
        **properties,
    }
    channel.basic_publish("", QUEUE, body, pika.BasicProperties(**properties), mandatory=True)
    end = time.monotonic() + LIMIT
    while identity not in got and time.monotonic() < end:
        connection.process_data_events(time_limit=0.1)
    reply = got.get(identity, {"outcome": "no reply"})
    code = (reply.get("error") or {}).get("code")
    print(json.dumps({"case": name, "outcome": reply["outcome"], "code": code}), flush=True)


def sign_in(agent):
    ask("connect", f"Connect#{agent}", f"pika-odd,pw-{agent}")
    ask("login", f"Login#{agent}", f"pw-{agent},{agent + 6000}")


ask("hello", "Hello#pika-odd")

# A byte order mark before text, before an object, before an envelope, and in the type.
connect = {"destination": "pika-odd", "password": "pw-1001"}
login = {"type": "\ufeffLogin#1002", "body": {"password": "pw-1002", "extension": "7002"}}
ask("mark before an object", "Connect#1001", MARK + json.dumps(connect).encode(), content_type=JSON)
ask("mark before a text", "Login#1001", MARK + b"pw-1001,7001")
ask("connect", "Connect#1002", "pika-odd,pw-1002")
ask("mark before an envelope", "", MARK + json.dumps(login).encode())
sign_in(1003)
sign_in(1004)

# Bodies that call themselves JSON and are none, or an object that does not.
ask("empty json", "GetState#1001", b"", content_type=JSON)
ask("mark as json", "GetState#1001", MARK, content_type=JSON)
ask("object without its type", "Login#1003", b'{"password":"pw-1003","extension":"7003"}')
ask("number as json", "MakeCall#1001", b"5550101", content_type=JSON)
ask("text as json", "MakeCall#1002", b'"5550102"', content_type=JSON)

# Other encodings.
ask("utf-16", "Login#1003", '{"password":"x","extension":"7003"}'.encode("utf-16"), content_type=JSON)
ask("utf-16 without mark", "Login#1003", "x,7003".encode("utf-16-le"))
ask("latin-1", "Login#1003", "p\xe4ss,7003".encode("latin-1"))
ask("deep", "MakeCall#1003", b"[" * 2000 + b"]" * 2000, content_type=JSON)
ask("huge number", "MakeCall#1003", b'{"number":1e999}', content_type=JSON)

# Ten minutes old, in every unit that clients count in.
OLD = NOW - TEN_MINUTES
for name, unit in [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]:
    ask(f"old {name}", "MakeCall#1003", b"5550666", timestamp=int(OLD * unit))
ask("old with expiration", "MakeCall#1003", b"5550666", timestamp=int(OLD * 1000), expiration="60000")
old = datetime.now(timezone.utc) - timedelta(seconds=TEN_MINUTES)
soon = datetime.now(timezone.utc) + timedelta(seconds=120)
for name, value in [
    ("timestamp", old),
    ("int", int(OLD * 1000)),
    ("text", str(int(OLD * 1000))),
    ("decimal", Decimal("70.5")),
    ("small int", 7),
]:
    ask(f"past deadline as {name}", "MakeCall#1003", b"5550666", headers={"x-deadline": value})

# Young enough by a deadline that says so, however it is written.
ask(
    "deadline as timestamp",
    "MakeCall#1003",
    b"5550103",
    timestamp=int(OLD * 1000),
    headers={"x-deadline": soon},
)
# A client whose clock is a day ahead, one that counts milliseconds, one that sets no time.
for name, stamp in [("ahead", int(NOW) + 86_400), ("ms", int(NOW * 1000)), ("zero", 0)]:
    ask(f"young {name}", "GetState#1003", b"", timestamp=stamp)

# Headers of other types, empty properties.
for value in ["1", "", 1, Decimal("1.0"), False, b"1"]:
    ask(f"attempt {value!r}", "GetState#1003", b"", headers={"x-attempt": value})
ask("attempt and no id", "GetState#1003", b"", message_id="", headers={"x-attempt": "many"})
ask("type in a header", "TextMessage", b"", headers={"JMSType": b"\xef\xbb\xbfGetState#1003 "})
ask("deadline of nothing", "GetState#1003", b"", headers={"x-deadline": {"soon": [None]}})

# The last one: everybody else is served.
ask("after all", "MakeCall#1004", b"5550104")
connection.close()
