"use strict";
// Plots, the theme and two searchable lists. Text of models and users reaches the page by textContent alone.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const PLOTS = read("plots");
const ROWS = read("rows");
const SHOWN = 25;

// --- theme ---------------------------------------------------------------------------------------------------------
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
const button = document.getElementById("theme");

function remember(theme) {
  try { localStorage.setItem("croco-theme", theme); } catch { /* a browser may forbid it for files */ }
}
function recall() {
  try { return localStorage.getItem("croco-theme"); } catch { return null; }
}
function sayTheme() {
  button.textContent = isDark() ? "Light theme" : "Dark theme";
}
function redraw() {
  sayTheme();
  for (const place of document.querySelectorAll(".plot[data-drawn]")) draw(place);
}
button.hidden = false;
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  remember(root.dataset.theme);
  redraw();
});
systemDark.addEventListener("change", redraw);
const stored = recall();
if (stored === "light" || stored === "dark") root.dataset.theme = stored;
sayTheme();

// --- plots ---------------------------------------------------------------------------------------------------------
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
const views = new Map();
const chosen = new Map();

async function draw(place) {
  place.dataset.drawn = "wait";
  const { figure, index } = place.dataset;
  const text = JSON.stringify(PLOTS[figure][index]).replace(/var\(--([\w-]+)\)/g, (_, name) => colour(name));
  const spec = JSON.parse(text);
  for (const param of spec.params ?? []) {
    if (param.name === "shown" && chosen.has(figure)) param.value = chosen.get(figure);
  }
  if (place.clientWidth < 480) {
    spec.config.axis.labelLimit = 0.38 * place.clientWidth;
    spec.config.axisQuantitative.tickCount = 4;
    spec.config.legend.columns = 3;
  }
  views.get(place)?.finalize();
  const result = await vegaEmbed(place, spec, { actions: false, renderer: "svg", logLevel: 1, tooltip: { theme: isDark() ? "dark" : "light" } });
  views.set(place, result);
  // The figure has its text already; the marks' own labels would be read one by one.
  place.querySelector("svg")?.setAttribute("aria-hidden", "true");
  place.dataset.drawn = "yes";
}
const places = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "600px" });
for (const place of places) watcher.observe(place);
addEventListener("beforeprint", () => places.filter((place) => !place.dataset.drawn).forEach(draw));
for (const select of document.querySelectorAll("select[data-figure]")) {
  select.disabled = false;
  select.addEventListener("change", () => {
    chosen.set(select.dataset.figure, select.value);
    for (const place of places) {
      if (place.dataset.figure === select.dataset.figure) views.get(place)?.view.signal("shown", select.value).runAsync();
    }
  });
}

// --- lists ---------------------------------------------------------------------------------------------------------
function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

function list(form, rows, filters, haystack, summarise, open) {
  const [status, target, more] = ["status", "records", "more"].map((part) => document.getElementById(`${form.id}-${part}`));
  const texts = rows.map((row) => haystack(row).toLowerCase());
  let limit = SHOWN;
  for (const name of filters) {
    const values = [...new Set(rows.map((row) => String(row[name])))].sort();
    for (const value of values) {
      const option = make("option", null, value);
      option.value = value;
      form.elements[name].append(option);
    }
  }
  function show() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row, i) =>
      filters.every((name) => !form.elements[name].value || String(row[name]) === form.elements[name].value) &&
      words.every((word) => texts[i].includes(word)));
    status.textContent = `${found.length} of ${rows.length} ${found.length === 1 ? "fits" : "fit"}${found.length > limit ? `, the first ${limit} are shown` : ""}.`;
    target.replaceChildren(...found.slice(0, limit).map((row) => {
      const item = make("li");
      const details = make("details");
      const summary = make("summary");
      summary.append(...summarise(row));
      details.append(summary);
      details.addEventListener("toggle", () => {
        if (details.open && details.childElementCount === 1) details.append(open(row));
      });
      item.append(details);
      return item;
    }));
    more.hidden = found.length <= limit;
  }
  form.addEventListener("input", () => { limit = SHOWN; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += 4 * SHOWN; show(); });
  form.hidden = false;
  show();
}

function block(title, text) {
  const part = make("div");
  part.append(make("p", "text-title", title));
  const box = make("div", "text", text);
  box.dir = "auto";
  box.tabIndex = 0;
  part.append(box);
  return part;
}

