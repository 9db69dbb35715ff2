/** What TensorBoard's own page tells. All of it is experimental there: without it the tab works. */

/** Calls `listener` when TensorBoard has reloaded its data, or its list of runs has changed. */
export function onReload(listener) {
  try {
    const channel = new MessageChannel();
    channel.port1.onmessage = (event) => {
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return;
      }
      if (message.type === "experimental.DataReloaded") listener();
      if (message.type === "experimental.RunsChanged") listener();
    };
    window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
  } catch {
    // The page asks for news by itself, too.
  }
}

/** The runs that TensorBoard's own filter lets through, where its address has one. */
export function runFilter() {
  try {
    const pattern = new URLSearchParams(window.parent.location.search).get("runFilter");
    return pattern ? new RegExp(pattern) : null;
  } catch {
    return null;
  }
}

/** Calls `listener` with "dark" or "light", now and when it changes. */
export function onTheme(listener) {
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  let body = null;
  try {
    body = window.parent === window ? null : window.parent.document.body;
  } catch {
    // Of another origin.
  }
  const tell = () => {
    const dark = body ? body.classList.contains("dark-mode") : preferred.matches;
    listener(dark ? "dark" : "light");
  };
  if (body) new MutationObserver(tell).observe(body, { attributeFilter: ["class"] });
  else preferred.addEventListener("change", tell);
  tell();
}
