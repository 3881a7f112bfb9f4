// The page is /rooms/<room>/, and its WebSocket is /rooms/<room>/ws.
document.querySelector("main").insertAdjacentHTML("beforeend", `
  <ul></ul>
  <form>
    <input autofocus required aria-label="Say something" placeholder="Say something"
      autocomplete="off" enterkeyhint="send">
    <button disabled>Send</button>
  </form>
  <footer><a href="/">Rooms</a> <span id="status" role="status">Connecting…</span></footer>`);
const [status, list, form, input, button] =
  ["#status", "ul", "form", "input", "button"].map((name) => document.querySelector(name));
list.style.cssText = "margin: 1rem 0; padding: 0; list-style: none; overflow-wrap: anywhere";
let ws;

function connect() {
  ws = new WebSocket(location.href.replace("http", "ws") + "ws");
  ws.onopen = () => show("Connected", true);
  ws.onclose = () => {
    show("Connection lost, reconnecting…", false);
    setTimeout(connect, 1000 + 1000 * Math.random());
  };
  ws.onmessage = (message) => {
    const item = document.createElement("li");
    item.textContent = message.data;
    list.append(item);
  };
}

function show(text, online) {
  status.textContent = text;
  button.disabled = !online;
  document.body.classList.toggle("online", online);
}

form.onsubmit = (event) => {
  event.preventDefault();
  ws.send(input.value);
  input.value = "";
};
connect();
