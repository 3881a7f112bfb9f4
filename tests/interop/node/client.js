// The client of ws: URL SCENARIO, see tests/interop/scenarios.py.

import { WebSocket } from "ws";
import { conversation, describe, report } from "./messages.js";

const [url, scenario] = process.argv.slice(2);
const socket = new WebSocket(url);
const next = conversation(socket, scenario);

socket.on("open", next);
socket.on("message", (data, isBinary) => {
  report("message", describe(data, isBinary));
  next();
});
socket.on("close", (code, reason) => report("closed", { code, reason: reason.toString() }));
