// What the arms cost, pictures, and the page as a whole.

function costs(report, styles) {
  const rows = report.arms.map((arm) => ({ name: arm.name, cost: report.machine.costs[arm.name] ?? {} }));
  const measures = [
    ["memory", "Peak memory while training", "MiB", (cost) => cost.peak_mib, 0],
    ["parameters", "Parameters for training only", "numbers that are thrown away", (cost) => constant(cost.method_parameters), 0],
    ["seconds", "A run, teachers apart", "seconds", (cost) => cost.run_seconds, 1],
    ["energy", "Energy of the processor over a run", "joules", (cost) => cost.joules, 0],
  ].filter(([, , , of]) => rows.some((row) => of(row.cost) != null));
  const parts = [...new Set(rows.flatMap((row) => Object.keys(row.cost.parts_ms ?? {})))];
  const hasSteps = rows.some((row) => row.cost.step_ms != null) || parts.length > 0;
  if (!hasSteps && measures.length === 0) return section("costs", "Costs", el("p", { class: "soft" }, "No cost was measured."));
  return section("costs", "Costs",
    el("p", {}, deployed(rows)),
    report.machine.jobs > 1 ? el("p", {}, `${report.machine.jobs} runs went at once: their times disturb each other.`) : null,
    hasSteps ? stepFigure(rows, parts) : null,
    el("div", { class: "side-by-side" }, measures.map(([kind, title, unit, of, decimals]) => figure(`cost-${kind}`, {
      title,
      label: `${title} in ${unit}, one bar for each arm; the table below has the numbers.`,
      draw: (width) => bars(width, rows.map(({ name, cost }) => ({ name, value: of(cost), colour: styles.get(name).colour })), unit, decimals),
    }))),
    details("As a table", costTable(rows, parts)));
}

const constant = (value) => (value == null ? null : { n: 1, mean: value, sd: null });

/** Whether all arms leave the same student behind. */
function deployed(rows) {
  const known = rows.filter((row) => row.cost.student_parameters != null);
  if (known.length === 0) return "The size of the deployed student was not recorded.";
  const [first, ...others] = d3.groups(known, (row) => row.cost.student_parameters);
  if (others.length === 0) return `The deployed student is the same in size in all arms: ${whole(first[0])} parameters.`;
  const list = others.map(([count, some]) => `${some.map((row) => row.name).join(", ")}: ${whole(count)}`).join("; ");
  return `The deployed students differ in size. ${first[1].map((row) => row.name).join(", ")}: ${whole(first[0])} parameters; ${list}.`;
}

function stepFigure(rows, parts) {
  const rest = (cost) => (cost.step_ms == null ? 0 : Math.max(0, cost.step_ms.mean - d3.sum(Object.values(cost.parts_ms ?? {}))));
  const named = [...parts.map((name, at) => ({ name, colour: partColour(at), of: (cost) => cost.parts_ms?.[name] ?? 0 })),
    { name: "the rest", colour: "var(--arm-0)", of: rest }];
  const stacked = rows.flatMap((row) => named.map((part) => ({ name: row.name, part: part.name, colour: part.colour, ms: part.of(row.cost) })))
    .filter((piece) => piece.ms > 0);
  return figure("cost-step", {
    title: "An optimizer step and its parts",
    label: "Milliseconds of an optimizer step, one stacked bar for each arm; the table below has the numbers.",
    legend: legend(named.filter((part) => stacked.some((piece) => piece.part === part.name))),
    draw: (width) => barFrame(width, rows, "milliseconds", [
      Plot.barX(stacked, { x: "ms", y: "name", z: "part", fill: "colour", insetTop: 5, insetBottom: 5, insetRight: 1,
        order: named.map((part) => part.name), title: (piece) => `${piece.name}, ${piece.part}: ${fixed(piece.ms, 1)} ms`, className: "part" }),
    ], (row) => meanSd(row.cost.step_ms, 1)),
  });
}

function bars(width, rows, unit, decimals) {
  const known = rows.filter((row) => row.value != null);
  return barFrame(width, rows, unit, [
    Plot.barX(known, { x: (row) => row.value.mean, y: "name", fill: "colour", insetTop: 6, insetBottom: 6, className: "bar" }),
    Plot.ruleY(known.filter((row) => row.value.sd != null), { y: "name", x1: (row) => row.value.mean - row.value.sd,
      x2: (row) => row.value.mean + row.value.sd, stroke: "var(--text)", strokeWidth: 2, className: "spread" }),
  ], (row) => (row.value == null ? "not measured" : row.value.sd == null ? whole(row.value.mean) : meanSd(row.value, decimals)));
}

