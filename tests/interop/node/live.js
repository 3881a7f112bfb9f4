// The module for browsers, in Node: node live.js URL OPTIONS. It does what is said on stdin, a
// command as a JSON list on each line, and reports what happens, one JSON object a line. Stdin's end
// is no command: the process ends when the module has nothing left to do.
import { createInterface } from "node:readline";
import { WebSocket } from "undici";
import { connect, reconnect } from "../../../trio_ws/live/live.js";

const [url, given] = process.argv.slice(2);
const { raw, tokens = [], pauses, page, ...options } = JSON.parse(given);
const report = (event, about = {}) => console.log(JSON.stringify({ event, ...about }));

globalThis.WebSocket ??= WebSocket; // Node has one from version 22 on
if (page) { // what of a browser's window the module uses
  const window = new EventTarget();
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.dispatchEvent = window.dispatchEvent.bind(window);
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
}
let now = 0;
if (pauses) { // report the longest that each pause may be; time passes as it is told
  const { setTimeout } = globalThis;
  Date.now = () => now;
  Math.random = () => 1;
  globalThis.setTimeout = (action, pause) => {
    if (action.name === "open") report("pause", { pause });
    return setTimeout(action, action.name === "open" ? 1 : pause);
  };
}

const onStatus = ({ state, code, reason }) => report("status", { state, code, reason });
const onMessage = (data) => report("data", { data });
const token = () => {
  const next = tokens.shift();
  if (next === "raise") throw Error("no token");
  return next;
};
const live = raw
  ? reconnect(url, { onStatus, onMessage, ...options })
  : connect(url, { onStatus, token, ...options });

const unsubscribe = {};
const handlers = (names) => Object.fromEntries(names.map((name) => [name, (message) => {
  const { members } = message;
  report(name, { ...message, ...(members && { members: Object.fromEntries(members) }) });
}]));
const commands = {
  subscribe(topic, ...others) {
    const names = ["subscribed", "state", "message", "current", "gap", "error", ...others];
    unsubscribe[topic] = live.subscribe(topic, handlers(names));
  },
  unsubscribe: (topic) => unsubscribe[topic](),
  send(topic, data) {
    live.send(topic, data).then(
      (answer) => report("answer", { answer: answer ?? null }),
      ({ code, message, data }) => report("failure", { code, message, data }),
    );
  },
  pass(milliseconds) {
    now += milliseconds;
    report("passed");
  },
  put: (data) => report("put", { sent: live.send(data) }),
  window: (name) => dispatchEvent(new Event(name)),
  document(name, hidden) {
    document.hidden = hidden;
    document.dispatchEvent(new Event(name));
  },
  close: () => live.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = JSON.parse(line);
  try {
    commands[name](...rest);
  } catch (error) {
    report("raised", { message: error.message });
  }
}
