"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), place = head.cellIndex;
    const number = head.classList.contains("number");
    // Of numbers the largest is what one looks for first.
    const order = head.ariaSort ?? "";
    const down = order === "" ? number : order === "ascending";
    const key = (row) => number ? parseFloat(row.cells[place].dataset.key ?? "NaN") : row.cells[place].innerText;
    const compare = (a, b) => number ? a - b : a.localeCompare(b, undefined, { numeric: true });
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (number && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
      return down ? compare(b, a) : compare(a, b);
    });
    for (const other of table.querySelectorAll("th")) other.ariaSort = null;
    head.ariaSort = down ? "descending" : "ascending";
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
