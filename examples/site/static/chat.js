// The page is /rooms/<room>/, and its WebSocket is /rooms/<room>/ws.
addEventListener("DOMContentLoaded", () => {
  document.body.innerHTML = `
    <p id="status" role="status">Connecting…</p>
    <ul></ul>
    <form><input autofocus required aria-label="Say something"> <button disabled>Send</button></form>`;
  const [status, list, form, input, button] =
    ["p", "ul", "form", "input", "button"].map((name) => document.querySelector(name));
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
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    ws.send(input.value);
    input.value = "";
  };
  connect();
});
