#!/usr/bin/env python3
"""A stock AMQP client, without a line of tandem's own code.

Signs an agent in, makes it ready, makes a call, and prints replies and events. Where a broker is
lost it goes on at the next of its list.

    pip install pika
    python3 python_pika.py [--broker amqp://guest:guest@127.0.0.1:5672/%2f,amqp://…] [--agent 1001]
        [--password pw-1001] [--extension 7001] [--call 5550142] [--seconds 5]

Exit code 0: every command was done or accepted; 1: one was not, or had no reply in time.
"""

import argparse
import json
import sys
import time
import uuid

import pika
import pika.exceptions

DONE = ("OK", "ACCEPTED")


def arguments():
    parser = argparse.ArgumentParser(description="Sign an agent in and make a call.")
    parser.add_argument("--broker", default="amqp://guest:guest@127.0.0.1:5672/%2f",
                        help="one, or several with commas between them: the order of preference")
    parser.add_argument("--queue", default="Connector1", help="command queue")
    parser.add_argument("--cluster", default="tandem", help="cluster.name of the connectors")
    parser.add_argument("--destination", default=f"pika-{uuid.uuid4().hex[:8]}")
    parser.add_argument("--agent", default="1001")
    parser.add_argument("--password", help="default: pw-<agent>, as the simulator has it")
    parser.add_argument("--extension", default="7001")
    parser.add_argument("--call", default="5550142", help="number to call")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for a reply")
    parser.add_argument("--pause", type=float, default=0, help="seconds between two commands")
    parser.add_argument("--seconds", type=float, default=5, help="print events this long at the end")
    given = parser.parse_args()
    given.password = given.password or f"pw-{given.agent}"
    return given


class Client:
    """One connection at a time, one queue for events and replies alike."""

    def __init__(self, given):
        self.given = given
        self.brokers = given.broker.split(",")
        self.next = 0
        self.replies = {}
        self.connect()

    def connect(self):
        """At the next broker of the list, for ever."""
        while True:
            broker = self.brokers[self.next % len(self.brokers)]
            try:
                self.open(broker)
                print("connected to", broker.rsplit("@", 1)[-1], flush=True)
                return
            except (pika.exceptions.AMQPError, OSError) as error:
                print(f"no connection: {error!r}", flush=True)
                self.next += 1
                time.sleep(0.2)

    def open(self, broker):
        parameters = pika.URLParameters(broker)
        parameters.heartbeat = 2
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        # An event queue of our own, bound with our destination, and named by the broker: so anew at
        # each connection. Replies come to it too, by its name: directly from this broker, or through
        # the exchange where the command was answered from the other one.
        self.queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        events, replies = f"{self.given.cluster}.events", f"{self.given.cluster}.replies"
        self.channel.queue_bind(self.queue, events, routing_key=self.given.destination)
        self.channel.queue_bind(self.queue, replies, routing_key=self.queue)
        self.channel.basic_consume(self.queue, self.received, auto_ack=True)
        # The broker says when it has a command: from then on it gets an answer.
        self.channel.confirm_delivery()

    def received(self, _channel, _method, properties, body):
        message = json.loads(body)
        if message.get("type") == "Reply":
            self.replies[properties.correlation_id] = message
            print("reply", body.decode(), flush=True)
        else:
            print("event", body.decode(), flush=True)

    def send(self, command, to, body=""):
        """Sends one command and waits for its reply. True where it was done or accepted."""
        # The same id in every attempt makes sure that nothing is done twice.
        identity = str(uuid.uuid4())
        end = time.monotonic() + self.given.timeout
        attempt = 0
        while time.monotonic() < end:
            attempt += 1
            print(f"send  {command}#{to} attempt {attempt}", flush=True)
            try:
                self.publish(f"{command}#{to}", identity, body, attempt)
                # As long as the connection lasts the reply comes to this queue.
                while identity not in self.replies and time.monotonic() < end:
                    self.connection.process_data_events(time_limit=0.1)
                if identity in self.replies:
                    return self.replies[identity]["outcome"] in DONE
            except pika.exceptions.UnroutableError:
                print(f"no queue {self.given.queue}", file=sys.stderr)
                return False
            except (pika.exceptions.AMQPError, OSError) as error:
                print(f"not confirmed: {error!r}", flush=True)
                self.next += 1
                self.connect()
        print(f"no reply to {command}", file=sys.stderr)
        return False

    def publish(self, kind, identity, body, attempt):
        properties = pika.BasicProperties(
            type=kind,
            message_id=identity,
            correlation_id=identity,
            reply_to=self.queue,
            timestamp=int(time.time()),
            headers={"x-attempt": attempt},
            delivery_mode=2,
        )
        # mandatory: an error instead of silence where there is no such queue.
        self.channel.basic_publish("", self.given.queue, body, properties, mandatory=True)

    def listen(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.connection.process_data_events(time_limit=min(left, 0.1))
            except (pika.exceptions.AMQPError, OSError):
                self.next += 1
                self.connect()


def main():
    given = arguments()
    client = Client(given)
    steps = [
        ("Hello", given.destination, ""),
        ("Connect", given.agent, f"{given.destination},{given.password}"),
        ("Login", given.agent, f"{given.password},{given.extension}"),
        ("MakeReady", given.agent, ""),
        ("MakeCall", given.agent, given.call),
    ]
    done = True
    for command, to, body in steps:
        done = done and client.send(command, to, body)
        client.listen(given.pause)
    client.listen(given.seconds)
    client.connection.close()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
