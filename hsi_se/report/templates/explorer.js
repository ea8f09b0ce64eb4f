// The map explorer: layers, the pixel under the pointer, the legend and the confusion cells that light pixels up.
// Classes are counted from 1; 0 is unlabelled, or not measured.
(async () => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($("facts").textContent);
  const { rows, cols, classes, layers } = facts;
  const size = rows * cols;
  const canvas = $("map");
  const pen = canvas.getContext("2d");

  async function unpack(id) {
    const text = $(id).textContent;
    const packed = Uint8Array.fromBase64
      ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
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

  let map;
  try {
    map = await unpack("maps");
  } catch {
    $("wait").textContent = "This browser cannot unpack the map; a newer one can.";
    return;
  }
  const numTop = map.top_classes.length / size;

  // ------------------------------------------------------------------------------------------ layers
  const DARK = [13, 16, 19];
  const VEIL = 0.78;  // how far ground without a label is darkened over another layer
  const LIT = [255, 220, 0];
  const ramp = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"].map(toRgb);

  function toRgb(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }

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
    certainty() {
      const out = new Uint8ClampedArray(4 * size).fill(255);
      for (let p = 0; p < size; p++) {
        const place = (map.top_probabilities[numTop * p] / 65535) * (ramp.length - 1);
        const low = Math.min(Math.floor(place), ramp.length - 2);
        for (let c = 0; c < 3; c++) {
          out[4 * p + c] = map.prediction[p] ? ramp[low][c] + (place - low) * (ramp[low + 1][c] - ramp[low][c]) : DARK[c];
        }
      }
      return out;
    },
    split: () => paintPlaces(map.sides, [null, ...facts.sides.slice(1).map((side) => toRgb(side.colour))]),
  };

  const view = {
    layer: "prediction", under: "picture", opacity: 1, palette: "usual", alone: 0, cell: null,
    scale: 1, x: 0, y: 0, width: 0, height: 0, pinned: -1, hovered: -1,
  };
  const painted = {};
  const classColours = () =>
    classes.map((each) => toRgb(view.palette === "usual" ? each.colour : each.distinct));
  const paint = (layer) => (painted[layer] ??= painters[layer]());

  // Which pixels stay bright: those of a confusion cell, or of the class that is shown alone.
  function isBright(p) {
    const [truth, predicted] = [map.truth[p], map.prediction[p]];
    if (view.cell) {
      return map.sides[p] === facts.test && truth === view.cell.truth && predicted === view.cell.predicted;
    }
    if (view.layer === "errors") return truth > 0 && (truth === view.alone || predicted === view.alone);
    return (["truth", "split"].includes(view.layer) ? truth : predicted) === view.alone;
  }

  const sheet = new OffscreenCanvas(cols, rows);
  const sheetPen = sheet.getContext("2d");
  const image = new ImageData(cols, rows);

  function compose() {
    const [top, under] = [paint(view.layer), paint(view.under)];
    const out = image.data;
    const isDimmed = view.cell !== null || view.alone > 0;
    let numBright = 0;
    for (let p = 0; p < size; p++) {
      const i = 4 * p;
      const share = (view.opacity * top[i + 3]) / 255;
      const ground = under[i + 3] / 255;
      const isLit = isDimmed && isBright(p);
      numBright += isLit;
      for (let c = 0; c < 3; c++) {
        const below = DARK[c] + ground * (under[i + c] - DARK[c]);
        out[i + c] = view.cell && isLit ? LIT[c] : below + share * (top[i + c] - below);
      }
      if (isDimmed && !isLit) {
        const grey = 0.3 * (0.3 * out[i] + 0.59 * out[i + 1] + 0.11 * out[i + 2]);
        out[i] = out[i + 1] = out[i + 2] = grey;
      }
      out[i + 3] = 255;
    }
    sheetPen.putImageData(image, 0, 0);
    draw();
    return numBright;
  }

  // ------------------------------------------------------------------------------------------ the view
  let isDue = false;
  function draw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      const ratio = window.devicePixelRatio || 1;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.fillStyle = "#0d1013";
      pen.fillRect(0, 0, view.width, view.height);
      pen.imageSmoothingEnabled = view.scale < 1;
      pen.drawImage(sheet, view.x, view.y, cols * view.scale, rows * view.scale);
      for (const [p, colour] of [[view.pinned, "#fff"], [view.hovered, "#ffdc00"]]) {
        if (p < 0) continue;
        const side = Math.max(view.scale, 5);
        const [x, y] = toScreen(p).map((middle) => middle - side / 2);
        pen.lineWidth = 3;
        pen.strokeStyle = "#000";
        pen.strokeRect(x, y, side, side);
        pen.lineWidth = 1.5;
        pen.strokeStyle = colour;
        pen.strokeRect(x, y, side, side);
      }
      canvas.dataset.view = [view.x, view.y, view.scale].join(" ");
    });
  }

  const toScreen = (p) => [
    view.x + ((p % cols) + 0.5) * view.scale, view.y + (Math.floor(p / cols) + 0.5) * view.scale,
  ];

  function toPixel(x, y) {
    const [col, row] = [Math.floor((x - view.x) / view.scale), Math.floor((y - view.y) / view.scale)];
    return row >= 0 && row < rows && col >= 0 && col < cols ? row * cols + col : -1;
  }

  const fitScale = () => Math.min(view.width / cols, view.height / rows);

  const limit = (scale) => Math.min(Math.max(scale, fitScale()), Math.max(48, 8 * fitScale()));

  function place(x, y, scale) {  // the map stays in the frame, in its middle where it is smaller
    view.scale = limit(scale);
    const keep = (offset, whole, frame) =>
      whole <= frame ? (frame - whole) / 2 : Math.min(0, Math.max(frame - whole, offset));
    view.x = keep(x, cols * view.scale, view.width);
    view.y = keep(y, rows * view.scale, view.height);
    canvas.classList.toggle("zoomed", view.scale > fitScale() * 1.01);
    draw();
  }

  function zoom(factor, [x, y] = [view.width / 2, view.height / 2], [toX, toY] = [x, y]) {
    const scale = limit(view.scale * factor);  // what was at (x, y) is at (toX, toY) afterwards
    const ratio = scale / view.scale;
    place(toX - (x - view.x) * ratio, toY - (y - view.y) * ratio, scale);
  }

  const showAll = () => place(0, 0, 0);

  new ResizeObserver(() => {
    const wasWhole = view.scale <= fitScale() * 1.01;
    const ratio = window.devicePixelRatio || 1;
    [view.width, view.height] = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = [view.width * ratio, view.height * ratio];
    place(view.x, view.y, wasWhole ? 0 : view.scale);
  }).observe(canvas);

  // ------------------------------------------------------------------------------------------ one pixel
  let spectra = null;
  const nameOf = (place) => (place ? `${classes[place - 1].label} ${classes[place - 1].name}` : "unlabelled");

  function element(tag, text = "", attributes = {}) {
    const made = tag === "path" || tag === "svg" || tag === "text"
      ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function named(place, none) {
    if (!place) return [none];
    return [element("i", "", { class: "swatch", style: `background:var(--class-${place})` }), nameOf(place)];
  }

  function show(p) {
    if (p < 0) return;
    const [row, col] = [Math.floor(p / cols), p % cols];
    const [truth, predicted] = [map.truth[p], map.prediction[p]];
    $("place").textContent = `row ${row}, column ${col}`;
    $("truth").replaceChildren(...named(truth, "unlabelled"));
    $("prediction").replaceChildren(...named(predicted, "no data"));
    $("prediction").classList.toggle("off", truth > 0 && predicted > 0 && truth !== predicted);
    $("side").textContent = facts.sides[map.sides[p]].name;
    $("bars").replaceChildren(...Array.from({ length: predicted ? numTop : 0 }, (_, k) => {
      const share = (100 * map.top_probabilities[numTop * p + k]) / 65535;
      const line = element("span");
      const name = element("span");
      name.append(...named(map.top_classes[numTop * p + k], ""));
      line.append(name, element("b", `${share.toFixed(1)} %`));
      const item = element("li");
      item.append(line, element("i", "", { class: "bar", style: `width:${share.toFixed(2)}%` }));
      return item;
    }));
    drawSpectrum(row, col, truth, predicted);
  }

  function say(p) {
    const [truth, predicted] = [map.truth[p], map.prediction[p]];
    const share = ((100 * map.top_probabilities[numTop * p]) / 65535).toFixed(1);
    $("said").textContent = `Row ${Math.floor(p / cols)}, column ${p % cols}: truth ${nameOf(truth)}, `
      + (predicted ? `predicted ${nameOf(predicted)}, ${share} %.` : "no data.");
  }

  function ticks(low, high, most = 6) {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10, 20].map((part) => part * power)
      .find((each) => Math.floor(high / each) - Math.ceil(low / each) < most);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, n) => +((first + n) * step).toPrecision(9));
  }

  function drawSpectrum(row, col, truth, predicted) {
    const chart = $("spectrum");
    if (!spectra) return;
    const { positions, every, low, step, means, unit } = facts;
    const bands = positions.length;
    const [r, c] = [[row, rows], [col, cols]].map(([at, count]) =>
      Math.min(Math.round(at / every), Math.ceil(count / every) - 1));
    const start = (r * Math.ceil(cols / every) + c) * bands;
    const curves = [];
    if (truth) curves.push(["series series-1", `mean of ${nameOf(truth)}${truth === predicted ? "" : " (truth)"}`, means[truth - 1]]);
    if (predicted && predicted !== truth) curves.push(["series series-2", `mean of ${nameOf(predicted)} (predicted)`, means[predicted - 1]]);
    const values = Array.from({ length: bands }, (_, b) => low[b] + step[b] * spectra[start + b]);
    curves.push(["this", every > 1 ? `row ${r * every}, column ${c * every}` : "this pixel", values]);
    const all = curves.flatMap((curve) => curve[2]);
    let [least, most] = [Math.min(...all), Math.max(...all)];
    if (!(most > least)) [least, most] = [least - 1, most + 1];
    [least, most] = [least - 0.03 * (most - least), most + 0.03 * (most - least)];
    const [first, last] = [Math.min(...positions), Math.max(...positions)];
    const x = (position) => 52 + 356 * (last > first ? (position - first) / (last - first) : 0.5);
    const y = (value) => 208 - 196 * ((value - least) / (most - least));
    const parts = [];
    for (const value of ticks(least, most)) {
      const text = Math.abs(value) >= 1e5 ? value.toExponential(1) : value;
      parts.push(element("path", "", { class: "grid", d: `M52 ${y(value)}H408` }));
      parts.push(element("text", text, { x: 46, y: y(value) + 3.5, "text-anchor": "end", "data-value": value }));
    }
    for (const value of last > first ? ticks(first, last) : [first]) {
      parts.push(element("path", "", { class: "grid", d: `M${x(value)} 208v4` }));
      parts.push(element("text", value, { x: x(value), y: 225, "text-anchor": "middle" }));
    }
    parts.push(element("path", "", { class: "axis", d: "M52 12V208H408" }));
    parts.push(element("text", unit === "nm" ? "wavelength, nm" : "band", { x: 230, y: 244, "text-anchor": "middle" }));
    for (const [style, , curve] of curves) {
      const path = facts.runs.map((run) => "M" + run.map((b) => `${x(positions[b]).toFixed(2)} ${y(curve[b]).toFixed(2)}`).join("L"));
      parts.push(element("path", "", { class: style, d: path.join("") }));
    }
    chart.replaceChildren(...parts);
    $("spectrum-lines").replaceChildren(...curves.map(([style, name]) => {
      const item = element("li");
      const key = element("svg", "", { viewBox: "0 0 26 8", "aria-hidden": "true" });
      key.append(element("path", "", { class: style, d: "M1 4H25" }));
      item.append(key, name);
      return item;
    }));
  }

  function hover(p) {
    if (p === view.hovered) return;
    view.hovered = p;
    show(p < 0 ? view.pinned : p);
    draw();
  }

  function pin(p) {
    view.pinned = p;
    view.hovered = -1;
    show(p);
    say(p);
    draw();
  }

  function step(down, right) {
    const from = view.pinned < 0 ? Math.floor(rows / 2) * cols + Math.floor(cols / 2) : view.pinned;
    const row = Math.min(Math.max(Math.floor(from / cols) + down, 0), rows - 1);
    const col = Math.min(Math.max((from % cols) + right, 0), cols - 1);
    pin(row * cols + col);
    const [x, y] = toScreen(view.pinned);
    const edge = 24;
    const shift = (at, frame) => Math.max(0, edge - at) - Math.max(0, at - (frame - edge));
    place(view.x + shift(x, view.width), view.y + shift(y, view.height), view.scale);
  }

  // ------------------------------------------------------------------------------------------ controls
  function update() {
    for (const button of document.querySelectorAll("[data-layer]")) {
      button.setAttribute("aria-pressed", button.dataset.layer === view.layer);
    }
    for (const button of document.querySelectorAll("[data-palette]")) {
      if (button !== document.documentElement) button.setAttribute("aria-pressed", button.dataset.palette === view.palette);
    }
    for (const button of document.querySelectorAll("[data-class]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.class) === view.alone);
    }
    for (const button of document.querySelectorAll("[data-predicted]")) {
      const [truth, predicted] = [Number(button.dataset.truth), Number(button.dataset.predicted)];
      button.setAttribute("aria-pressed", view.cell?.truth === truth && view.cell.predicted === predicted);
    }
    for (const key of document.querySelectorAll(".key")) key.hidden = key.dataset.for !== view.layer;
    $("blend").disabled = view.layer === view.under;
    const numBright = compose();
    const lit = $("lit");
    lit.hidden = !view.cell && !view.alone;
    if (view.cell) {
      lit.firstChild.textContent = `${numBright.toLocaleString("en")} test pixels of ${nameOf(view.cell.truth)} called ${nameOf(view.cell.predicted)}`;
    } else if (view.alone) {
      const by = { truth: "by truth", split: "by truth", errors: "as truth or prediction" }[view.layer] ?? "by prediction";
      lit.firstChild.textContent = `${numBright.toLocaleString("en")} pixels of ${nameOf(view.alone)}, ${by}`;
    }
  }

  function change(changes) {
    Object.assign(view, changes);
    update();
    if (view.cell || view.alone) $("said").textContent = $("lit").firstChild.textContent;
  }

  const clear = () => change({ alone: 0, cell: null });

  for (const button of document.querySelectorAll("[data-layer]")) {
    button.addEventListener("click", () => change({ layer: button.dataset.layer }));
  }
  for (const button of document.querySelectorAll("[data-palette]")) {
    button.addEventListener("click", () => {
      document.documentElement.dataset.palette = button.dataset.palette;
      delete painted.prediction;
      delete painted.truth;
      change({ palette: button.dataset.palette });
    });
  }
  for (const button of document.querySelectorAll("[data-class]")) {
    button.addEventListener("click", () => {
      const chosen = Number(button.dataset.class);
      change({ alone: chosen === view.alone ? 0 : chosen, cell: null });
    });
  }
  for (const button of document.querySelectorAll("[data-predicted]")) {
    button.addEventListener("click", () => {
      const isChosen = button.getAttribute("aria-pressed") === "true";
      const cell = { truth: Number(button.dataset.truth), predicted: Number(button.dataset.predicted) };
      change({ cell: isChosen ? null : cell, alone: 0 });
      if (!isChosen) $("explorer").scrollIntoView({ block: "nearest" });
    });
  }
  $("blend").addEventListener("input", (event) => {
    $("blend-text").textContent = `${event.target.value} %`;
    change({ opacity: event.target.value / 100 });
  });
  $("under").addEventListener("change", (event) => change({ under: event.target.value }));
  $("clear").addEventListener("click", () => { clear(); canvas.focus(); });
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-fit").addEventListener("click", showAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { delete painted.errors; update(); });

  document.querySelector(".explore").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowUp: [-far, 0], ArrowDown: [far, 0], ArrowLeft: [0, -far], ArrowRight: [0, far] };
    if (event.key in moves) {
      if (event.target !== canvas) return;  // the slider has arrows of its own
      step(...moves[event.key]);
    } else if (event.key === "+" || event.key === "=") zoom(1.5, toScreen(view.pinned));
    else if (event.key === "-") zoom(1 / 1.5, toScreen(view.pinned));
    else if (event.key === "0") showAll();
    else if (layers[event.key - 1]) change({ layer: layers[event.key - 1] });
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.002), [event.offsetX, event.offsetY]);
  }, { passive: false });

  const pointers = new Map();
  let hasMoved = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!pointers.size) hasMoved = false;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (pointers.size > 1) hasMoved = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = [event.offsetX, event.offsetY];
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(toPixel(...now));
    } else if (pointers.size === 1) {
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
      if (!hasMoved && Math.hypot(dx, dy) < 4) return;
      hasMoved = true;
      pointers.set(event.pointerId, now);
      place(view.x + dx, view.y + dy, view.scale);
    } else {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
      const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      pointers.set(event.pointerId, now);
      zoom(apart(now, other) / apart(before, other), middle(before, other), middle(now, other));
    }
  });
  const release = (event) => {
    const at = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (!at || hasMoved || event.type === "pointercancel") return;
    const p = toPixel(event.offsetX, event.offsetY);
    if (p >= 0) pin(p);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => hover(-1));

  // ------------------------------------------------------------------------------------------ begin
  $("wait").remove();
  update();
  const worst = map.truth.findIndex((truth, p) => map.sides[p] === facts.test && truth !== map.prediction[p]);
  view.pinned = worst >= 0 ? worst : Math.max(0, map.truth.findIndex((truth) => truth > 0));
  show(view.pinned);
  if (document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  ({ spectra } = await unpack("spectra"));
  show(view.hovered < 0 ? view.pinned : view.hovered);
  document.documentElement.dataset.ready = "";
  performance.mark("ready");
})();
