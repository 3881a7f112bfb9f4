// The client of ws: URL SCENARIO, see tests/interop/scenarios.py.

import { WebSocket } from "ws";
import { SIZES, describe, make, report } from "./messages.js";

const [url, scenario] = process.argv.slice(2);
const socket = new WebSocket(url);
const sizes = scenario === "text" || scenario === "binary" ? [...SIZES] : [];

function next() {
  if (sizes.length > 0) {
    socket.send(make(scenario, sizes.shift()));
  } else if (scenario === "close") {
    socket.close(4000, "bye");
  } else if (scenario !== "wait") {
    socket.close(1000);
  }
}

socket.on("open", next);
socket.on("message", (data, isBinary) => {
  report("message", describe(data, isBinary));
  next();
});
socket.on("close", (code, reason) => report("closed", { code, reason: reason.toString() }));
