// The client of undici, which is also the one that Node.js has built in: URL SCENARIO, see
// tests/interop/scenarios.py.

import { WebSocket } from "undici";
import { conversation, describe, report } from "./messages.js";

const [url, scenario] = process.argv.slice(2);
const socket = new WebSocket(url);
const next = conversation(socket, scenario);
socket.binaryType = "arraybuffer";

socket.onopen = next;
socket.onmessage = ({ data }) => {
  report("message", describe(Buffer.from(data), typeof data !== "string"));
  next();
};
socket.onclose = ({ code, reason }) => report("closed", { code, reason });
