"use strict";
// Plots, downloads, the theme, links and two searchable lists. Text of models and users reaches the page by textContent alone.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const PLOTS = read("plots");
const ROWS = read("rows");
const SHOWN = 25;
const RUN = document.documentElement.dataset.run;

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

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

const drawings = new Map();

function draw(place) {
  drawings.set(place, render(place));
  return drawings.get(place);
}
const ensureDrawn = (place) => drawings.get(place) ?? draw(place);
// On paper a plot has a width of its own, a little more than its place, to which the style sheet scales it.
const PAPER_WIDTH = { alone: 450, among: 260 };
let isOnPaper = false;
async function render(place) {
  place.dataset.drawn = "wait";
  const paperWidth = PAPER_WIDTH[place.closest(".many") ? "among" : "alone"];
  const { figure, index } = place.dataset;
  const width = isOnPaper ? Math.max(paperWidth, PLOTS[figure][index].usermeta?.least_width ?? 0) : place.clientWidth;
  const text = JSON.stringify(PLOTS[figure][index]).replace(/var\(--([\w-]+)\)/g, (_, name) => colour(name));
  const spec = JSON.parse(text);
  spec.background = colour("page"); // a downloaded image keeps its background
  for (const param of spec.params ?? []) {
    if (param.name === "shown" && chosen.has(figure)) param.value = chosen.get(figure);
    if (param.name === "space") param.value = width;
  }
  if (isOnPaper) spec.width = width;
  if (width < 480) {
    spec.config.axis.labelLimit = 0.5 * width;
    spec.config.axisX = { titleAnchor: "end", titleFontSize: 11 }; // beside long names, a centred title is cut
    spec.config.axisQuantitative.tickCount = 4;
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
      ensureDrawn(entry.target);
    }
  }
}, { rootMargin: "600px" });
for (const place of places) watcher.observe(place);
// A page may be printed before the reader has scrolled past its plots. A plot in a closed section has no width yet.
const isShown = (place) => place.clientWidth > 0;
const whenIdle = window.requestIdleCallback ?? setTimeout;
function drawRest() {
  const next = places.find((place) => !drawings.has(place) && isShown(place));
  if (next) draw(next).then(() => whenIdle(drawRest));
}
addEventListener("load", () => whenIdle(drawRest));
// For paper, everything is opened and drawn in the light theme. A plot is drawn within the event: its data are in the page.
let afterPrint = () => {};
addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll(":is(.section, .numbers, .methods):not([open])")];
  const theme = root.dataset.theme;
  for (const details of closed) details.open = true;
  root.dataset.theme = "light";
  isOnPaper = true;
  places.forEach(draw);
  afterPrint = () => {
    isOnPaper = false;
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    places.filter(isShown).forEach(draw);
    for (const details of closed) details.open = false;
  };
});
addEventListener("afterprint", () => afterPrint());
for (const select of document.querySelectorAll("select[data-figure]")) {
  select.disabled = false;
  select.addEventListener("change", () => {
    chosen.set(select.dataset.figure, select.value);
    for (const place of places) {
      if (place.dataset.figure === select.dataset.figure) views.get(place)?.view.signal("shown", select.value).runAsync();
    }
  });
}

// --- downloads -------------------------------------------------------------------------------------------------------
function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
const fileName = (...parts) => parts.filter(Boolean).join(" ").replace(/[^\p{L}\p{N}._]+/gu, "-").replace(/^[-.]+|-+$/g, "").slice(0, 120);
function addDownload(tools, format, what, onClick) {
  const button = make("button", "download", format);
  button.type = "button";
  button.setAttribute("aria-label", `${format} of ${what}`);
  button.addEventListener("click", onClick);
  tools.append(button);
}

const copied = document.getElementById("copied");
function say(text) {
  copied.textContent = text;
  setTimeout(() => { copied.textContent = ""; }, 4000);
}

