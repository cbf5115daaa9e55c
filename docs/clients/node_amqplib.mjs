#!/usr/bin/env node
// A stock AMQP client, without a line of tandem's own code: Node with amqplib.
//
// Signs an agent in, makes it ready, makes a call, and prints replies and events.
//
//     npm install amqplib
//     node node_amqplib.mjs [--broker amqp://guest:guest@127.0.0.1:5672/%2f] [--agent 1001]
//         [--password pw-1001] [--extension 7001] [--call 5550142] [--seconds 5]
//
// Exit code 0: every command was done or accepted; 1: one was not, or had no reply in time.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { createRequire } from "node:module";

// Found beside this file, or in the folder that the command is run in.
const amqp = createRequire(`${process.cwd()}/`)("amqplib");

const { values: given } = parseArgs({
  options: {
    broker: { type: "string", default: "amqp://guest:guest@127.0.0.1:5672/%2f" },
    queue: { type: "string", default: "Connector1" }, // command queue
    cluster: { type: "string", default: "tandem" }, // cluster.name of the connectors
    destination: { type: "string", default: `node-${randomUUID().slice(0, 8)}` },
    agent: { type: "string", default: "1001" },
    password: { type: "string" }, // default: pw-<agent>, as the simulator has it
    extension: { type: "string", default: "7001" },
    call: { type: "string", default: "5550142" }, // number to call
    timeout: { type: "string", default: "10" }, // seconds to wait for a reply
    seconds: { type: "string", default: "5" }, // print events this long at the end
  },
});
const password = given.password ?? `pw-${given.agent}`;

const connection = await amqp.connect(given.broker);
// With confirms the broker says when it has a command: from then on it gets an answer.
const channel = await connection.createConfirmChannel();
const unroutable = new Set();
channel.on("return", (message) => unroutable.add(message.properties.messageId));
// One queue of our own for events and replies alike: events by our destination; replies by its
// name, directly from this broker or through the exchange where another one answers.
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, `${given.cluster}.events`, given.destination);
await channel.bindQueue(queue, `${given.cluster}.replies`, queue);
const replies = new Map();
await channel.consume(
  queue,
  (message) => {
    if (message === null) return;
    const text = message.content.toString();
    const body = JSON.parse(text);
    if (body.type === "Reply") {
      console.log("reply", text);
      replies.get(message.properties.correlationId)?.(body);
    } else {
      console.log("event", text);
    }
  },
  { noAck: true },
);

// Sends one command and waits for its reply. True where it was done or accepted.
async function send(command, to, args) {
  // The same id in a resend makes sure that nothing is done twice.
  const id = randomUUID();
  const answered = new Promise((resolve) => replies.set(id, resolve));
  console.log(`send  ${command}#${to}`);
  const named = typeof args === "object";
  channel.publish("", given.queue, Buffer.from(named ? JSON.stringify(args) : args), {
    type: `${command}#${to}`,
    messageId: id,
    correlationId: id,
    replyTo: queue,
    timestamp: Math.floor(Date.now() / 1000),
    persistent: true,
    mandatory: true, // a return instead of silence where there is no such queue
    ...(named ? { contentType: "application/json" } : {}),
  });
  await channel.waitForConfirms();
  if (unroutable.has(id)) {
    console.log(`no queue ${given.queue}`);
    return false;
  }
  const late = new Promise((resolve) => setTimeout(resolve, Number(given.timeout) * 1000).unref());
  const reply = await Promise.race([answered, late]);
  replies.delete(id);
  if (reply === undefined) console.log(`no reply to ${command}#${to}`);
  return ["OK", "ACCEPTED"].includes(reply?.outcome);
}

let done = true;
for (const [command, to, args] of [
  ["Hello", given.destination, ""],
  // Arguments as text, or by name.
  ["Connect", given.agent, `${given.destination},${password}`],
  ["Login", given.agent, { password, extension: given.extension }],
  ["MakeReady", given.agent, ""],
  ["MakeCall", given.agent, given.call],
]) {
  done = done && (await send(command, to, args));
}
await new Promise((resolve) => setTimeout(resolve, Number(given.seconds) * 1000));
await connection.close();
process.exit(done ? 0 : 1);
