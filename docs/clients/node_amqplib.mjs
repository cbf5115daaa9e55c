#!/usr/bin/env node
// A stock AMQP client, without a line of tandem's own code: Node with amqplib.
//
// Signs an agent in, makes it ready, makes a call, and prints replies and events. Where a broker is
// lost it goes on at the next of its list.
//
//     npm install amqplib
//     node node_amqplib.mjs [--broker amqp://guest:guest@127.0.0.1:5672/%2f,amqp://…] [--agent 1001]
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
    broker: { type: "string", default: "amqp://guest:guest@127.0.0.1:5672/%2f" }, // or several
    queue: { type: "string", default: "Connector1" }, // command queue
    cluster: { type: "string", default: "tandem" }, // cluster.name of the connectors
    destination: { type: "string", default: `node-${randomUUID().slice(0, 8)}` },
    agent: { type: "string", default: "1001" },
    password: { type: "string" }, // default: pw-<agent>, as the simulator has it
    extension: { type: "string", default: "7001" },
    call: { type: "string", default: "5550142" }, // number to call
    timeout: { type: "string", default: "10" }, // seconds to wait for a reply
    pause: { type: "string", default: "0" }, // milliseconds between two commands
    seconds: { type: "string", default: "5" }, // print events this long at the end
  },
});
const password = given.password ?? `pw-${given.agent}`;

const sleep = (millis) => new Promise((resolve) => setTimeout(resolve, millis));
const brokers = given.broker.split(",");
let next = 0;
let link; // connection, channel, queue, lost: resolves when the connection is gone
const replies = new Map();

// At the next broker of the list, for ever.
async function connect() {
  for (; ; next++) {
    const broker = brokers[next % brokers.length];
    try {
      link = await open(broker);
      console.log("connected to", broker.split("@").pop());
      return;
    } catch (error) {
      console.log("no connection:", error.message);
      await sleep(200);
    }
  }
}

async function open(broker) {
  const connection = await amqp.connect(`${broker}?heartbeat=2`, { timeout: 3000 });
  const lost = new Promise((resolve) => {
    connection.on("error", () => {});
    connection.on("close", resolve);
  });
  // With confirms the broker says when it has a command: from then on it gets an answer.
  const channel = await connection.createConfirmChannel();
  channel.on("error", () => {});
  channel.on("return", (message) => console.log("no queue", message.fields.routingKey));
  // One queue of our own for events and replies alike, named by the broker, so anew at each
  // connection: events by our destination; replies by its name, directly from this broker or through
  // the exchange where another one answers.
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, `${given.cluster}.events`, given.destination);
  await channel.bindQueue(queue, `${given.cluster}.replies`, queue);
  await channel.consume(queue, received, { noAck: true });
  return { connection, channel, queue, lost };
}

function received(message) {
  if (message === null) return;
  const text = message.content.toString();
  const body = JSON.parse(text);
  if (body.type === "Reply") {
    console.log("reply", text);
    replies.get(message.properties.correlationId)?.(body);
  } else {
    console.log("event", text);
  }
}

// Sends one command and waits for its reply. True where it was done or accepted. The same id in every
// attempt makes sure that nothing is done twice.
async function send(command, to, args) {
  const id = randomUUID();
  const answered = new Promise((resolve) => replies.set(id, resolve));
  const late = sleep(Number(given.timeout) * 1000).then(() => "late");
  const named = typeof args === "object";
  for (let attempt = 1, reply; reply !== "late"; attempt++) {
    console.log(`send  ${command}#${to} attempt ${attempt}`);
    const { channel, lost, queue } = link;
    try {
      channel.publish("", given.queue, Buffer.from(named ? JSON.stringify(args) : args), {
        type: `${command}#${to}`,
        messageId: id,
        correlationId: id,
        replyTo: queue,
        timestamp: Math.floor(Date.now() / 1000),
        headers: { "x-attempt": attempt },
        persistent: true,
        mandatory: true, // a return instead of silence where there is no such queue
        ...(named ? { contentType: "application/json" } : {}),
      });
      await Promise.race([channel.waitForConfirms(), lost, late]);
      // As long as the connection lasts the reply comes to this queue.
      reply = await Promise.race([answered, late, lost.then(() => "lost")]);
    } catch (error) {
      console.log("not confirmed:", error.message);
      reply = await Promise.race([late, sleep(1).then(() => "lost")]);
    }
    if (reply !== "lost" && reply !== "late") return ["OK", "ACCEPTED"].includes(reply.outcome);
    if (reply === "lost") {
      next++;
      await connect();
    }
  }
  console.log(`no reply to ${command}#${to}`);
  return false;
}

await connect();
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
  await sleep(Number(given.pause));
}
await sleep(Number(given.seconds) * 1000);
await link.connection.close().catch(() => {});
process.exit(done ? 0 : 1);