// As croco/spreadsheets.py: a text that a spreadsheet could run as a formula gets an apostrophe.
function guard(text) {
  const bare = text.replace(/^'+/, "");
  const isNumber = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/.test(bare.trim());
  return /^[\t\r]/.test(bare) || (/^[=+\-@＝＋－＠]/.test(bare.trimStart()) && !isNumber) ? `'${text}` : text;
}
// A cell is one value, or with data-csv a list of values: one for each name in the data-csv of its column.
const csvValues = (cell) => (cell.dataset.csv ? JSON.parse(cell.dataset.csv) : [cell.dataset.value ?? cell.textContent.trim()]);
function toCsv(table) {
  const quote = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return [...table.rows].map((row) => [...row.cells].flatMap(csvValues).map((value) => quote(guard(String(value ?? "")))).join(",") + "\n").join("");
}
function addCsv(table, name, where) {
  const tools = make("div", "tools");
  addDownload(tools, "CSV", `the table ${name}`, () => save(new Blob([toCsv(table)], { type: "text/csv" }), `${fileName(RUN, name)}.csv`));
  where.before(tools);
}
for (const table of document.querySelectorAll(".wide > table")) {
  const region = table.parentElement;
  addCsv(table, table.id || region.ariaLabel, region);
}
for (const figure of document.querySelectorAll("figure")) {
  const tools = make("div", "tools");
  for (const place of figure.querySelectorAll(".plot")) {
    const title = place.parentElement.querySelector(".chart-title")?.textContent;
    const name = fileName(RUN, figure.id.replace("figure-", ""), title);
    const group = make("span", null, title ? `${title} ` : "");
    addDownload(group, "SVG", title ?? "this figure", async () => {
      await ensureDrawn(place);
      save(new Blob([await views.get(place).view.toSVG()], { type: "image/svg+xml" }), `${name}.svg`);
    });
    addDownload(group, "PNG", title ?? "this figure", async () => {
      await ensureDrawn(place);
      (await views.get(place).view.toCanvas(2)).toBlob((blob) => save(blob, `${name}.png`));
    });
    tools.append(group);
  }
  figure.querySelector(".charts").after(tools);
}

const config = document.getElementById("config");
if (config) {
  const tools = document.getElementById("config-tools");
  addDownload(tools, "YAML", "the config", () => save(new Blob([config.textContent], { type: "application/yaml" }), `${fileName(RUN, "config")}.yaml`));
  addDownload(tools, "Copy", "the config", async () => {
    try {
      await navigator.clipboard.writeText(config.textContent);
      say("Config copied.");
    } catch {
      config.closest("details").open = true;
      getSelection().selectAllChildren(config);
      say("The config is selected: copy it with the keyboard.");
    }
  });
}

// --- links -----------------------------------------------------------------------------------------------------------
// An address is #id or #id?query. `restorers` has the functions that show what the query of an id asks for; each returns
// the element to go to. The state of a history entry is {id: query}, so that the back button restores filters, too.
const restorers = new Map();
const toHash = (id, query) => `#${id}${query ? `?${query}` : ""}`;
function remark(id, before, query, isNewEntry) {
  if (isNewEntry) history.replaceState({ ...history.state, [id]: before }, "");
  history[isNewEntry ? "pushState" : "replaceState"]({ ...history.state, [id]: query }, "", toHash(id, query));
}
function makePermalink(hash, label, text = "#") {
  const link = make("a", "permalink", text);
  link.href = hash;
  if (text === "#") link.setAttribute("aria-label", `Link to ${label}`);
  return link;
}
for (const figure of document.querySelectorAll("figure")) {
  figure.querySelector(".tools").append(makePermalink(`#${figure.id}`, "this figure"));
}
// A click copies the link and shows it in the address bar. The page stays as it is, with the reader's own filters.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a.permalink");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(history.state, "", link.hash);
  try {
    await navigator.clipboard.writeText(link.href);
    say("Link copied.");
  } catch {
    say("The link is in the address bar.");
  }
});

// --- lists ---------------------------------------------------------------------------------------------------------
// `key` names the field that, with the filters, identifies a row in a link.
function list(form, rows, filters, key, haystack, summarise, open) {
  const [status, target, more] = ["status", "records", "more"].map((part) => document.getElementById(`${form.id}-${part}`));
  const texts = rows.map((row) => haystack(row).toLowerCase());
  let limit = SHOWN;
  let query = "";
  const here = makePermalink(`#${form.id}`, "", "Copy link to this selection");
  status.after(here);
  for (const name of filters) {
    const values = [...new Set(rows.map((row) => String(row[name])))].sort();
    for (const value of values) {
      const option = make("option", null, value);
      option.value = value;
      form.elements[name].append(option);
    }
  }
  let found = rows;
  function show() {
    here.hash = toHash(form.id, query);
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter((row, i) =>
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
        if (!details.open || details.childElementCount > 1) return;
        const body = open(row);
        const record = new URLSearchParams(filters.map((name) => [name, row[name]]));
        record.set(key, row[key]);
        body.prepend(makePermalink(toHash(form.id, record), "", `Copy link to this ${row.kind ?? "manifest"}`));
        details.append(body);
      });
      item.append(details);
      return item;
    }));
    more.hidden = found.length <= limit;
  }
  form.addEventListener("input", (event) => {
    const before = query;
    query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value)).toString();
    // A word that is typed is one step of the history, not one per letter.
    remark(form.id, before, query, event.target.name !== "text" || !before.includes("text="));
    limit = SHOWN;
    show();
  });
  restorers.set(form.id, (asked) => {
    const params = new URLSearchParams(asked);
    for (const name of ["text", ...filters]) form.elements[name].value = params.get(name) ?? "";
    query = asked;
    limit = SHOWN;
    show();
    const index = params.has(key) ? found.findIndex((row) => String(row[key]) === params.get(key)) : -1;
    if (index < 0) return form;
    limit = Math.max(limit, index + 1);
    show();
    const details = target.children[index].firstElementChild;
    details.open = true;
    details.firstElementChild.focus({ preventScroll: true });
    return details;
  });
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
  list(exampleForm, ROWS.examples, ["kind", "language", "run", "verdict"], "id",
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
      if (row.reply) body.append(block("What the judge replied", row.reply));
      return body;
    });
}

