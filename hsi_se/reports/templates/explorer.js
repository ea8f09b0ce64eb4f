// The map explorer: layers, the pixel under the pointer, the legend and the confusion cells that light pixels up.
// Classes are counted from 1; 0 is unlabelled, or not measured.
(async () => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($("facts").textContent);
  const { rows, cols, classes, layers, thinned } = facts;
  const size = rows * cols;
  const canvas = $("map");
  const pen = canvas.getContext("2d");
  const { element } = Chart;
  const ground = locateMap(facts);
  const toScene = (p) => [thinned * Math.floor(p / cols), thinned * (p % cols)];  // row and column

  let map;
  try {
    map = await unpack("maps", facts);
  } catch {
    $("wait").textContent = "This browser cannot unpack the map; a newer one can.";
    return;
  }
  const numTop = map.top_classes.length / size;

  // ------------------------------------------------------------------------------------------ layers
  const LIT = [255, 220, 0];
  const view = {
    layer: "prediction", under: "picture", opacity: 1, palette: "usual", alone: 0, cell: null,
    scale: 1, x: 0, y: 0, width: 0, height: 0, pinned: -1, hovered: -1,
  };
  const painted = {};
  const painters = makePainters(facts, map, () =>
    classes.map((each) => toRgb(view.palette === "usual" ? each.colour : each.distinct)));
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
      ground.drawBar($("bar"), view.scale / thinned, view.width);
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
    if (!isFirst) remember();
    draw();
  }

  function zoom(factor, [x, y] = [view.width / 2, view.height / 2], [toX, toY] = [x, y]) {
    const scale = limit(view.scale * factor);  // what was at (x, y) is at (toX, toY) afterwards
    const ratio = scale / view.scale;
    place(toX - (x - view.x) * ratio, toY - (y - view.y) * ratio, scale);
  }

  const showAll = () => place(0, 0, 0);

  // ------------------------------------------------------------------------------------------ the address
  let due = null;
  function remember() {  // what was changed, once it is still; browsers refuse many changes a second
    clearTimeout(due);
    due = setTimeout(() => {
      const [row, col] = [view.height, view.width].map((side, i) => (side / 2 - [view.y, view.x][i]) / view.scale);
      const zoom = view.scale / fitScale();
      const parts = [`layer=${view.layer}`, `pixel=${toScene(view.pinned)}`];
      if (zoom > 1.01) parts.push(`zoom=${zoom.toFixed(3)}`, `at=${row.toFixed(2)},${col.toFixed(2)}`);
      history.replaceState(null, "", `#${parts.join("&")}`);
    }, 250);
  }

  function follow() {
    const { layer, pixel, zoom: times, at } = readAddress(facts);
    if (times) {
      const scale = limit(times * fitScale());
      place(view.width / 2 - at[1] * scale, view.height / 2 - at[0] * scale, scale);
    }
    if (layer) change({ layer });
    if (pixel !== undefined) pin(pixel);
  }
  addEventListener("hashchange", follow);

  let isFirst = true;
  new ResizeObserver(() => {
    const wasWhole = view.scale <= fitScale() * 1.01;
    const ratio = window.devicePixelRatio || 1;
    [view.width, view.height] = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = [view.width * ratio, view.height * ratio];
    place(view.x, view.y, wasWhole ? 0 : view.scale);
    if (isFirst) follow();
    isFirst = false;
  }).observe(canvas);

  // ------------------------------------------------------------------------------------------ one pixel
  let spectra = null;
  const nameOf = (place) => (place ? `${classes[place - 1].label} ${classes[place - 1].name}` : "unlabelled");

  const gateOf = (p) => facts.gate.low + ((facts.gate.high - facts.gate.low) * (map.gate[p] - 1)) / 65534;

  function named(place, none) {
    if (!place) return [none];
    return [element("i", "", { class: "swatch", style: `background:var(--class-${place})` }), nameOf(place)];
  }

  function show(p) {
    if (p < 0) return;
    const [row, col] = toScene(p);
    const [truth, predicted] = [map.truth[p], map.prediction[p]];
    $("place").textContent = `row ${row}, column ${col}`;
    $("truth").replaceChildren(...named(truth, "unlabelled"));
    $("prediction").replaceChildren(...named(predicted, "no data"));
    $("prediction").classList.toggle("off", truth > 0 && predicted > 0 && truth !== predicted);
    $("side").textContent = facts.sides[map.sides[p]].name;
    if (map.polygons) $("polygon").textContent = map.polygons[p] || "none";
    if (map.gate) $("gate").textContent = map.gate[p] ? gateOf(p).toFixed(3) : "not measured";
    ground.show(row, col);
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
    const [row, col] = toScene(p);
    $("said").textContent = `Row ${row}, column ${col}: truth ${nameOf(truth)}, `
      + (predicted ? `predicted ${nameOf(predicted)}, ${share} %.` : "no data.");
  }

  function drawSpectrum(row, col, truth, predicted) {
    if (!spectra) return;
    const { positions, every, low, step, means, unit, runs, shape } = facts;
    const bands = positions.length;
    const [r, c] = [row, col].map((at, side) => Math.min(Math.round(at / every), Math.ceil(shape[side] / every) - 1));
    const start = (r * Math.ceil(shape[1] / every) + c) * bands;
    const curves = [];
    const add = (style, name, values) => curves.push({ style, name, values });
    if (truth) add("series series-1", `mean of ${nameOf(truth)}${truth === predicted ? "" : " (truth)"}`, means[truth - 1]);
    if (predicted && predicted !== truth) add("series series-2", `mean of ${nameOf(predicted)} (predicted)`, means[predicted - 1]);
    const values = Array.from({ length: bands }, (_, b) => low[b] + step[b] * spectra[start + b]);
    add("this", every > 1 ? `row ${r * every}, column ${c * every}` : "this pixel", values);
    Chart.draw($("spectrum"), $("spectrum-lines"), { positions, runs, unit, curves });
  }

  function hover(p) {
    if (p === view.hovered) return;
    view.hovered = p;
    show(p < 0 ? view.pinned : p);
    const tip = $("tip");
    tip.hidden = p < 0;
    if (p >= 0) {
      const [truth, predicted] = [map.truth[p], map.prediction[p]];
      const polygon = map.polygons?.[p] ? `, polygon ${map.polygons[p]}` : "";
      tip.textContent = nameOf(truth) + polygon
        + (truth === predicted ? "" : `; predicted ${predicted ? nameOf(predicted) : "nothing"}`);
      const [x, y] = toScreen(p);
      tip.style.top = `${y + (y < view.height / 2 ? 14 : -40)}px`;
      tip.style.left = x < view.width / 2 ? `${x + 14}px` : "auto";
      tip.style.right = x < view.width / 2 ? "auto" : `${view.width - x + 14}px`;
    }
    draw();
  }

  function pin(p) {
    view.pinned = p;
    hover(-1);
    show(p);
    say(p);
    draw();
    if (!isFirst) remember();
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
    const [lit, part] = [$("lit"), thinned > 1 ? " of those shown" : ""];
    lit.hidden = !view.cell && !view.alone;
    if (view.cell) {
      lit.firstChild.textContent = `${numBright.toLocaleString("en")} test pixels of ${nameOf(view.cell.truth)} called ${nameOf(view.cell.predicted)}${part}`;
    } else if (view.alone) {
      const by = { truth: "by truth", split: "by truth", errors: "as truth or prediction" }[view.layer] ?? "by prediction";
      lit.firstChild.textContent = `${numBright.toLocaleString("en")} pixels of ${nameOf(view.alone)}, ${by}${part}`;
    }
  }

  function change(changes) {
    Object.assign(view, changes);
    update();
    if (!isFirst) remember();
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
  $("save-map").addEventListener("click", async () => {  // as shown, several points a pixel
    const times = Math.max(1, Math.round(1200 / Math.max(rows, cols)));
    const copy = new OffscreenCanvas(times * cols, times * rows);
    const print = copy.getContext("2d");
    print.imageSmoothingEnabled = false;
    print.drawImage(sheet, 0, 0, copy.width, copy.height);
    saveFile(`${facts.name}-${view.layer}.png`, await copy.convertToBlob());
  });
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-fit").addEventListener("click", showAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { delete painted.errors; update(); });

  let isOver = false;  // the pointer is over the map
  canvas.parentElement.addEventListener("pointerenter", () => { isOver = true; });
  canvas.parentElement.addEventListener("pointerleave", () => { isOver = false; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.target.matches("select") && !isOver)) return;
    if (!isOver && !event.target.closest(".explore")) return;
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

  let hint = null;
  canvas.addEventListener("wheel", (event) => {  // the wheel scrolls the page; a pinch on a touchpad comes with Ctrl
    if (!event.ctrlKey && !event.metaKey) {
      $("wheel").hidden = false;
      clearTimeout(hint);
      hint = setTimeout(() => { $("wheel").hidden = true; }, 1200);
      return;
    }
    event.preventDefault();
    $("wheel").hidden = true;
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
  ({ spectra } = await unpack("spectra", facts));
  show(view.hovered < 0 ? view.pinned : view.hovered);
  document.documentElement.dataset.ready = "";
  performance.mark("ready");
})();
