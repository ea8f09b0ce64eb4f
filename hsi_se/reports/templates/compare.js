// Two maps and their difference under one lens: they zoom, move and mark a pixel together.
(async () => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const [rows, cols] = facts.shape;
  const { truth, map_0: one, map_1: other } = await unpack("maps", facts);
  const colours = [DARK, ...facts.classes.map((each) => toRgb(each.colour))];
  const [gained, lost, changed] = ["#3f7fb5", "#ff8a3c", "#b9b9b9"].map(toRgb);
  const pick = [
    (p) => colours[one[p]],
    (p) => colours[other[p]],
    (p) => {
      if (one[p] === other[p]) return DARK;
      if (truth[p] && other[p] === truth[p]) return gained;
      return truth[p] && one[p] === truth[p] ? lost : changed;
    },
  ];
  const canvases = [...document.querySelectorAll("[data-map]")];
  const sheets = pick.map((colour) => {
    const image = new ImageData(cols, rows);
    for (let p = 0; p < rows * cols; p++) image.data.set([...colour(p), 255], 4 * p);
    const sheet = new OffscreenCanvas(cols, rows);
    sheet.getContext("2d").putImageData(image, 0, 0);
    return sheet;
  });
  const view = { zoom: 1, row: 0, col: 0, pixel: -1 };  // the upper left corner, in pixels of the scene

  function draw() {
    view.zoom = Math.min(Math.max(view.zoom, 1), 32);
    view.row = Math.min(Math.max(view.row, 0), rows - rows / view.zoom);
    view.col = Math.min(Math.max(view.col, 0), cols - cols / view.zoom);
    canvases.forEach((canvas, i) => {
      const ratio = window.devicePixelRatio || 1;
      [canvas.width, canvas.height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
      const pen = canvas.getContext("2d");
      const scale = (canvas.width / cols) * view.zoom;
      pen.imageSmoothingEnabled = scale < 1;
      pen.drawImage(sheets[i], -view.col * scale, -view.row * scale, cols * scale, rows * scale);
      if (view.pixel < 0) return;
      const side = Math.max(scale, 7);
      const [x, y] = [(view.pixel % cols) + 0.5 - view.col, Math.floor(view.pixel / cols) + 0.5 - view.row];
      for (const [width, colour] of [[4, "#000"], [2, "#fff"]]) {
        [pen.lineWidth, pen.strokeStyle] = [width, colour];
        pen.strokeRect(x * scale - side / 2, y * scale - side / 2, side, side);
      }
    });
    if (view.pixel < 0) return;
    const name = (place, none) => (place ? facts.classes[place - 1].name : none);
    const p = view.pixel;
    document.getElementById("lens").textContent = `Row ${facts.thinned * Math.floor(p / cols)}, column ${facts.thinned * (p % cols)}: truth `
      + `${name(truth[p], "unlabelled")}; ${name(one[p], "no data")} and ${name(other[p], "no data")}.`;
  }

  function zoom(factor, row = view.row + rows / view.zoom / 2, col = view.col + cols / view.zoom / 2) {
    const before = view.zoom;
    view.zoom = Math.min(Math.max(before * factor, 1), 32);
    [view.row, view.col] = [row - (row - view.row) * (before / view.zoom), col - (col - view.col) * (before / view.zoom)];
    draw();
  }

  for (const canvas of canvases) {
    const at = (event) => [
      view.row + (event.offsetY / canvas.clientHeight) * (rows / view.zoom),
      view.col + (event.offsetX / canvas.clientWidth) * (cols / view.zoom),
    ];
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) {
        view.row -= (event.movementY / canvas.clientHeight) * (rows / view.zoom);
        view.col -= (event.movementX / canvas.clientWidth) * (cols / view.zoom);
      } else {
        const [row, col] = at(event).map(Math.floor);
        if (row >= 0 && row < rows && col >= 0 && col < cols) view.pixel = row * cols + col;
      }
      draw();
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * 0.002), ...at(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const now = view.pixel < 0 ? 0 : view.pixel;
      const row = Math.min(Math.max(Math.floor(now / cols) + move[0], 0), rows - 1);
      view.pixel = row * cols + Math.min(Math.max((now % cols) + move[1], 0), cols - 1);
      draw();
    });
    new ResizeObserver(draw).observe(canvas);
  }
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1.5));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("zoom-fit").addEventListener("click", () => zoom(1 / 32));
  draw();
  document.documentElement.dataset.ready = "";
})();
