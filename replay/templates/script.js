"use strict";
// The page is whole without this: it adds finding, sorting and reading values off the charts.
for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;

// Values under the pointer, or under the arrow keys, from the table below each chart.
for (const chart of document.querySelectorAll(".chart")) {
  const plot = chart.querySelector(".plot");
  if (!plot) continue;
  const cross = plot.querySelector(".cross");
  const readout = plot.querySelector(".readout");
  const names = [...chart.querySelectorAll(".values thead th")].map((cell) => cell.textContent);
  const rows = [...chart.querySelectorAll(".values tbody tr")];
  let at = -1;
  const show = (index) => {
    at = Math.max(0, Math.min(rows.length - 1, index));
    const row = rows[at];
    if (!row) return;
    const [x, width] = [Number(row.dataset.x), Number(row.dataset.width)];
    cross.style.left = x + "%";
    cross.style.width = width + "%";
    const title = document.createElement("b");
    title.textContent = row.cells[0].textContent;
    const lines = names.slice(1).map((name, index) => {
      const line = document.createElement("div");
      line.textContent = name + ": " + row.cells[index + 1].textContent;
      return line;
    });
    readout.replaceChildren(title, ...lines);
    const right = x + width / 2 > 50;
    readout.style.left = right ? "auto" : x + width + "%";
    readout.style.right = right ? 100 - x + "%" : "auto";
    cross.hidden = readout.hidden = false;
    plot.setAttribute("aria-valuenow", at);
    plot.setAttribute("aria-valuetext", readout.innerText.replaceAll("\n", ", "));
  };
  const hide = () => { cross.hidden = readout.hidden = true; };
  // To a screen reader a picture becomes something to move along.
  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-valuemin", 0);
  plot.setAttribute("aria-valuemax", rows.length - 1);
  plot.setAttribute("aria-valuenow", 0);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * rows.length));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("focus", () => show(at < 0 ? 0 : at));
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: rows.length - 1 };
    if (event.key === "Escape") return hide();
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(moves[event.key]);
  });
}

// Finding and sorting effects.
const table = document.querySelector("table.effects");
if (table) {
  const find = document.getElementById("find");
  const outcome = document.getElementById("outcome");
  const count = document.getElementById("count");
  const bodies = [...table.tBodies];
  const texts = new Map();
  const text = (body) => {
    if (!texts.has(body)) texts.set(body, body.textContent.toLowerCase());
    return texts.get(body);
  };
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const body of bodies) {
      const fits = !outcome.value || body.dataset.result === outcome.value
        || (outcome.value === "abandoned" && body.classList.contains("is-abandoned"));
      body.hidden = !(fits && words.every((word) => text(body).includes(word)));
      if (!body.hidden) shown += 1;
    }
    count.textContent = shown === bodies.length ? "" : shown + " of " + bodies.length;
  };
  find.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  find.form.addEventListener("submit", (event) => event.preventDefault());

  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (body) => {
        const cell = body.rows[0].cells[column];
        return cell ? cell.dataset.value : "";
      };
      const order = head.dataset.sort === "number"
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => value(a).localeCompare(value(b));
      bodies.sort((a, b) => (descending ? order(b, a) : order(a, b)));
      table.append(...bodies);
    });
  });
}
