// The client of undici, which is also the one that Node.js has built in: URL SCENARIO, see
// tests/interop/scenarios.py.

import { WebSocket } from "undici";
import { SIZES, describe, make, report } from "./messages.js";

const [url, scenario] = process.argv.slice(2);
const socket = new WebSocket(url);
const sizes = scenario === "text" || scenario === "binary" ? [...SIZES] : [];
socket.binaryType = "arraybuffer";

function next() {
  if (sizes.length > 0) {
    socket.send(make(scenario, sizes.shift()));
  } else if (scenario === "close") {
    socket.close(4000, "bye");
  } else if (scenario !== "wait") {
    socket.close(1000);
  }
}

socket.onopen = next;
socket.onmessage = ({ data }) => {
  report("message", describe(Buffer.from(data), typeof data !== "string"));
  next();
};
socket.onclose = ({ code, reason }) => report("closed", { code, reason });
