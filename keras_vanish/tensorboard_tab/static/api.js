/** What the server knows, fetched relative to this module. */

async function asked(path, parameters) {
  const address = new URL(`./${path}`, import.meta.url);
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response;
}

const json = async (path, parameters = {}) => (await asked(path, parameters)).json();

/** A header and float32 values, row by row, as `answers.framed` makes them. */
async function framed(path, parameters) {
  const buffer = await (await asked(path, parameters)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const [rows, columns] = header.shape;
  return { ...header, rows, columns, values: new Float32Array(buffer, 4 + length) };
}

export const runs = async () => (await json("runs")).runs;
export const about = (run) => json("run", { run });
export const scores = (run, columns) => json("scores", { run, columns });
export const heatmap = (run, quantity, columns) => framed("heatmap", { run, quantity, columns });
export const time = (run, layer, columns) => framed("time", { run, layer, columns });
export const layer = (run, name, columns) => json("layer", { run, layer: name, columns });
export const table = async (run, quantity) => (await asked("table.csv", { run, quantity })).blob();
