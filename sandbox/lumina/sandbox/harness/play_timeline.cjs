// Runs inside a sandbox, alone with data: plays a timeline configuration with the real GSAP and reports what it saw.
//
// GSAP is silent about much of what goes wrong: an unknown ease becomes the default one, a text as duration makes no
// tween, a misspelt position a new label. So names and numbers are checked first. Targets are plain objects that have
// the animated properties: where there is no page, whether values move is what can be seen.
"use strict";

const fs = require("node:fs");
const { gsap } = require("gsap");

const SAMPLES = 60;
const STEPS_MAX = 200;
const SECONDS_MAX = 3600;
const NUMBERS = ["duration", "delay", "repeat", "repeatDelay", "timeScale"];
const FLAGS = ["yoyo", "yoyoEase", "overwrite", "immediateRender", "paused", "reversed", "lazy", "inherit"];
const SETTINGS = new Set([...NUMBERS, ...FLAGS, "ease", "stagger", "id", "keyframes", "startAt", "data"]);
const ONES = new Set(["opacity", "autoAlpha", "alpha", "scale", "scaleX", "scaleY", "scaleZ"]);
const POSITION = /^(?:[<>](?:[+-]?=?\d*\.?\d+%?)?|[+-]=\d*\.?\d+%?|\d*\.?\d+)$/;
const COMPOUND = /^(?:\*|[A-Za-z][\w-]*)?(?:[#.]-?[A-Za-z_][\w-]*|\[[^\]]+\]|::?[a-z-]+(?:\([^)]*\))?)*$/;

const report = Number(process.env.LUMINA_RESULTS);
const problems = [];
const warnings = [];
console.warn = (...words) => warnings.push(words.join(" ").slice(0, 300));

// GSAP registers its `attr` plugin only where there is a window. This one does the same on targets without one.
gsap.registerPlugin({
  name: "attr",
  headless: 1,
  init(target, vars, tween, index, targets) {
    for (const [name, end] of Object.entries(vars)) {
      const start = target.getAttribute(name) ?? "";
      const added = this.add(target, "setAttribute", `${start || 0}`, end, index, targets, 0, 0, name);
      added.op = name;
      this._props.push(name);
    }
  },
});

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

class Target {
  #attributes = {};
  getAttribute(name) {
    return this.#attributes[name] ?? null;
  }
  setAttribute(name, value) {
    this.#attributes[name] = value;
  }
  seen() {
    const attributes = Object.entries(this.#attributes).map(([name, value]) => [`attr.${name}`, value]);
    return Object.fromEntries([...Object.entries(this).filter(([name]) => name !== "_gsap"), ...attributes]);
  }
}

function checkKeys(value, { allowed, place }) {
  for (const key of Object.keys(value)) {
    if (!allowed.includes(key)) problems.push(`${place}: unknown key "${key}"; there are ${allowed.join(", ")}`);
  }
}

function checkSettings(vars, place) {
  for (const name of NUMBERS) {
    if (name in vars && typeof vars[name] !== "number") problems.push(`${place}: ${name} is not a number`);
  }
  for (const name of ["duration", "delay", "repeatDelay"]) {
    if (vars[name] < 0 || vars[name] > SECONDS_MAX) problems.push(`${place}: ${name} ${vars[name]} is out of range`);
  }
  if ("repeat" in vars && !(Number.isInteger(vars.repeat) && vars.repeat >= -1)) {
    problems.push(`${place}: repeat is a whole number from -1`);
  }
  if ("ease" in vars && typeof gsap.parseEase(vars.ease) !== "function") {
    problems.push(`${place}: unknown ease "${vars.ease}"`);
  }
}

function selectors(target, place) {
  const given = Array.isArray(target) ? target : [target];
  const found = [];
  for (const text of given) {
    if (typeof text !== "string" || text.trim() === "") {
      problems.push(`${place}: target is not a selector`);
      continue;
    }
    for (const selector of text.split(",").map((part) => part.trim())) {
      const parts = selector.split(/\s*[>+~]\s*|\s+/);
      if (parts.every((part) => part !== "" && COMPOUND.test(part))) found.push(selector);
      else problems.push(`${place}: "${selector}" is not a CSS selector`);
    }
  }
  return found;
}

// What a property starts from: the usual value of an element, or another one when the animation ends there.
function before(name, end) {
  if (typeof end === "number") {
    const usual = ONES.has(name) ? 1 : 0;
    return end === usual ? 1 - usual : usual;
  }
  const text = String(end);
  if (/^[+\-*/]=/.test(text)) return text[0] === "*" || text[0] === "/" ? 1 : 0;
  if (/^#[0-9a-f]{3,8}$/i.test(text)) return /^#0+$/.test(text) ? "#ffffff" : "#000000";
  const zeroed = text.replace(/-?\d+(?:\.\d+)?/g, (number) => (Number(number) === 0 ? "1" : "0"));
  return zeroed === text ? "" : zeroed;
}

function prepare(target, vars, place) {
  let animated = 0;
  for (const [name, end] of Object.entries(vars)) {
    if (name === "keyframes") {
      const frames = Array.isArray(end) ? end : Object.values(end ?? {}).filter(isObject);
      for (const frame of frames) animated += isObject(frame) ? prepare(target, frame, place) : 0;
    } else if (name === "attr" && isObject(end)) {
      for (const [key, value] of Object.entries(end)) {
        animated += 1;
        if (target.getAttribute(key) === null) target.setAttribute(key, before(key, value));
      }
    } else if (!SETTINGS.has(name)) {
      if (typeof end !== "number" && typeof end !== "string") {
        problems.push(`${place}: ${name} is neither a number nor a text`);
        continue;
      }
      animated += 1;
      if (!(name in target)) target[name] = before(name, end);
    }
  }
  return animated;
}

function build(config, targets) {
  const { defaults = {}, steps, repeat, yoyo, delay, repeatDelay } = config;
  const options = Object.fromEntries(
    Object.entries({ repeat, yoyo, delay, repeatDelay }).filter(([, value]) => value !== undefined),
  );
  checkSettings(defaults, "defaults");
  checkSettings(options, "timeline");
  const timeline = gsap.timeline({ ...options, defaults, paused: true });
  steps.forEach((step, index) => {
    const place = `step ${index + 1}`;
    if (!isObject(step) || !isObject(step.vars)) {
      problems.push(`${place}: it needs a target and vars`);
      return;
    }
    checkKeys(step, { allowed: ["target", "vars", "at"], place });
    checkSettings(step.vars, place);
    const at = step.at ?? undefined;
    if (at !== undefined && !(typeof at === "number" ? at >= 0 && at <= SECONDS_MAX : POSITION.test(String(at)))) {
      problems.push(`${place}: "${at}" is not a position`);
    }
    const objects = selectors(step.target, place).map((selector) => {
      if (!targets.has(selector)) targets.set(selector, new Target());
      return targets.get(selector);
    });
    const animated = objects.map((target) => prepare(target, step.vars, place));
    if (objects.length > 0 && !animated.some(Boolean)) problems.push(`${place}: vars animate nothing`);
    if (problems.length === 0) timeline.to(objects, structuredClone(step.vars), at);
  });
  return timeline;
}

function play(timeline, targets) {
  const seconds = timeline.duration();
  const seen = new Map([...targets.keys()].map((selector) => [selector, new Map()]));
  for (let sample = 0; sample <= SAMPLES; sample += 1) {
    timeline.time((seconds * sample) / SAMPLES);
    for (const [selector, target] of targets) {
      for (const [name, value] of Object.entries(target.seen())) {
        if (Number.isNaN(value) || /NaN|undefined/.test(String(value))) problems.push(`${selector}: ${name} is ${value}`);
        const values = seen.get(selector);
        if (!values.has(name)) values.set(name, new Set());
        values.get(name).add(value);
      }
    }
    if (problems.length > 0) break;
  }
  return [...seen].map(([selector, values]) => ({
    target: selector,
    moved: [...values].filter(([, distinct]) => distinct.size > 1).map(([name]) => name),
  }));
}

function main() {
  const config = JSON.parse(fs.readFileSync(".timeline.json", "utf8")).timeline;
  if (!isObject(config) || !Array.isArray(config.steps) || config.steps.length === 0) {
    return { problems: ["timeline needs a list of steps"] };
  }
  if (config.steps.length > STEPS_MAX) return { problems: [`more than ${STEPS_MAX} steps`] };
  checkKeys(config, { allowed: ["defaults", "steps", "repeat", "yoyo", "delay", "repeatDelay"], place: "timeline" });
  if (config.defaults !== undefined && !isObject(config.defaults)) return { problems: ["defaults is not an object"] };
  const targets = new Map();
  const timeline = build(config, targets);
  const tweens = timeline.getChildren(true, true, false).length;
  const moved = problems.length === 0 ? play(timeline, targets) : [];
  return { problems: problems.slice(0, 20), warnings: warnings.slice(0, 20), tweens, steps: config.steps.length,
    seconds: timeline.duration(), endless: timeline.repeat() === -1, gsap: gsap.version, targets: moved };
}

fs.writeSync(report, JSON.stringify(main()) + "\n");
process.exit(0);
