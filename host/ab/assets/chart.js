// What all charts have in common: a figure that is drawn for the width it gets, its legend, the look of
// axes. Marks are named by `className`.

const charts = [];

/** A figure whose drawing `draw(width)` returns, with the same numbers as a table below it. */
function figure(kind, { title, label, legend, draw, alternative }) {
  const plot = el("div", { class: "plot" });
  const element = el("figure", { "data-chart": kind }, el("figcaption", {}, title), legend, plot,
    alternative && details("As a table", alternative));
  charts.push({ plot, label, draw, width: 0 });
  return element;
}

/** Draws every chart whose width has changed. */
function drawCharts() {
  for (const chart of charts) {
    const width = Math.floor(chart.plot.clientWidth);
    if (width === 0 || width === chart.width) continue;
    chart.width = width;
    const svg = chart.draw(width);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", chart.label);
    chart.plot.replaceChildren(svg);
  }
}

const differenceTick = (value) =>
  value === 0 ? "0" : (value < 0 ? "−" : "+") + Number(Math.abs(value).toPrecision(6));

const isNarrow = (width) => width < 520;

/** The frame of a chart; `options` are Plot's. */
function draw(width, options) {
  return Plot.plot({
    width,
    marginTop: 12,
    marginBottom: 44,
    style: { fontSize: "13px", fontFamily: "inherit", background: "none" },
    ...options,
  });
}

/** A colour for each arm, the control's grey first; beyond the palette lines are dashed. */
function styleOf(index) {
  return { colour: `var(--arm-${index === 0 ? 0 : ((index - 1) % 8) + 1})`, dash: index > 8 ? "6 3" : null };
}

/** A colour for each part of a whole. */
const partColour = (index) => `var(--arm-${(index % 8) + 1})`;

function legend(entries, isLine) {
  const swatch = ({ colour, dash }) => {
    const svg = d3.create("svg").attr("width", 22).attr("height", 10).attr("aria-hidden", "true");
    if (isLine) {
      svg.append("line").attr("x2", 22).attr("y1", 5).attr("y2", 5).attr("stroke-width", 3)
        .attr("stroke", colour).attr("stroke-dasharray", dash);
    } else {
      svg.append("rect").attr("width", 22).attr("height", 10).attr("fill", colour);
    }
    return svg.node();
  };
  return el("ul", { class: "legend" }, entries.map((entry) => el("li", {}, swatch(entry), entry.name)));
}

/** Names of rows: beside the frame where there is room, else above each row. */
function rowNames(width, names, above = 15) {
  const narrow = isNarrow(width);
  const longest = Math.max(4, ...names.map((name) => name.length));
  const margin = narrow ? 8 : Math.min(longest * 7.5 + 16, width * 0.32);
  const text = shortened(names, Math.floor(narrow ? (width - 20) / 7.5 : (margin - 12) / 7.2));
  const place = narrow
    ? { frameAnchor: "left", textAnchor: "start", dy: -above }
    : { frameAnchor: "left", textAnchor: "end", dx: -10 };
  return {
    marginLeft: margin,
    rowHeight: narrow ? 46 : 34,
    mark: Plot.text(names, { y: (name) => name, text: (name) => text.get(name), title: (name) => name,
      className: "label", fill: "var(--text)", ...place }),
  };
}

/**
 * Differences in rows, each with its intervals: rows are `{name, mean, interval, together, points, note, colour}`.
 */
function differenceRows(width, rows, { threshold, domain, axis }) {
  const names = rowNames(width, rows.map((row) => row.name));
  const noteMargin = !isNarrow(width) && rows.some((row) => row.note) ? 210 : 18;
  const y = (row) => row.name;
  const line = (of, className, strokeWidth) => Plot.ruleY(rows.filter((row) => row[of]), {
    y, x1: (row) => row[of].low, x2: (row) => row[of].high, stroke: (row) => row.colour, strokeWidth, className, clip: true });
  const points = rows.flatMap((row) => (row.points ?? []).map((point) => ({ ...point, row })));
  return draw(width, {
    height: rows.length * names.rowHeight + 62,
    marginLeft: names.marginLeft,
    marginRight: noteMargin,
    x: { domain, label: axis, labelAnchor: "center", labelArrow: "none", labelOffset: 38, grid: true, ticks: Math.max(3, Math.floor(width / 110)),
      tickFormat: differenceTick },
    y: { type: "point", domain: rows.map(y), axis: null, padding: 0.7 },
    color: { type: "identity" },
    marks: [
      threshold > 0 ? Plot.rect([0], { x1: -threshold, x2: threshold, fill: "var(--band)", className: "threshold", clip: true }) : null,
      Plot.ruleX([0], { stroke: "var(--text)", className: "zero" }),
      line("together", "interval-together", 1.5),
      line("interval", "interval", 5),
      Plot.dot(points, { x: "value", y: (point) => point.row.name, dy: 11, r: 2.6, stroke: (point) => point.row.colour,
        strokeWidth: 1.3, title: "text", className: "seed", clip: true }),
      Plot.dot(rows.filter((row) => row.mean != null), { x: "mean", y, r: 5.5, fill: (row) => row.colour,
        stroke: "var(--ground)", strokeWidth: 1.5, title: "text", className: "mean", clip: true }),
      names.mark,
      isNarrow(width) ? null : Plot.text(rows.filter((row) => row.note), { y, text: "note", frameAnchor: "right", textAnchor: "start",
        dx: 12, fill: "var(--soft)", className: "label" }),
    ],
  });
}

/** A domain with all values, zero and some air; beyond four times what `main` spans, values are cut. */
function differenceDomain(main, rest) {
  const [low, high] = d3.extent([0, ...main].filter((value) => value != null));
  const reach = Math.max(high - low, 0.1);
  const [least, most] = d3.extent([low, high, ...rest.filter((value) => value != null)]);
  const ends = [Math.max(least, low - 2 * reach), Math.min(most, high + 2 * reach)];
  const air = (ends[1] - ends[0] || 1) * 0.05;
  return [ends[0] - air, ends[1] + air];
}

/** One line for each arm, with a band of one standard deviation where there is one. */
function lines(width, arms, { x, y, dots }) {
  const narrow = isNarrow(width);
  const marks = arms.flatMap(({ points, style }) => [
    Plot.areaY(points.filter((point) => point.low != null), { x: "x", y1: "low", y2: "high", fill: style.colour,
      fillOpacity: 0.14, className: "band" }),
    Plot.lineY(points, { x: "x", y: "y", stroke: style.colour, strokeWidth: 2, strokeDasharray: style.dash, className: "curve" }),
    dots ? Plot.dot(points, { x: "x", y: "y", fill: style.colour, r: 2.5, className: "evaluation" }) : null,
  ]);
  const all = arms.flatMap(({ points }) => points);
  return draw(width, {
    height: narrow ? 280 : 340,
    marginLeft: 44,
    marginTop: 30,
    marginRight: 16,
    x: { ...x, labelAnchor: "center", labelArrow: "none", labelOffset: 38, ticks: Math.floor(width / 90) },
    y: { ...y, grid: true, labelArrow: "none" },
    marks: [...marks, Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: "text", fontSize: 13 }))],
  });
}
