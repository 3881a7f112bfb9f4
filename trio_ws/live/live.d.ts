/** JSON, as it goes over the wire. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Where in a topic a message stands. Opaque: it is kept, and given back. */
export type Position = string;

/** How the connection is, each time that it changes. */
export interface Status {
  /**
   * - `connecting`: a connection is being made.
   * - `open`: there is one.
   * - `waiting`: it was lost, or could not be made; there will be another attempt.
   * - `closed`: for good, by `close()` or by a code that says that the same would happen again.
   */
  state: "connecting" | "open" | "waiting" | "closed";
  /** Of the close, when there was one: see docs/reference/live-protocol.md for which are final. */
  code?: number;
  reason?: string;
  /** The newest WebSocket, to look at its `extensions` and the like. */
  socket?: WebSocket;
}

export interface Options {
  /** Called with each change. Before `closed`, the page need not do anything. */
  onStatus?: (status: Status) => void;
  /** Milliseconds of the shortest pause before another attempt: 500. */
  minDelay?: number;
  /** Milliseconds that the pauses grow to: 30,000. */
  maxDelay?: number;
  /** Milliseconds for a handshake, and for the answer to a probe: 10,000. */
  timeout?: number;
  /** Milliseconds of silence after which the server is asked for an answer: 30,000. */
  quiet?: number;
}

/** A WebSocket that comes back, for messages of any protocol. */
export interface Link {
  /** Sends, and gives true; gives false where there is no connection. Nothing is queued. */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  /** Ends it for good. */
  close(): void;
}

/**
 * Opens one WebSocket after the other.
 *
 * @param url of the server; relative to the page, or with http(s) or ws(s).
 */
export function reconnect(
  url: string | URL,
  options: Options & {
    onMessage: (data: any) => void;
    /** Which subprotocols to offer; called for each attempt. */
    protocols?: () => string | string[] | Promise<string | string[]>;
    /** What to send to a silent server, so that it answers. Without it, nothing is sent. */
    probe?: string;
  },
): Link;

/** What a page wants to be told of a topic. Each function gets the message of that name. */
export interface Handlers<Data = any, State = any, Value = any> {
  /**
   * The subscription begins, or begins anew on another connection. If `recovered` is false, what is
   * shown may be old: throw it away, because the state or the history follows.
   */
  subscribed?: (message: { topic: string; recovered: boolean }) => void;
  /** All of what the topic is about now. */
  state?: (message: { topic: string; data: State; position?: Position }) => void;
  message?: (message: { topic: string; data: Data; position?: Position }) => void;
  /** What was missed has come. What comes from here on is new. */
  current?: (message: { topic: string; position?: Position }) => void;
  /** Messages are missing here. If the server has a state, it follows. */
  gap?: (message: { topic: string }) => void;
  /** Who is there: all `members`, and what has changed. */
  presence?: (message: {
    topic: string;
    members: Map<string, Value>;
    all?: boolean;
    joined: Record<string, Value>;
    left: string[];
  }) => void;
  /** The server refuses the subscription, which is over. */
  error?: (message: { topic: string; code: string; reason: string }) => void;
}

/** Why a `send` failed, and what was to be sent. */
export interface SendError<Data = any> extends Error {
  /**
   * - `offline`: there is no connection; it was not sent.
   * - `full`: `maxPending` others wait; it was not sent.
   * - `lost`: the connection was lost before the server said that it has it; it may have it.
   * - any other: of the server, which has refused it.
   */
  code: string;
  data: Data;
}

export interface Live {
  /**
   * Subscribes to a topic, on this connection and on all that follow.
   *
   * @returns a function that unsubscribes.
   * @throws Error if there is a subscription to this topic.
   */
  subscribe<Data = any, State = any, Value = any>(
    topic: string,
    handlers: Handlers<Data, State, Value>,
  ): () => void;
  /**
   * Sends something to the application, about a topic that was subscribed to. Nothing is sent twice
   * by itself: what fails comes back as a `SendError`.
   *
   * @returns what the application answers, when it is through.
   */
  send<Answer = any>(topic: string, data: unknown): Promise<Answer>;
  /** Ends it for good. */
  close(): void;
}

/** Connects to a server of trio-ws.live.v1. */
export function connect(
  url: string | URL,
  options?: Options & {
    /** Called for each connection. The token has the characters of a JWT or of base64url. */
    token?: () => string | undefined | Promise<string | undefined>;
    /** How many messages may be sent and not acknowledged: 100. */
    maxPending?: number;
  },
): Live;
