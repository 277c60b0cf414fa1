// Runs one JavaScript answer of the demo model for the evaluation: JSON in, JSON out.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");

const { code, calls } = JSON.parse(fs.readFileSync(0, "utf8"));
const draws = [];
const math = Object.fromEntries(Object.getOwnPropertyNames(Math).map((name) => [name, Math[name]]));
math.random = () => (draws.length > 1 ? draws.shift() : draws.length ? draws[0] : 0.5);

function run() {
  const module = { exports: {} };
  const scope = vm.createContext({ module, exports: module.exports, Math: math });
  vm.runInContext(code, scope, { timeout: 1000 });
  const names = Object.keys(module.exports);
  if (!calls) return { names, timeline: module.exports.timeline };
  const results = calls.map(({ args, random }) => {
    draws.splice(0, draws.length, ...(random || []));
    scope.given = args;
    return vm.runInContext(`module.exports[${JSON.stringify(names[0])}](...given)`, scope, { timeout: 1000 });
  });
  return { names, results };
}

let report;
try {
  report = run();
} catch (error) {
  const line = /vm\.js|evalmachine.*?:(\d+)/.exec(String(error.stack).split("\n")[0]);
  const where = error.name === "SyntaxError" && line ? `line ${line[1]}: Parsing error: ${error.message}` : `${error.name}: ${error.message}`;
  report = { error: where };
}
process.stdout.write(JSON.stringify(report));
