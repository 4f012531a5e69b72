// What the runs came to: verdicts, differences, curves, classes, precision and recall.

function problems(report) {
  if (report.problems.length === 0) return null;
  const place = ({ arm, seed }) => [arm, seed == null ? null : `seed ${seed}`].filter((word) => word != null).join(", ");
  const element = section("problems", "Problems", el("ul", {}, report.problems.map((problem) =>
    el("li", {}, place(problem) ? el("strong", {}, `${place(problem)}: `) : null, problem.message))));
  element.className = "problems";
  element.setAttribute("role", "note");
  return element;
}

function verdicts(report) {
  if (report.comparisons.length === 0) {
    return section("verdicts", "Verdicts", el("p", {}, "There is no arm but the control: nothing is compared."));
  }
  return section("verdicts", "Verdicts", el("div", { class: "cards" }, report.comparisons.map((one) => verdictCard(report, one))));
}

function verdictCard(report, one) {
  const facts = [
    `${one.pairs.length} of ${report.design.seeds.length} pairs`,
    one.resolvable == null ? null : `resolvable with them: ${fixed(one.resolvable)} points`,
  ];
  const images = one.bootstrap == null ? null : el("p", { class: "soft" },
    `Other images, the same runs: ${interval(one.bootstrap.interval)}, above the control in ${percent(one.bootstrap.share_above)} of ${whole(report.design.bootstrap)} resamples. This says nothing about other seeds.`);
  const left = one.left_out.map(({ seed, reason }) => el("p", { class: "soft" }, `Seed ${seed} is left out: ${reason}`));
  const card = el("article", { class: "card", "data-verdict": one.verdict },
    el("h3", {}, one.arm, el("span", { class: "badge" }, VERDICTS[one.verdict])),
    el("p", {}, one.reading),
    el("p", { class: "soft" }, facts.filter((fact) => fact != null).join(" · ")), images, left);
  card.style.setProperty("--verdict", `var(--${one.verdict})`);
  return card;
}

function differences(report, styles) {
  const { metric, threshold, seeds, alpha } = report.design;
  if (report.comparisons.length === 0) return null;
  const rows = report.comparisons.map((one) => ({
    name: one.arm,
    mean: one.difference,
    interval: one.interval,
    together: one.interval_together,
    points: one.pairs.map((pair) => ({ value: pair.difference, text: `${one.arm}, seed ${pair.seed}: ${signed(pair.difference)}` })),
    colour: styles.get(one.arm).colour,
    text: `${one.arm}: ${signed(one.difference)} ${interval(one.interval) ?? ""}`,
    note: one.difference == null ? "no pair" : `${signed(one.difference)} ${interval(one.interval) ?? "no interval"}`,
  }));
  const main = rows.flatMap((row) => [row.mean, ...row.points.map((point) => point.value), -threshold, threshold]);
  const ends = rows.flatMap((row) => [row.interval, row.together]).flatMap((of) => (of ? [of.low, of.high] : []));
  const level = Number((100 - (100 * alpha) / report.comparisons.length).toFixed(1));
  return section("differences", "Differences",
    el("p", {}, `Arm minus control, in points of ${metric}. Large dot: mean over the pairs. Circles: single seeds.`,
      ends.length > 0 ? ` Thick line: 95 % interval of the mean. Thin line: the interval at ${level} %, which holds for all comparisons together.` : " A mean of fewer than two pairs has no interval.",
      threshold > 0 ? ` Shaded: differences below the threshold of ${fixed(threshold)}.` : null),
    figure("forest", {
      title: `Paired differences of ${metric}`,
      label: `Paired differences of ${metric} in points, one row for each of ${rows.length} arms; the table below has the numbers.`,
      draw: (width) => differenceRows(width, rows, { threshold, domain: differenceDomain(main, ends), axis: `difference of ${metric}, points` }),
      alternative: pairTable(report, seeds),
    }));
}

function pairTable(report, seeds) {
  const bySeed = seeds.map((seed) => ({ label: `seed ${seed}`, kind: "number",
    cell: (one) => signed(one.pairs.find((pair) => pair.seed === seed)?.difference) }));
  return table([
    { label: "arm", kind: "row", cell: (one) => one.arm },
    { label: "mean", kind: "number", cell: (one) => signed(one.difference) },
    { label: "SD", kind: "number", cell: (one) => fixed(one.sd) },
    { label: "95 %", kind: "number", cell: (one) => interval(one.interval) },
    { label: "all together", kind: "number", cell: (one) => interval(one.interval_together) },
    { label: "p", kind: "number", cell: (one) => pValue(one.p) },
    { label: "p (Holm)", kind: "number", cell: (one) => pValue(one.p_holm) },
    { label: "resampled images", kind: "number", cell: (one) => interval(one.bootstrap?.interval) },
    ...bySeed,
  ], report.comparisons, { label: "Paired differences" });
}