const exampleForm = document.getElementById("search");
if (exampleForm) {
  list(exampleForm, ROWS.examples, ["kind", "language", "run", "verdict"],
    (row) => [row.id, row.prompt, row.left, row.right, row.facts, row.reply ?? ""].join("\n"),
    (row) => [
      make("span", `tag ${row.verdict}`, `${row.kind} · ${row.verdict}`),
      make("span", null, row.prompt.length > 110 ? `${row.prompt.slice(0, 110)}…` : row.prompt || row.id),
      make("span", "tag", `${row.language} · ${row.run}`),
    ],
    (row) => {
      const body = make("div", "body");
      body.append(make("p", "note", `${row.id}: ${row.facts}`), block("Prompt", row.prompt));
      const sides = make("div", "sides");
      const titles = row.kind === "pair" ? ["Chosen", "Rejected"] : ["Tuned", "Base"];
      sides.append(block(titles[0], row.left), block(titles[1], row.right));
      body.append(sides);
      if (row.reply) body.append(block("The judge's reply, both orders", row.reply));
      return body;
    });
}

const manifestForm = document.getElementById("manifests");
if (manifestForm) {
  const rows = ROWS.rows.map((row) => ({ ...row, code_state: row.dirty ? "uncommitted changes" : "committed" }));
  list(manifestForm, rows, ["stage", "code_state"],
    (row) => [row.file, row.stage, row.commit ?? "", row.seed ?? "", ...row.inputs.flat()].join("\n"),
    (row) => [
      make("span", "tag", row.stage),
      make("span", null, row.file),
      make("span", `tag ${row.dirty ? "dirty" : ""}`, `${(row.commit ?? "outside git").slice(0, 10)}${row.dirty ? ", uncommitted changes" : ""}`),
    ],
    (row) => {
      const body = make("div", "body wide");
      const table = make("table");
      const versions = Object.entries(ROWS.versions[row.versions]).filter(([, version]) => version).map((pair) => pair.join(" ")).join(", ");
      const lines = [["code commit", row.commit ?? "outside git"], ["uncommitted changes", row.dirty ? "yes" : "no"], ["code digest", row.code], ["seed", row.seed ?? "none"],
        ["versions", `set ${row.versions + 1}: ${versions}`], ["started", row.started], ["seconds", row.seconds], ["peak memory (MB)", row.memory], ["GPUs", row.gpus ?? "unknown"],
        ...row.inputs.map(([name, digest]) => [`input ${name}`, digest])];
      if (row.more) lines.push(["inputs", `${row.more} more: see the file`]);
      for (const [name, value] of lines) {
        const line = make("tr");
        const head = make("th", null, name);
        head.scope = "row";
        line.append(head, make("td", null, value ?? "–"));
        table.append(line);
      }
      body.append(table);
      return body;
    });
}

// --- tables that are sorted by a click on a column's name ------------------------------------------------------------
const valueOf = (row, column) => {
  const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
  return text === "" ? null : Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
};
function sortRows(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what was not measured is last in both orders
    return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
  });
  body.append(...rows.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const sort = make("button", null, head.textContent);
    sort.type = "button";
    sort.addEventListener("click", () => {
      const descending = head.ariaSort ? head.ariaSort !== "descending" : head.classList.contains("number");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, column, descending);
    });
    head.replaceChildren(sort);
  });
}

// --- where one is ----------------------------------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll(".side li a")].map((link) => [link.hash.slice(1), link]));
const sections = [...document.querySelectorAll("main > section")];
function markCurrent() {
  const atEnd = scrollY + innerHeight >= root.scrollHeight - 2;
  const begun = sections.filter((section) => section.getBoundingClientRect().top <= innerHeight / 3);
  const current = (atEnd ? sections : begun).at(-1) ?? sections[0];
  for (const [id, link] of links) {
    if (id === current.id) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("scroll", () => requestAnimationFrame(markCurrent), { passive: true });
markCurrent();
// The heights that charts reserve are close, not exact: all charts above the target are drawn before the page goes there.
async function land() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const above = places.filter((place) => place.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING);
  await Promise.all(above.filter((place) => !place.dataset.drawn).map(draw));
  target.scrollIntoView({ behavior: "instant" });
}
addEventListener("hashchange", land);
land();
const contents = document.getElementById("contents");
if (matchMedia("(max-width: 60rem)").matches) contents.open = false;
