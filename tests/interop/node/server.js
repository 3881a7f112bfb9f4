// The server of ws: /close closes with 4000, any other path echoes. It is given its settings of
// permessage-deflate, in JSON.

import { WebSocketServer } from "ws";
import { describe, report } from "./messages.js";

const perMessageDeflate = JSON.parse(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate });

server.on("listening", () => report("listening", { port: server.address().port }));
server.on("connection", (socket, request) => {
  socket.on("message", (data, isBinary) => {
    report("message", describe(data, isBinary));
    socket.send(data, { binary: isBinary });
  });
  socket.on("close", (code, reason) => report("closed", { code, reason: reason.toString() }));
  if (request.url === "/close") {
    socket.close(4000, "bye");
  }
});

// The end of stdin is the request to end.
process.stdin.resume();
process.stdin.on("end", () => server.close(() => process.exit(0)));
