// The arrays that the page carries, and the layers of the map as RGBA of each pixel.
const DARK = [13, 16, 19];
const VEIL = 0.78;  // how far ground without a label is darkened over another layer

const toRgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function toBytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unpack(id, facts) {
  const packed = toBytes(document.getElementById(id).textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const arrays = {};
  let start = 0;
  for (const { name, shape, width } of facts[id]) {
    const length = shape.reduce((product, side) => product * side, 1);
    if (width === 1) {
      arrays[name] = bytes.subarray(start, start + length);
    } else {  // all high bytes, then all low ones
      const values = new Uint16Array(length);
      for (let i = 0; i < length; i++) values[i] = (bytes[start + i] << 8) | bytes[start + length + i];
      arrays[name] = values;
    }
    start += width * length;
  }
  return arrays;
}

function makePainters(facts, map, classColours) {
  const size = facts.rows * facts.cols;
  const numTop = map.top_classes.length / size;
  const ramp = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"].map(toRgb);

  function paintPlaces(places, colours) {  // RGBA of each pixel; none is a veil
    const out = new Uint8ClampedArray(4 * size);
    for (let p = 0; p < size; p++) {
      const colour = colours[places[p]];
      out.set(colour ?? DARK, 4 * p);
      out[4 * p + 3] = colour ? 255 : 255 * VEIL;
    }
    return out;
  }

  const painters = {
    picture() {
      const out = new Uint8ClampedArray(4 * size).fill(255);
      for (let p = 0; p < size; p++) for (let c = 0; c < 3; c++) out[4 * p + c] = map.picture[3 * p + c];
      return out;
    },
    prediction: () => paintPlaces(map.prediction, [null, ...classColours()]),
    truth: () => paintPlaces(map.truth, [null, ...classColours()]),
    errors() {
      const style = getComputedStyle(document.documentElement);
      const [right, wrong] = ["--right", "--wrong"].map((name) => toRgb(style.getPropertyValue(name).trim()));
      const kinds = map.truth.map((truth, p) => (truth ? 1 + (truth !== map.prediction[p]) : 0));
      return paintPlaces(kinds, [null, right, wrong]);
    },
    certainty: () => paintShares((p) => map.top_probabilities[numTop * p] / 65535),
    gate: () => paintShares((p) => (map.gate[p] - 1) / 65534, map.gate),
    disagreement: () => paintShares((p) => map.disagreement[p] / (facts.folds - 1)),
    split: () => paintPlaces(map.sides, [null, ...facts.sides.slice(1).map((side) => toRgb(side.colour))]),
  };

  function paintShares(share, known = map.prediction) {  // from 0 to 1, on the ramp
    const out = new Uint8ClampedArray(4 * size).fill(255);
    for (let p = 0; p < size; p++) {
      const place = known[p] ? share(p) * (ramp.length - 1) : 0;
      const low = Math.min(Math.floor(place), ramp.length - 2);
      for (let c = 0; c < 3; c++) {
        out[4 * p + c] = known[p] ? ramp[low][c] + (place - low) * (ramp[low + 1][c] - ramp[low][c]) : DARK[c];
      }
    }
    return out;
  }

  return painters;
}
