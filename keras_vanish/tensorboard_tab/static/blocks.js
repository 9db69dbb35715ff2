/** Which layers stand together in a block, by their names: `encoder/block_0/query`. */

const LEAST_MEAN = 3;

/** A name's parts: folders, or a stem such as `conv2_block1` and what follows. */
function parts(name) {
  if (name.includes("/")) return name.split("/");
  const stem = /^(.*?(?:block|stage|encoder|decoder|group|level)_?\d+[a-z]?)_(.+)$/i.exec(name);
  return stem ? [stem[1], stem[2]] : [name];
}

function grouped(all, depth) {
  const found = [];
  all.forEach((one, row) => {
    const name = one.slice(0, Math.min(depth, one.length - 1)).join("/");
    const last = found[found.length - 1];
    if (last && last.name === name) last.to = row;
    else found.push({ name, from: row, to: row });
  });
  return found.filter(({ name, from, to }) => name && to > from);
}

/**
 * Blocks of layers that follow each other, as {name, from, to}, and a short name for each layer:
 * what its block's name does not say. Of nested folders those count that hold a few layers each.
 */
export function blocksOf(names) {
  const all = names.map(parts);
  const deepest = all.reduce((most, one) => Math.max(most, one.length - 1), 0);
  let blocks = [];
  for (let depth = deepest; depth >= 1; depth--) {
    blocks = grouped(all, depth);
    const layers = blocks.reduce((sum, { from, to }) => sum + to - from + 1, 0);
    if (layers >= LEAST_MEAN * blocks.length) break;
  }
  const short = [...names];
  for (const { name, from, to } of blocks) {
    for (let row = from; row <= to; row++) short[row] = names[row].slice(name.length + 1);
  }
  return { blocks, short };
}