const manifestForm = document.getElementById("manifests");
if (manifestForm) {
  const rows = ROWS.rows.map((row) => ({ ...row, code_state: row.dirty ? "uncommitted changes" : "committed" }));
  list(manifestForm, rows, ["stage", "code_state"], "file",
    (row) => [row.file, row.stage, row.commit ?? "", row.seed ?? "", ...row.inputs.flat()].join("\n"),
    (row) => [
      make("span", "tag", row.stage),
      make("span", null, row.file),
      make("span", `tag ${row.dirty ? "dirty" : ""}`, `${row.commit?.slice(0, 10) ?? "outside git"}${row.dirty ? ", uncommitted changes" : ""}`),
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
      addCsv(table, row.file, table);
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
  const initial = [...table.tBodies[0].rows];
  const here = makePermalink(`#${table.id}`, "this table in this order");
  table.parentElement.previousElementSibling.append(here);
  let query = "";
  heads.forEach((head, column) => {
    const sort = make("button");
    sort.type = "button";
    sort.append(...head.childNodes);
    // The button takes the focus, so it has the description of a term in it.
    const term = sort.querySelector("dfn");
    if (term) {
      sort.setAttribute("aria-description", term.dataset.meaning);
      term.removeAttribute("aria-description");
      term.removeAttribute("tabindex");
    }
    sort.addEventListener("click", () => {
      const descending = head.ariaSort ? head.ariaSort !== "descending" : head.classList.contains("number");
      const before = query;
      show(new URLSearchParams({ sort: sort.textContent, order: descending ? "descending" : "ascending" }).toString());
      remark(table.id, before, query, true);
    });
    head.replaceChildren(sort);
  });
  function show(asked) {
    query = asked;
    here.hash = toHash(table.id, asked);
    const params = new URLSearchParams(asked);
    const column = heads.findIndex((head) => head.textContent === params.get("sort"));
    for (const head of heads) head.removeAttribute("aria-sort");
    if (column < 0) {
      table.tBodies[0].append(...initial);
      return table;
    }
    const order = params.get("order") === "descending" ? "descending" : "ascending";
    heads[column].setAttribute("aria-sort", order);
    sortRows(table, column, order === "descending");
    return table;
  }
  restorers.set(table.id, show);
}

// --- terms in the heads of tables --------------------------------------------------------------------------------------
const TOOLTIP = { width: 560, height: 160, margin: 16 }; // pixels, at most; report.css has the width
function placeTooltip(term) {
  const { left, top, bottom } = term.getBoundingClientRect();
  const { clientWidth, clientHeight } = root;
  const start = Math.max(TOOLTIP.margin, Math.min(left, clientWidth - TOOLTIP.width));
  const isBelow = bottom + TOOLTIP.height < clientHeight;
  term.style.setProperty("--inset", isBelow ? `${bottom + 4}px auto auto ${start}px` : `auto auto ${clientHeight - top + 4}px ${start}px`);
}
for (const term of document.querySelectorAll("thead dfn")) {
  term.addEventListener("pointerenter", () => placeTooltip(term));
  (term.closest("button") ?? term).addEventListener("focus", () => placeTooltip(term));
}

// --- where one is ----------------------------------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll(".side li a")].map((link) => [link.hash.slice(1), link]));
const sections = [...document.querySelectorAll("main > section")];
const splitHash = (hash) => {
  const [id, ...query] = hash.slice(1).split("?");
  return [decodeURIComponent(id), query.join("?")];
};
const targetOf = (hash) => document.getElementById(splitHash(hash)[0]);
function markCurrent() {
  const atEnd = scrollY + innerHeight >= root.scrollHeight - 2;
  const linked = targetOf(location.hash)?.closest("main > section");
  const begun = sections.filter((section) => section.getBoundingClientRect().top <= innerHeight / 3);
  // Several sections may begin in the top third, or fit the window's end: the one that was asked for is the current one.
  const linkedTop = linked?.querySelector("h2").getBoundingClientRect().top;
  const isLinkedShown = linkedTop >= -2 && (atEnd || linkedTop <= innerHeight / 3);
  const current = isLinkedShown ? linked : (atEnd ? sections : begun).at(-1) ?? sections[0];
  for (const [id, link] of links) {
    if (id === current.id) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("scroll", () => requestAnimationFrame(markCurrent), { passive: true });
markCurrent();
// The heights that charts reserve are close, not exact: all charts above the target are drawn before the page goes there.
async function land() {
  const [id, query] = splitHash(location.hash);
  const target = query && restorers.has(id) ? restorers.get(id)(query) : targetOf(location.hash);
  if (!target) return;
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  const above = places.filter((place) => isShown(place) && place.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING);
  await Promise.all(above.map(ensureDrawn));
  target.scrollIntoView({ behavior: "instant" });
  markCurrent();
}
addEventListener("popstate", (event) => {
  for (const [id, query] of Object.entries(event.state ?? {})) restorers.get(id)?.(query);
});
addEventListener("hashchange", land);
// A second click on the same link changes no address, and its section may have been closed since.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']:not(.permalink)");
  if (link && link.hash === location.hash) land();
});
land();
const contents = document.getElementById("contents");
if (matchMedia("(max-width: 60rem)").matches) contents.open = false;