function curves(report, styles) {
  const { metric } = report.design;
  const arms = report.arms.filter((arm) => arm.curve.length > 0).map((arm) => ({
    name: arm.name,
    style: styles.get(arm.name),
    points: arm.curve.map(({ iter, epoch, value }) => ({
      x: iter, y: value.mean,
      low: value.sd == null ? null : value.mean - value.sd,
      high: value.sd == null ? null : value.mean + value.sd,
      text: `${arm.name}\nstep ${whole(iter)}, epoch ${epoch}\n${metric} ${meanSd(value)} (n = ${value.n})`,
    })),
  }));
  if (arms.length === 0) return section("curves", "Over training", el("p", { class: "soft" }, "No evaluation during training was recorded."));
  return section("curves", "Over training", curveFigure(report, arms), gapFigure(report, styles));
}

function curveFigure(report, arms) {
  const { metric } = report.design;
  const iters = [...new Set(report.arms.flatMap((arm) => arm.curve.map((point) => point.iter)))].sort(d3.ascending);
  const at = (arm, iter) => meanSd(arm.curve.find((point) => point.iter === iter)?.value);
  return figure("curve", {
    title: `${metric} at each evaluation: mean over the runs, band ± 1 SD`,
    label: `${metric} over training, one line for each of ${arms.length} arms; the table below has the numbers.`,
    legend: legend(arms.map(({ name, style }) => ({ name, ...style })), true),
    draw: (width) => lines(width, arms, { x: { label: "optimizer steps" }, y: { label: `${metric}, points` }, dots: true }),
    alternative: table([
      { label: "step", kind: "row", cell: (iter) => whole(iter) },
      ...report.arms.map((arm) => ({ label: arm.name, kind: "number", cell: (iter) => at(arm, iter) })),
    ], iters, { label: `${metric} over training` }),
  });
}

/**
 * How far each arm is from the control at each evaluation. Means over different seeds do not compare, so
 * a point needs as many runs of both.
 */
function gapFigure(report, styles) {
  const { metric } = report.design;
  const control = report.arms.find((arm) => arm.control);
  const plain = new Map((control?.curve ?? []).map(({ iter, value }) => [iter, value]));
  const arms = report.arms.filter((arm) => !arm.control).map((arm) => ({
    name: arm.name,
    style: styles.get(arm.name),
    points: arm.curve.filter(({ iter, value }) => plain.get(iter)?.n === value.n).map(({ iter, value }) => {
      const gap = value.mean - plain.get(iter).mean;
      return { x: iter, y: gap, text: `${arm.name}\nstep ${whole(iter)}\n${signed(gap)} points` };
    }),
  })).filter((arm) => arm.points.length > 0);
  if (arms.length === 0) return null;
  const without = report.comparisons.length - arms.length;
  return figure("gap", {
    title: `Arm minus control at each evaluation: difference of the means${without ? `, without ${without} of ${report.comparisons.length} arms that have fewer runs than the control` : ""}`,
    label: `Difference from the control over training, one line for each of ${arms.length} arms; the numbers follow from the table above.`,
    legend: legend(arms.map(({ name, style }) => ({ name, ...style })), true),
    draw: (width) => lines(width, arms, { x: { label: "optimizer steps" }, y: { label: `difference of ${metric}, points`, tickFormat: differenceTick }, dots: true, zero: true }),
  });
}

const SHOWN = 15;

/** Panels of differences by name, one for each arm: classes, or metrics. The largest come first. */
function panels(report, styles, { kind, of, what, all }) {
  const largest = new Map(d3.rollups(report.comparisons.flatMap(of).filter((one) => one.difference != null),
    (some) => d3.max(some, (one) => Math.abs(one.difference)), (one) => one.name));
  const sorted = all.filter((name) => largest.has(name));
  if (sorted.length > SHOWN) sorted.sort((a, b) => largest.get(b) - largest.get(a)).length = SHOWN;
  if (sorted.length === 0) return null;
  const shown = new Set(sorted);
  const rowsOf = (one) => sorted.flatMap((name) => of(one).filter((row) => row.name === name && row.difference != null))
    .map((row) => ({ name: row.name, mean: row.difference, interval: row.interval, colour: styles.get(one.arm).colour,
      text: `${row.name}: ${signed(row.difference)} ${interval(row.interval) ?? ""}` }));
  const everything = report.comparisons.flatMap(of).filter((row) => shown.has(row.name));
  const ends = everything.flatMap((row) => (row.interval ? [row.interval.low, row.interval.high] : []));
  const domain = differenceDomain(everything.map((row) => row.difference), ends);
  return el("div", { class: "side-by-side" }, report.comparisons.filter((one) => rowsOf(one).length > 0).map((one) => figure(kind, {
    title: `${one.arm} − ${one.control}`,
    label: `Differences by ${what} of ${one.arm}; the table below has the numbers.`,
    draw: (width) => differenceRows(width, rowsOf(one), { threshold: 0, domain, axis: `difference of ${kind === "by-class" ? report.design.metric : "metric"}, points` }),
  })));
}

