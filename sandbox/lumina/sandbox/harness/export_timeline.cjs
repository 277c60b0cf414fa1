// Runs inside a sandbox: loads `main.js` and reports the timeline that it exports, which has to be plain data. It is
// played in another sandbox, by play_timeline.cjs, where nothing of the program is left but this data.
"use strict";

const fs = require("node:fs");

const report = Number(process.env.LUMINA_RESULTS);
delete process.env.LUMINA_RESULTS;
const { stringify } = JSON;
const write = fs.writeSync;

function plain(value, path) {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError(`${path} is ${value}, not a finite number`);
    return value;
  }
  if (Array.isArray(value)) return value.map((each, index) => plain(each, `${path}[${index}]`));
  if (typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, each]) => each !== undefined)
        .map(([key, each]) => [key, plain(each, `${path}.${key}`)]),
    );
  }
  throw new TypeError(`${path} is a ${typeof value}; a timeline is plain data`);
}

try {
  const { timeline } = require("/code/main.js");
  if (timeline === undefined) {
    throw new TypeError("main.js does not export a timeline; end it with module.exports = { timeline };");
  }
  write(report, stringify({ timeline: plain(timeline, "timeline") }) + "\n");
} catch (error) {
  const isError = error instanceof Error;
  const lines = isError ? String(error.stack).split("\n") : [String(error)];
  process.stderr.write(lines.filter((line) => !/^\s+at /.test(line) || line.includes("/code/main.js")).join("\n") + "\n");
  const said = isError ? `${error.name}: ${error.message}` : `threw ${String(error)}`;
  write(report, stringify({ error: said.slice(0, 1000) }) + "\n");
  process.exit(1);
}
process.exit(0);
