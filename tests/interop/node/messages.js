// The messages of tests/interop/messages.py, and how this peer says what it sees.

import { createHash } from "node:crypto";

export const SIZES = [0, 1, 125, 126, 65535, 65536, 1_000_000];

export function make(kind, size) {
  if (kind === "text") {
    return "é€😀a".repeat(Math.floor(size / 10)) + "x".repeat(size % 10);
  }
  return Uint8Array.from({ length: size }, (_, index) => index % 251);
}

export function describe(data, isBinary) {
  return {
    kind: isBinary ? "binary" : "text",
    size: data.length,
    sha256: createHash("sha256").update(data).digest("hex"),
  };
}

export function report(event, details) {
  console.log(JSON.stringify({ event, ...details }));
}

/** What a client does next: send the next message of its scenario, or close. */
export function conversation(socket, scenario) {
  const sizes = scenario === "text" || scenario === "binary" ? [...SIZES] : [];
  return () => {
    if (sizes.length > 0) {
      socket.send(make(scenario, sizes.shift()));
    } else if (scenario === "close") {
      socket.close(4000, "bye");
    } else if (scenario !== "wait") {
      socket.close(1000);
    }
  };
}