function byClass(report, styles) {
  const { classes, metric, metrics } = report.design;
  if (report.comparisons.length === 0) return null;
  const control = report.arms.find((arm) => arm.control);
  const difference = (one, list, name) => {
    const found = list(one).find((row) => row.name === name);
    return found?.difference == null ? null : `${signed(found.difference)} ${interval(found.interval) ?? ""}`;
  };
  const columns = (list) => report.comparisons.map((one) => ({ label: one.arm, kind: "number", cell: (name) => difference(one, list, name) }));
  const sized = metrics.some((name) => /_[SML]$/.test(name));
  const classDifferences = (one) => one.by_class;
  const metricDifferences = (one) => one.metrics;
  const many = classes.length > SHOWN ? ` The ${SHOWN} classes with the largest differences; the table has all ${classes.length}.` : "";
  return section("classes", sized ? "By class and by size" : metrics.length > 1 ? "By class and by metric" : "By class",
    el("p", {}, `Means over the pairs with 95 % intervals of each by itself: a description, about which no verdict speaks.${many}`),
    el("h3", {}, `${metric} by class`),
    panels(report, styles, { kind: "by-class", of: classDifferences, what: "class", all: classes })
      ?? el("p", { class: "soft" }, "No class has a difference."),
    details("All classes as a table", table([
      { label: "class", kind: "row", cell: (name) => name },
      { label: `${control?.name ?? "control"}`, kind: "number", cell: (name) => fixed(control?.by_class[classes.indexOf(name)]) },
      ...columns(classDifferences),
    ], classes, { label: "Differences by class" })),
    metrics.length > 1 ? el("h3", {}, "Other metrics") : null,
    sized ? el("p", { class: "soft" }, "S, M and L: objects smaller than 32² pixels, up to 96², and larger.") : null,
    metrics.length > 1 ? panels(report, styles, { kind: "by-metric", of: metricDifferences, what: "metric", all: metrics })
      ?? el("p", { class: "soft" }, "No other metric has a difference.") : null,
    metrics.length > 1 ? details("Other metrics as a table", table([
      { label: "metric", kind: "row", cell: (name) => name },
      { label: `${control?.name ?? "control"}`, kind: "number", cell: (name) => meanSd(control?.summary[name]) },
      ...columns(metricDifferences),
    ], metrics.slice(1), { label: "Differences of other metrics" })) : null);
}

function precisionRecall(report, styles) {
  const arms = report.arms.filter((arm) => arm.precision_recall?.length > 0).map((arm) => ({
    name: arm.name,
    style: styles.get(arm.name),
    points: arm.precision_recall.map((precision, at, all) => ({ x: at / (all.length - 1), y: precision,
      text: `${arm.name}\nrecall ${fixed(at / (all.length - 1))}\nprecision ${fixed(precision)}` })),
  }));
  if (arms.length === 0) return null;
  const recalls = d3.range(0, 1.001, 0.1);
  return section("precision", "Precision and recall", figure("precision-recall", {
    title: "At IoU 0.5, mean over classes and runs",
    label: `Precision over recall at IoU 0.5, one line for each of ${arms.length} arms; the table below has the numbers.`,
    legend: legend(arms.map(({ name, style }) => ({ name, ...style })), true),
    draw: (width) => lines(width, arms, { x: { label: "recall", domain: [0, 1] }, y: { label: "precision", domain: [0, 1] } }),
    alternative: table([
      { label: "recall", kind: "row", cell: (recall) => fixed(recall, 1) },
      ...arms.map((arm) => ({ label: arm.name, kind: "number", cell: (recall) => fixed(arm.points[Math.round(recall * (arm.points.length - 1))].y) })),
    ], recalls, { label: "Precision over recall" }),
  }));
}
