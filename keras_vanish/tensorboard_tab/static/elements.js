/** Elements made without HTML: whatever a name in an event file holds, it stays text. */

/**
 * An element. `properties` are attributes, but for functions, which listen to the event that
 * they are named for; children are elements or text.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A name as it may be shown: control characters, and those that turn text around, are marked. */
export function clean(name) {
  return String(name).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

/** A run as the user named it: the monitor writes into its folder `gradients`. */
export function runName(run) {
  return clean(run.replace(/\/gradients$/, ""));
}

/** Text with its middle left out where it is longer than `most` characters. */
export function shortened(text, most) {
  const letters = [...text];
  if (letters.length <= most) return text;
  const tail = Math.ceil((most - 1) * 0.6);
  return letters.slice(0, most - 1 - tail).join("") + "…" + letters.slice(-tail).join("");
}

/** Offers bytes or text to the user as a file. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
