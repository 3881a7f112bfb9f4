// A WebSocket that comes back, and topics over it. See live.d.ts.
const V1 = "trio-ws.live.v1", page = globalThis;
const FINAL = [1003, 1007, 1008, 1009, 1010, 3000, 3003]; // it would end the same way

export function reconnect(url, {
  protocols, probe, onMessage, onStatus,
  minDelay = 500, maxDelay = 30_000, timeout = 10_000, quiet = 30_000, // ms
} = {}) {
  let socket, timer, state, opened, turn, delay = minDelay;
  const life = new AbortController();

  function after(pause, action) {
    clearTimeout(timer);
    timer = setTimeout(action, pause);
  }

  function show(now, { code, reason } = {}) {
    state = now;
    onStatus?.({ state, code, reason, socket });
  }

  async function open() {
    const mine = turn = new AbortController();
    opened = Infinity;
    after(timeout, wait);
    show("connecting");
    try {
      const offered = await protocols?.() ?? [];
      if (mine.signal.aborted) return;
      const to = new URL(url, page.location?.href);
      to.protocol = to.protocol.replace("http", "ws");
      socket = new WebSocket(to, offered);
      for (const name in on) socket.addEventListener(name, on[name], mine);
    } catch (error) {
      mine.signal.aborted || wait({ reason: `${error}` });
    }
  }

  const on = {
    open() {
      opened = Date.now();
      expect();
      show("open");
    },
    message({ data }) {
      expect();
      onMessage(data);
    },
    close: (event) => FINAL.includes(event.code) ? end(event) : wait(event),
  };

  // A dead network is silent, so silence is asked.
  function expect(pause = quiet) {
    after(pause, () => {
      if (!probe) return;
      socket.send(probe);
      after(timeout, wait);
    });
  }

  function drop() {
    clearTimeout(timer);
    turn.abort();
    socket?.close();
  }

  function wait(event) {
    drop();
    // Only a connection that held ends the back-off, and 1013 never does.
    if (Date.now() - opened > delay && event?.code !== 1013) delay = minDelay;
    after(minDelay + Math.random() * delay, open);
    delay = Math.min(2 * delay, maxDelay);
    show("waiting", event);
  }

  function end(event) {
    drop();
    life.abort();
    show("closed", event);
  }

  function look() { // back online, or on the screen
    if (page.document?.hidden) return;
    if (state === "waiting") open();
    if (state === "open") expect(0);
  }

  page.addEventListener?.("offline", () => state === "waiting" || wait(), life);
  page.addEventListener?.("online", look, life);
  page.document?.addEventListener("visibilitychange", look, life);
  open();
  return {
    send: (data) => state === "open" && (socket.send(data), true),
    close: () => state === "closed" || end({ code: 1000 }),
  };
}

export function connect(url, { token, onStatus, maxPending = 100, ...options } = {}) {
  const topics = new Map(), pending = new Map();
  let number = 0;

  const link = reconnect(url, {
    ...options,
    probe: '{"type":"ping"}',
    async protocols() {
      const secret = await token?.();
      return secret ? [V1, `trio-ws.token.${secret}`] : V1;
    },
    onStatus(status) {
      topics.forEach((it) => { it.active = false; });
      pending.forEach((settle) => settle({ code: "lost" }));
      if (status.state === "open") topics.forEach(ask);
      onStatus?.(status);
    },
    onMessage(text) {
      const message = JSON.parse(text), { type, topic, id, all, joined, left = [] } = message;
      const it = topics.get(topic);
      if (id) pending.get(id)?.(message);
      else if (type === "error") {
        topics.delete(topic);
        it?.on.error?.(message);
      } else if (it && (it.active ||= type === "subscribed")) { // not of an earlier life
        it.position = message.position || it.position;
        if (all) it.members = new Map();
        for (const id of left) it.members.delete(id);
        for (const id in joined) it.members.set(id, joined[id]);
        it.on[type]?.({ ...message, members: it.members });
      }
    },
  });

  const put = (message) => link.send(JSON.stringify(message));
  const ask = ({ on, position }, topic) =>
    put({ type: "subscribe", topic, position, presence: !!on.presence });

  return {
    subscribe(topic, on) {
      if (topics.has(topic)) throw Error("subscribed already");
      const it = { on };
      topics.set(topic, it);
      ask(it, topic);
      return () => topics.get(topic) === it && topics.delete(topic) && put({ type: "unsubscribe", topic });
    },
    send: (topic, data) => new Promise((resolve, reject) => {
      const id = `${++number}`, settle = ({ type, data: answer, code, reason = code }) => {
        pending.delete(id);
        if (type === "ack") resolve(answer);
        else reject(Object.assign(Error(reason), { code, data }));
      };
      const full = pending.size >= maxPending;
      if (!full && put({ type: "send", topic, id, data })) pending.set(id, settle);
      else settle({ code: full ? "full" : "offline" });
    }),
    close: link.close,
  };
}
