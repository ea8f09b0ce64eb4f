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

for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "This browser does not let a page copy; select the text";
    }
    setTimeout(() => { button.textContent = text; }, 2500);
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
