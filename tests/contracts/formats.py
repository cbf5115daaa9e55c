"""The contracts of docs/api by the validators of their formats, and the golden events by the
schemas. Run by scripts/contracts; the argument is the project's folder."""

import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

root = Path(sys.argv[1])
api = root / "docs/api"


def read(name):
    return json.loads((api / name).read_text())


for name in ["openapi.json", "entrance.openapi.json"]:
    document = read(name)
    OpenAPIV31SpecValidator(document).validate()
    for shape in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(shape)
    print(f"{name}: OpenAPI 3.1, {len(document['paths'])} paths")

for name in ["commands.schema.json", "replies.schema.json", "events.schema.json"]:
    document = read(name)
    Draft202012Validator.check_schema(document)
    print(f"{name}: JSON Schema 2020-12, {len(document.get('$defs', {}))} definitions")

events = Draft202012Validator(read("events.schema.json"))
count = 0
golden = [line.split(" json ", 1) for line in (root / "tests/data/events.golden").read_text().splitlines()]
bodies = [parts[1] for parts in golden if len(parts) == 2 and parts[1] != "(none)"]
bodies += [line for line in (root / "tests/data/reference.golden").read_text().splitlines() if line.startswith("{")]
for body in bodies:
    event = json.loads(body)
    # The original prints this one without the array that it is told in.
    if isinstance(event, dict) and event["type"] == "QueueStats":
        event = [event]
    events.validate(event)
    count += 1
assert count > 50, count
for wrong in [{}, {"type": "System", "status": "MAYBE"}, {"type": "Fly", "agentId": "1001"}]:
    assert not events.is_valid(wrong), wrong
print(f"{count} golden events fit events.schema.json")

commands = Draft202012Validator(read("commands.schema.json"))
for good in [
    {"type": "MakeReady#1001", "body": ""},
    {"type": "MakeReady#1001"},
    {"type": "MakeCall#1001", "body": {"number": "5550142"}},
    {"data": {"type": "Connect#1001", "body": {"dest": "desk-1", "password": "secret"}}},
]:
    commands.validate(good)
for wrong in [
    {"type": "Fly#1001"},
    {"type": "MakeReady"},
    {"type": "MakeCall#1001", "body": {"nummer": "5550142"}},
    {"type": "MakeCall#1001", "body": {"number": " "}},
    {"type": "Connect#1001", "body": {"dest": "desk-1", "destination": "desk-1", "password": "secret"}},
]:
    assert not commands.is_valid(wrong), wrong
print("commands.schema.json takes what is right and refuses what is wrong")

reply = Draft202012Validator(read("replies.schema.json"))
sample = (root / "docs/protocol.md").read_text().split("```json\n", 1)[1].split("\n```", 1)[0]
reply.validate(json.loads(sample))
print("the reply of docs/protocol.md fits replies.schema.json")
