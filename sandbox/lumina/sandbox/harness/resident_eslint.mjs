// Runs inside a sandbox and stays: reads programs with ESLint, one after the other, without starting it each time.
// The protocol of resident_pylint.py. What it answers is what `eslint --format json` would print, and its exit code.
import fs from "node:fs";
import readline from "node:readline";
import { ESLint } from "eslint";

const results = Number(process.env.LUMINA_RESULTS);
delete process.env.LUMINA_RESULTS;

const eslint = new ESLint({
  cwd: "/code",
  overrideConfigFile: "/lumina/eslint.config.mjs",
  allowInlineConfig: false,
});

function say(answer) {
  let left = Buffer.from(`${JSON.stringify(answer)}\n`);
  while (left.length > 0) left = left.subarray(fs.writeSync(results, left));
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    const read = await eslint.lintText(JSON.parse(line).code, { filePath: "main.js", warnIgnored: true });
    const failed = read.some((file) => file.errorCount > 0);
    say({ exit_code: failed ? 1 : 0, stdout: JSON.stringify(read), stderr: "" });
  } catch (error) {
    say({ exit_code: 2, stdout: "", stderr: String(error?.stack ?? error) });
  }
}
