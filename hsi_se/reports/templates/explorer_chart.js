// Charts of lines over the bands: as wide as their place, with text of one size.
const Chart = (() => {
  const HEIGHT = 250;
  const LEFT = 58;

  function element(tag, text = "", attributes = {}) {
    const made = tag === "path" || tag === "svg" || tag === "text"
      ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function ticks(low, high, most) {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10, 20].map((part) => part * power)
      .find((each) => Math.floor(high / each) - Math.ceil(low / each) < most);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, n) => +((first + n) * step).toPrecision(9));
  }

  // A curve has a style, the name in the key, values (null where there is none), and maybe a colour.
  function drawNow(chart, key, { positions, runs, unit, curves }) {
    const width = Math.max(chart.clientWidth, 260);
    const [right, bottom] = [width - 20, HEIGHT - 42];
    chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const all = curves.flatMap((curve) => curve.values).filter((value) => value !== null);
    let [least, most] = [Math.min(...all), Math.max(...all)];
    if (!(most > least)) [least, most] = [least - 1, most + 1];
    [least, most] = [least - 0.03 * (most - least), most + 0.03 * (most - least)];
    const [first, last] = [Math.min(...positions), Math.max(...positions)];
    const x = (position) => LEFT + (right - LEFT) * (last > first ? (position - first) / (last - first) : 0.5);
    const y = (value) => bottom - (bottom - 12) * ((value - least) / (most - least));
    const parts = [];
    for (const value of ticks(least, most, 6)) {
      const text = Math.abs(value) >= 1e5 ? value.toExponential(1) : value;
      parts.push(element("path", "", { class: "grid", d: `M${LEFT} ${y(value)}H${right}` }));
      parts.push(element("text", text, { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end", "data-value": value }));
    }
    for (const value of last > first ? ticks(first, last, Math.max(3, Math.floor(width / 75))) : [first]) {
      parts.push(element("path", "", { class: "grid", d: `M${x(value)} ${bottom}v4` }));
      parts.push(element("text", value, { x: x(value), y: bottom + 18, "text-anchor": "middle" }));
    }
    parts.push(element("path", "", { class: "axis", d: `M${LEFT} 12V${bottom}H${right}` }));
    const name = unit === "nm" ? "wavelength, nm" : "band";
    parts.push(element("text", name, { x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }));
    for (const { style, values, colour } of curves) {
      let path = "";
      for (const run of runs) {
        let command = "M";
        for (const b of run) {
          if (values[b] === null) { command = "M"; continue; }
          path += `${command}${x(positions[b]).toFixed(2)} ${y(values[b]).toFixed(2)}`;
          command = "L";
        }
      }
      parts.push(element("path", "", { class: style, d: path, ...(colour && { style: `--of:${colour}` }) }));
    }
    chart.replaceChildren(...parts);
    key.replaceChildren(...curves.filter((curve) => curve.name).map(({ style, name: said, colour }) => {
      const item = element("li");
      const line = element("svg", "", { viewBox: "0 0 26 8", "aria-hidden": "true" });
      line.append(element("path", "", { class: style, d: "M1 4H25", ...(colour && { style: `--of:${colour}` }) }));
      item.append(line, said);
      return item;
    }));
  }

  const shown = new Map();
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.clientWidth) drawNow(target, ...shown.get(target));
  });

  function draw(chart, key, content) {
    const isNew = !shown.has(chart);
    shown.set(chart, [key, content]);
    drawNow(chart, key, content);
    if (isNew) observer.observe(chart);
  }

  return { draw, element };
})();

for (const chart of document.querySelectorAll("[data-gate]")) {
  const { gates, classes } = JSON.parse(document.getElementById("facts").textContent);
  const { positions, unit, runs, mean_excitation: rows, classes: places } = gates[chart.dataset.gate];
  const curves = rows.map((values, i) => {
    const place = places[i];
    return { style: "of-class", name: `${classes[place - 1].label} ${classes[place - 1].name}`, values, colour: `var(--class-${place})` };
  });
  const mean = positions.map((_, b) => {
    const known = rows.map((row) => row[b]).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  });
  curves.push({ style: "this", name: "mean of the classes", values: mean });
  Chart.draw(chart, chart.nextElementSibling, { positions, runs, unit, curves });
}
