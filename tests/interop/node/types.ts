// Compiled by the suite, and not run: what TypeScript says of pages that use the module.
import { connect, reconnect, type Position, type SendError, type Status } from "../../../trio_ws/live/live.js";

interface Line { id: string; text: string }

const live = connect("/live", {
  token: async () => "abc",
  onStatus({ state, code }: Status) {
    if (state === "closed") console.log(code?.toFixed());
    // @ts-expect-error: there is no such state
    if (state === "lost") return;
  },
  maxPending: 10,
});

let last: Position | undefined;
const unsubscribe = live.subscribe<Line, Line[], { name: string }>("lobby", {
  subscribed: ({ recovered }) => recovered || console.clear(),
  state: ({ data }) => data.forEach((line) => console.log(line.text)),
  message({ data, position }) {
    last = position;
    console.log(data.text);
    // @ts-expect-error: a line has no number
    console.log(data.number);
  },
  presence({ members, joined, left }) {
    console.log(members.get("ada")?.name, joined["bob"]?.name, left.length);
  },
  error: ({ code, reason }) => console.log(code, reason),
  // @ts-expect-error: there is no such message
  messages() {},
});
unsubscribe();

live.send<number>("lobby", { text: "Hello!" }).then(
  (answer) => answer.toFixed(),
  (error: SendError<Line>) => console.log(error.code, error.data.text),
);
// @ts-expect-error: a topic and what to send
live.send("lobby");
live.close();

const link = reconnect("ws://localhost/ws", { onMessage: (data: string) => data.length });
const sent: boolean = link.send("hello");
console.log(sent, last);
// @ts-expect-error: what to do with messages has to be said
reconnect("/ws", {});
