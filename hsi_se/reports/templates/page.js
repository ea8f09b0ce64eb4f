"use strict";
// What every page can do: sort a table by a column, and copy a text.

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const column = [...heading.parentElement.children].indexOf(heading);
    const body = heading.closest("table").tBodies[0];
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const isText = heading.classList.contains("text");
    const compare = (a, b) => {
      if (isText) return value(a).localeCompare(value(b));
      const [left, right] = [Number(value(a)), Number(value(b))];
      if (Number.isNaN(left) || Number.isNaN(right)) {  // what has no value comes last either way
        return direction * (Number.isNaN(left) - Number.isNaN(right));
      }
      return left - right;
    };
    body.append(...[...body.rows].sort((a, b) => direction * compare(a, b)));
  });
}

function offerCopy(button, read) {
  const text = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(read());
      button.textContent = "Copied";
    } catch {
      button.textContent = "This browser does not let a page copy; select the text";
    }
    setTimeout(() => { button.textContent = text; }, 2500);
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  offerCopy(button, () => document.getElementById(button.dataset.copy).textContent);
}

function saveFile(name, blob) {
  const link = document.createElement("a");
  [link.download, link.href] = [name, URL.createObjectURL(blob)];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function makeButton(text, onClick) {
  const button = document.createElement("button");
  [button.type, button.textContent] = ["button", text];
  if (onClick) button.addEventListener("click", onClick);
  return button;
}

const toFileName = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");

// Every table can be copied and saved, and says when it is wider than its place.
for (const region of document.querySelectorAll(".scroll")) {
  const table = region.querySelector("table");
  const title = region.getAttribute("aria-label") ?? document.getElementById(region.getAttribute("aria-labelledby")).textContent;
  const read = () => [...table.rows].map((row) => [...row.cells].map((cell) => guard(cell.textContent.trim().replace(/\s+/g, " "))));
  const guard = (text) => (/^([=+@\t\r]|-(?!\d))/.test(text) ? `'${text}` : text);  // no cell is a formula
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const toCsv = () => read().map((row) => row.map(quote).join(",")).join("\r\n") + "\r\n";
  const tools = document.createElement("div");
  tools.className = "tools export";
  const copy = makeButton("Copy table");
  offerCopy(copy, () => read().map((row) => row.join("\t")).join("\n"));
  tools.append(copy, makeButton("CSV", () => saveFile(`${toFileName(title)}.csv`, new Blob(["\ufeff", toCsv()], { type: "text/csv" }))));
  for (const button of tools.children) button.setAttribute("aria-label", `${button.textContent}: ${title}`);
  const more = document.createElement("p");
  more.className = "more";
  more.textContent = "The table is wider than the page: scroll it sideways →";
  region.before(more);
  region.after(tools);
  const check = () => {
    more.hidden = region.scrollWidth <= region.clientWidth + 1;
    region.classList.toggle("cut", region.scrollLeft + region.clientWidth < region.scrollWidth - 1);
  };
  region.addEventListener("scroll", check, { passive: true });
  new ResizeObserver(check).observe(region);
}

for (const figure of document.querySelectorAll(".drawn")) {
  const title = figure.querySelector("figcaption").textContent;
  const save = makeButton("SVG", () => {
    const text = new XMLSerializer().serializeToString(figure.querySelector("svg"));
    saveFile(`${toFileName(title)}.svg`, new Blob([text], { type: "image/svg+xml" }));
  });
  save.setAttribute("aria-label", `SVG: ${title}`);
  const tools = document.createElement("div");
  tools.className = "tools export";
  tools.append(save);
  figure.append(tools);
}

// What the pointer shows as the title of a part of a figure, the keyboard shows as well.
for (const stop of document.querySelectorAll(".stop")) {
  stop.addEventListener("focus", () => {
    const note = document.createElement("div");
    [note.id, note.textContent] = ["note", stop.querySelector("title").textContent];
    note.setAttribute("aria-hidden", "true");
    document.body.append(note);
    const box = stop.getBoundingClientRect();
    note.style.left = `${Math.max(4, Math.min(box.x, innerWidth - note.offsetWidth - 4)) + scrollX}px`;
    note.style.top = `${box.bottom + 6 + scrollY}px`;
    stop.addEventListener("blur", () => note.remove(), { once: true });
  });
}

// A link to what lies in a closed part of the page opens it.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const closed = target && target.closest("details");
  if (!closed) return;
  closed.open = true;
  target.scrollIntoView({ block: "nearest" });
}
addEventListener("hashchange", unfold);
unfold();
