// Where a pixel lies on the ground, and what the address of the page keeps of the map.
function locateMap({ nodes, axes, shape: [rows, cols] }) {
  const isKnown = nodes.length > 0;
  const hasDegrees = isKnown && nodes[0][0].length > 2;

  // The values at a position, counted in pixels from the upper left corner: between four nodes, linearly.
  function at(row, col) {
    const last = nodes.length - 1;
    const [down, right] = [(row / rows) * last, (col / cols) * last];
    const [i, j] = [down, right].map((value) => Math.min(Math.max(Math.floor(value), 0), last - 1));
    const [v, u] = [down - i, right - j];
    return nodes[i][j].map((_, k) => (1 - v) * ((1 - u) * nodes[i][j][k] + u * nodes[i][j + 1][k])
      + v * ((1 - u) * nodes[i + 1][j][k] + u * nodes[i + 1][j + 1][k]));
  }

  function countMetres() {  // along a row, per pixel; null if unknown
    if (!isKnown) return null;
    const [[x0, y0, east0, north0], [x1, y1, east1, north1]] = [at(rows / 2, 0), at(rows / 2, cols)];
    if (axes[0].endsWith(", m")) return Math.hypot(x1 - x0, y1 - y0) / cols;
    if (!hasDegrees) return null;
    const degree = 111320;
    const narrowing = Math.cos(((north0 + north1) / 2) * (Math.PI / 180));
    return Math.hypot((east1 - east0) * degree * narrowing, (north1 - north0) * degree) / cols;
  }

  const metres = countMetres();
  const digits = isKnown && axes[0].endsWith("°") ? 6 : 1;

  function show(row, col) {  // of the middle of a pixel
    if (!isKnown) return;
    const [x, y, longitude, latitude] = at(row + 0.5, col + 0.5);
    const write = (value, places) =>
      value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
    const isGeographic = axes[0].startsWith("longitude");
    const values = isGeographic ? [] : [["x", axes[0], write(x, digits)], ["y", axes[1], write(y, digits)]];
    if (hasDegrees) values.push(["latitude", "latitude, °", latitude.toFixed(6)], ["longitude", "longitude, °", longitude.toFixed(6)]);
    for (const [id, name, text] of values) {
      const value = document.getElementById(id);
      value.textContent = text;
      value.previousElementSibling.textContent = name;
      value.parentElement.hidden = false;
    }
  }

  function drawBar(bar, scale, width) {  // at most a third of the frame, at 1, 2 or 5
    bar.hidden = metres === null;
    if (bar.hidden) return;
    const most = (width / 3 / scale) * metres;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((part) => part * power).find((each) => each <= most);
    bar.style.width = `${(length / metres) * scale}px`;
    bar.firstChild.textContent = length < 1000 ? `${+length.toPrecision(3)} m` : `${+(length / 1000).toPrecision(3)} km`;
  }

  return { show, drawBar };
}

// `#layer=errors&pixel=12,30&zoom=2.5&at=10.5,31.0`; what is not valid is left out.
function readAddress({ layers, rows, cols, thinned }) {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = {};
  const numbers = (name, count) => {
    const values = (given.get(name) ?? "").split(",").map((text) => (text.trim() ? Number(text) : NaN));
    return values.length === count && values.every(Number.isFinite) ? values : null;
  };
  if (layers.includes(given.get("layer"))) found.layer = given.get("layer");
  const pixel = numbers("pixel", 2)?.map((at) => (Number.isInteger(at) ? Math.floor(at / thinned) : NaN));
  if (pixel?.every(Number.isInteger) && pixel[0] >= 0 && pixel[0] < rows && pixel[1] >= 0 && pixel[1] < cols) {
    found.pixel = pixel[0] * cols + pixel[1];
  }
  const [zoom, at] = [numbers("zoom", 1), numbers("at", 2)];
  if (zoom && zoom[0] >= 1) Object.assign(found, { zoom: zoom[0], at: at ?? [rows / 2, cols / 2] });
  return found;
}
