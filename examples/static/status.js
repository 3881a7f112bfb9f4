// How the connection is, on the page: in words in #status, and whatever has the attribute data-live,
// buttons and fieldsets, is disabled while there is none. A page with several needs all of them:
//
//   connect("/live", { onStatus: status() });

const shown = [];

export function status() {
  const index = shown.push("connecting") - 1;
  return ({ state, reason }) => {
    shown[index] = state;
    const isOpen = shown.every((each) => each === "open");
    document.body.classList.toggle("online", isOpen);
    for (const control of document.querySelectorAll("[data-live]")) control.disabled = !isOpen;
    if (state === "closed") show(reason || "The server has ended this");
    else if (state === "waiting") show("Connection lost, reconnecting…");
    else if (isOpen) show("Connected");
  };
}

function show(text) {
  document.getElementById("status").textContent = text;
}
