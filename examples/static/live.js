// A WebSocket that comes back, which is what the pages of the examples share:
//
//   import { connect } from "/static/live.js";
//
//   const live = connect("/ws", {              // or a function that gives the path each time
//     onOpen: () => live.send("hello"),        // each time that there is a connection
//     onMessage: (data) => console.log(data),
//     onEnd: () => {},                         // the server wants us not to come back
//   });
//
// How the connection is can be read in #status. Whatever has the attribute data-live, buttons and
// fieldsets, is disabled while there is none. A page with several needs all of them.

const FIRST_DELAY = 500, LONGEST_DELAY = 10_000; // milliseconds

export function connect(path, { onMessage, onOpen = () => {}, onEnd = () => {} }) {
  const id = states.push({ text: "Connecting…", online: false }) - 1;
  let socket, timer, opened, waiting, delay = FIRST_DELAY;

  function open() {
    clearTimeout(timer);
    waiting = false;
    opened = Infinity;
    const url = new URL(typeof path === "function" ? path() : path, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url);
    socket.onopen = () => {
      opened = Date.now();
      show(id, "Connected", true);
      onOpen();
    };
    socket.onmessage = (event) => onMessage(event.data);
    socket.onclose = (event) => isFinal(event.code) ? end(event.reason) : wait();
  }

  function wait() {
    waiting = true;
    // Only a connection that held for a while ends the back-off: a server that accepts
    // connections and then fails is not to be asked twice a second.
    if (Date.now() - opened > delay) delay = FIRST_DELAY;
    // The jitter keeps a thousand pages from coming back in the same instant.
    timer = setTimeout(open, delay * (0.75 + Math.random() / 2));
    delay = Math.min(2 * delay, LONGEST_DELAY);
    show(id, "Connection lost, reconnecting…", false);
  }

  function end(reason) {
    removeEventListener("offline", lose);
    removeEventListener("online", openNow);
    document.removeEventListener("visibilitychange", openNow);
    show(id, reason || "The server has ended this", false);
    onEnd();
  }

  // Out of the network: the socket would notice much later.
  function lose() {
    if (waiting) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    wait();
  }

  // Back in the network, or on the screen: no need to wait any longer.
  function openNow() {
    if (waiting && !document.hidden) open();
  }

  addEventListener("offline", lose);
  addEventListener("online", openNow);
  document.addEventListener("visibilitychange", openNow);
  open();

  return {
    send: (data) => socket.readyState === WebSocket.OPEN && socket.send(data),
    get extensions() { return socket.extensions; },
  };
}

// With these codes a server says that the same again would end in the same way.
const isFinal = (code) => code === 1003 || code === 1008 || (code >= 4000 && code < 5000);

const states = [];

function show(id, text, online) {
  states[id] = { text, online };
  const worst = states.find((state) => !state.online) ?? states[id];
  document.getElementById("status").textContent = worst.text;
  document.body.classList.toggle("online", worst.online);
  for (const control of document.querySelectorAll("[data-live]")) control.disabled = !worst.online;
}
