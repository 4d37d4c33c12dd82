"use strict";
// Tables sort by a click on a heading; numbers by data-value, other cells by their text.
for (const heading of document.querySelectorAll("table.sortable th")) {
  const button = heading.querySelector("button");
  button.addEventListener("click", () => {
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // Empty cells stay at the end.
      const numbers = !isNaN(x) && !isNaN(y);
      const order = numbers ? x - y : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
// A switch for each method shows or hides its curves in every figure.
for (const box of document.querySelectorAll("input[data-curve]")) {
  const show = () => {
    for (const part of document.querySelectorAll(`[id^="curve-${box.dataset.curve}-"]`)) part.style.display = box.checked ? "" : "none";
  };
  box.addEventListener("change", show);
  show();
}
// A field that keeps the rows with a text.
const filter = document.getElementById("filter");
if (filter) {
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const row of document.querySelectorAll("table.sortable tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
