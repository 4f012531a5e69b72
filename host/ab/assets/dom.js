// Elements. Text from the report becomes text nodes and attributes of known meaning, never HTML.

/** An element with attributes and children; children that are null are left out. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A section of the page, or null without content. */
function section(id, title, ...content) {
  return el("section", { id }, el("h2", {}, title), ...content);
}

function details(summary, ...content) {
  return el("details", {}, el("summary", {}, summary), ...content);
}

/**
 * A table in a box that scrolls by itself. A column is `{label, cell(row), kind}`, its kind `row` (a
 * heading of its row), `number` or `text`; a cell without value is a dash.
 */
function table(columns, rows, attributes) {
  const head = columns.map((column) =>
    el("th", { scope: "col", class: column.kind === "number" ? "number" : null }, column.label));
  const body = rows.map((row) => el("tr", {}, columns.map((column) => {
    const value = column.cell(row) ?? NONE;
    return column.kind === "row" ? el("th", { scope: "row" }, value) : el("td", { class: column.kind ?? "text" }, value);
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": attributes?.label ?? "Table" },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

/** A field that hides the rows of tables which do not hold its text. */
function filterable(label, ...tables) {
  const field = el("input", { type: "search", class: "filter", placeholder: label, "aria-label": label });
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of tables.flatMap((one) => [...one.querySelectorAll("tbody tr")])) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
  return el("div", {}, field, ...tables);
}
