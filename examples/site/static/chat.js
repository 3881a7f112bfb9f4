// The page is /rooms/<room>/, and its WebSocket is /rooms/<room>/ws.
addEventListener("DOMContentLoaded", () => {
  document.body.innerHTML = '<ul></ul><form><input autofocus placeholder="Say something"></form>';
  const [list, form, input] = ["ul", "form", "input"].map((name) => document.querySelector(name));
  const ws = new WebSocket(location.href.replace("http", "ws") + "ws");

  ws.onmessage = (message) => {
    const item = document.createElement("li");
    item.textContent = message.data;
    list.append(item);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    ws.send(input.value);
    input.value = "";
  };
});