/** Bars in rows, with the number of each at the right. */
function barFrame(width, rows, unit, marks, number) {
  const names = rowNames(width, rows.map((row) => row.name), 20);
  return draw(width, {
    height: rows.length * (names.rowHeight + 4) + 58,
    marginLeft: names.marginLeft,
    marginRight: 108,
    x: { label: unit, labelAnchor: "center", labelArrow: "none", labelOffset: 38, grid: true, zero: true, nice: true, ticks: Math.max(2, Math.floor(width / 140)), tickFormat: d3.format("~s") },
    y: { type: "band", domain: rows.map((row) => row.name), axis: null, paddingInner: isNarrow(width) ? 0.35 : 0.05, paddingOuter: isNarrow(width) ? 0.35 : 0.05 },
    color: { type: "identity" },
    marks: [...marks, Plot.ruleX([0], { stroke: "var(--soft)", className: "zero" }), names.mark,
      Plot.text(rows, { y: "name", text: number, frameAnchor: "right", textAnchor: "start", dx: 10, fill: "var(--soft)", className: "label" })],
  });
}

function costTable(rows, parts) {
  const column = (label, of, decimals) => ({ label, kind: "number", cell: ({ cost }) => meanSd(of(cost), decimals) });
  return table([
    { label: "arm", kind: "row", cell: (row) => row.name },
    column("ms/step", (cost) => cost.step_ms, 1),
    ...parts.map((part) => ({ label: `${part}, ms`, kind: "number", cell: ({ cost }) => fixed(cost.parts_ms?.[part], 1) })),
    column("peak MiB", (cost) => cost.peak_mib, 0),
    { label: "training parameters", kind: "number", cell: ({ cost }) => whole(cost.method_parameters) },
    { label: "student parameters", kind: "number", cell: ({ cost }) => whole(cost.student_parameters) },
    column("run, s", (cost) => cost.run_seconds, 1),
    column("evaluation, s", (cost) => cost.evaluation_seconds, 1),
    column("joules", (cost) => cost.joules, 0),
  ], rows, { label: "Costs" });
}

function samples(report) {
  if (report.samples.length === 0) return null;
  const picture = (address, name) => el("div", {}, el("span", {}, name), address.startsWith("data:image/")
    ? el("img", { src: address, alt: `Detections of ${name}` })
    : el("p", { class: "soft" }, "Not shown: this is no picture inside the page."));
  return section("samples", "Where they disagree",
    el("p", {}, "Images on which an arm and the control differ most: not a fair sample of all."),
    report.samples.map((sample) => el("figure", { "data-chart": "sample" },
      el("figcaption", {}, `${sample.source} (image ${sample.image_id}, seed ${sample.seed}): ${sample.caption}`),
      el("div", { class: "pair" },
        picture(sample.control_image, report.arms.find((arm) => arm.control)?.name ?? "the control"),
        picture(sample.arm_image, sample.arm)))));
}

function machine(report) {
  const { kdhost, cpu, threads, jobs, finished } = report.machine;
  return [kdhost && `kdhost ${kdhost}`, cpu, threads ? `${threads} threads a run` : null, jobs ? `${jobs} at once` : null,
    finished && `finished ${finished}`, report.schema].filter((fact) => fact).join(" · ");
}

/** A button that turns the page to the other scheme than the system's, and back. */
function themeButton(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  system.addEventListener("change", label);
  button.setAttribute("aria-label", "Switch between light and dark");
  button.hidden = false;
  label();
}

function main() {
  const report = JSON.parse(document.getElementById("data").textContent);
  const styles = new Map(report.arms.map((arm, index) => [arm.name, styleOf(index)]));
  const sections = [
    problems(report), verdicts(report), differences(report, styles), curves(report, styles), byClass(report, styles),
    precisionRecall(report, styles), costs(report, styles), samples(report), numbers(report, styles), settings(report),
  ].filter((one) => one != null);
  document.getElementById("report").append(...sections);
  document.getElementById("contents").append(...sections.map((one) =>
    el("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
  document.getElementById("machine").textContent = machine(report);
  themeButton(document.getElementById("theme"));
  drawCharts();
  new ResizeObserver(() => requestAnimationFrame(drawCharts)).observe(document.getElementById("report"));
}

main();
