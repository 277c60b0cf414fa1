// Follow one run of Lumina from outside, with the standard NATS client for Node.
//
//     lumina credentials consumer reader          # prints the address and the seed file
//     npm ci --ignore-scripts
//     node follow.mjs --url nats://127.0.0.1:4222 --seed .../consumer-reader.nk RUN
//
// Prints one line per event from the start of the run, old ones first, and stops when the run has ended. Every
// record's digest and place in its writer's chain are checked. Exit codes: 0 the run completed, 1 it ended otherwise,
// 2 no connection, 5 the log is damaged, 124 time is up.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";

import { jetstream } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";

const STREAM = "LUMINA_LOG";
const TOLD = ["status", "outcome", "verdict", "rung", "model", "kind", "reason", "detail"];
const CLOSED = "run.closed.v1";

class Damaged extends Error {}

/** Checks digests and chains, as docs/events.md describes them. */
class Chains {
  #heads = new Map();

  check(headers, body) {
    const get = (name) => headers.get(`ce-${name}`);
    const agent = get("source").replace(/^\/lumina\//, "");
    const position = Number(get("luminaposition"));
    const previous = get("luminaprevious");
    const sealed = JSON.stringify({
      id: get("id"),
      type: get("type"),
      stream: get("subject"),
      agent,
      time_ms: Date.parse(get("time")),
      causation: headers.has("ce-causationid") ? get("causationid") : null,
      position,
      previous,
      body: createHash("sha256").update(body).digest("hex"),
      fields: get("luminafields"),
    });
    const digest = createHash("sha256").update(sealed).digest("hex");
    if (digest !== get("luminadigest")) {
      throw new Damaged(`${get("type")} ${get("id")} does not have its digest`);
    }
    const head = this.#heads.get(agent) ?? { position: 0, digest: "0".repeat(64) };
    if (position !== head.position + 1 || previous !== head.digest) {
      throw new Damaged(`${get("type")} ${get("id")} does not follow the record of ${agent} before it`);
    }
    this.#heads.set(agent, { position, digest });
  }
}

/** Return one record in one line. */
function line(message) {
  const get = (name) => message.headers.get(`ce-${name}`);
  const body = message.json();
  const told = TOLD.filter((key) => body[key]).map((key) => `${key}=${body[key]}`);
  const agent = get("source").replace(/^\/lumina\//, "");
  const place = String(message.seq).padStart(6);
  return `${place} ${get("time").slice(11, 23)} ${agent.padEnd(12)} ${get("type").padEnd(26)} ${told.join(" ")}`;
}

/** Print the run's events until it ends and return the exit code. */
async function follow({ url, seed, run, stop }) {
  const connection = await connect({
    servers: url,
    authenticator: nkeyAuthenticator(new TextEncoder().encode(readFileSync(seed, "utf8").trim())),
    inboxPrefix: `_INBOX_${basename(seed, ".nk")}`,
    timeout: 5_000,
  });
  const chains = new Chains();
  try {
    // A consumer of its own, in order and without gaps, on the mirror that external consumers may read.
    const consumer = await jetstream(connection).consumers.get(STREAM, { filter_subjects: `lumina.log.*.${run}.>` });
    const records = await consumer.consume();
    stop.addEventListener("abort", () => records.stop());
    for await (const message of records) {
      chains.check(message.headers, message.data);
      console.log(line(message));
      if (message.headers.get("ce-type") === CLOSED) {
        return message.json().status === "completed" ? 0 : 1;
      }
    }
    return 124;
  } finally {
    await connection.close();
  }
}

const usage = "usage: node follow.mjs --url URL --seed FILE [--timeout-s SECONDS] RUN";

function given() {
  const options = {
    url: { type: "string" },
    seed: { type: "string" },
    "timeout-s": { type: "string", default: "600" },
  };
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (!values.url || !values.seed || positionals.length !== 1) return null;
    return { url: values.url, seed: values.seed, run: positionals[0], timeoutS: Number(values["timeout-s"]) };
  } catch {
    return null;
  }
}

async function main() {
  const wanted = given();
  if (wanted === null) {
    console.error(usage);
    return 2;
  }
  const stop = AbortSignal.timeout(wanted.timeoutS * 1000);
  try {
    const code = await follow({ ...wanted, stop });
    if (code === 124) console.error(`follow: ${wanted.run} did not end within ${wanted.timeoutS} s`);
    return code;
  } catch (error) {
    if (error instanceof Damaged) {
      console.error(`follow: the log is damaged: ${error.message}`);
      return 5;
    }
    console.error(`follow: can't read from ${wanted.url}: ${error.message}`);
    return 2;
  }
}

process.exitCode = await main();
