// Runs inside a sandbox: loads `main.js`, calls one function that it exports, and reports each result as a line of
// JSON. The same protocol as call_python.py: only arguments come in here, what they should give stays outside.
"use strict";

const fs = require("node:fs");

const [name, callsFile] = process.argv.slice(2);
const report = Number(process.env.LUMINA_RESULTS);
delete process.env.LUMINA_RESULTS;
const calls = JSON.parse(fs.readFileSync(callsFile, "utf8"));
const { stringify, parse } = JSON;
const write = fs.writeSync;

function say(line) {
  write(report, line + "\n");
}

function strict(key, value) {
  if (value === undefined || typeof value === "function" || typeof value === "symbol") {
    throw new TypeError(`it returned ${key === "" ? "" : "something with "}${String(typeof value)}, which is not JSON`);
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`it returned ${value}, which is not JSON`);
  }
  return value;
}

function explain(error) {
  const said = error instanceof Error ? `${error.name}: ${error.message}` : `threw ${String(error)}`;
  const at = error instanceof Error && /\/code\/main\.js:(\d+)/.exec(String(error.stack));
  return (at ? `${said} (line ${at[1]})` : said).slice(0, 1000);
}

// The request named no function: the exported one is meant, of several the first.
function anyFunction(exported) {
  if (typeof exported === "function") return exported;
  return Object.values(exported ?? {}).find((value) => typeof value === "function");
}

let failed = false;
function fail(call, turn, error) {
  if (!failed) {
    const lines = error instanceof Error ? String(error.stack).split("\n") : [explain(error)];
    process.stderr.write(lines.filter((line) => !/^\s+at /.test(line) || line.includes("/code/main.js")).join("\n") + "\n");
  }
  failed = true;
  say(stringify({ call, turn, error: explain(error) }));
}

async function main() {
  let called;
  try {
    const exported = require("/code/main.js");
    called = name === "-" ? anyFunction(exported) : exported[name];
    if (typeof called !== "function" && name === "-") {
      throw new TypeError("main.js does not export a function; end it with module.exports = { NAME };");
    }
    if (typeof called !== "function") {
      throw new TypeError(`main.js does not export a function ${name}; end it with module.exports = { ${name} };`);
    }
  } catch (error) {
    fail(-1, 0, error);
    process.exit(1);
  }
  for (let call = 0; call < calls.length; call += 1) {
    for (let turn = 0; turn < calls[call].repeat; turn += 1) {
      try {
        const value = await called(...parse(calls[call].arguments));
        say(`{"call": ${call}, "turn": ${turn}, "value": ${stringify(value, strict)}}`);
      } catch (error) {
        fail(call, turn, error);
      }
    }
  }
  process.exit(failed ? 1 : 0);
}

main();
