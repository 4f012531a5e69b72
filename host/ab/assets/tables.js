// Numbers of every arm and run, settings and fingerprints.

function numbers(report, styles) {
  const { metrics } = report.design;
  const names = shortened(report.arms.map((arm) => arm.name), 28);
  const run = report.arms.flatMap((arm) => arm.runs.map((one) => ({ arm, ...one })));
  const measured = (of) => (arm) => of(report.machine.costs[arm.name] ?? {});
  return section("numbers", "All numbers",
    el("h3", {}, "By arm: mean ± SD over its runs"),
    table([
      { label: "arm", kind: "row", cell: (arm) => armName(arm.name, styles) },
      { label: "runs", kind: "number", cell: (arm) => `${arm.runs.filter((one) => one.state === "done").length} of ${arm.runs.length}` },
      ...metrics.map((name) => ({ label: name, kind: "number", cell: (arm) => meanSd(arm.summary[name]) })),
      { label: "ms/step", kind: "number", cell: measured((cost) => meanSd(cost.step_ms, 1)) },
      { label: "peak MiB", kind: "number", cell: measured((cost) => meanSd(cost.peak_mib, 0)) },
      { label: "plugins", kind: "text", cell: pluginList },
      { label: "sets", kind: "text", cell: (arm) => Object.entries(arm.set).map(([key, value]) => `${key} = ${value}`).join(", ") || null },
    ], report.arms, { label: "Numbers by arm" }),
    el("h3", {}, "By run"),
    table([
      { label: "arm", kind: "row", cell: (one) => armName(one.arm.name, styles, names.get(one.arm.name)) },
      { label: "seed", kind: "number", cell: (one) => String(one.seed) },
      { label: "state", kind: "word", cell: (one) => one.state },
      ...metrics.map((name) => ({ label: name, kind: "number", cell: (one) => fixed(one.metrics[name]) })),
      { label: "student", kind: "hash", cell: (one) => short(one.student_hash) },
      { label: "folder", kind: "text", cell: (one) => one.folder },
      { label: "reason", kind: "long text", cell: (one) => one.reason },
    ], run, { label: "Numbers by run" }));
}

function armName(name, styles, text = name) {
  const dot = el("span", { class: "dot", "aria-hidden": "true" });
  dot.style.setProperty("--colour", styles.get(name).colour);
  return el("span", { class: "named", title: name }, dot, text);
}

function pluginList(arm) {
  if (arm.plugins.length === 0) return null;
  return el("span", {}, arm.plugins.flatMap((plugin, at) => [at ? ", " : null, `${plugin.file} (${plugin.method}, `, short(plugin.sha256), ")"]));
}

function settings(report) {
  const { shared, allowed, differences, fingerprints } = report.settings;
  const all = Object.entries(shared);
  const element = section("settings", "Settings",
    el("h3", {}, "Allowed differences"),
    el("p", {}, allowed.length ? `These keys may differ between runs: ${allowed.join(", ")}.` : "No key may differ between runs but the arms' own."),
    differences.length === 0 ? el("p", {}, "None differs.") : table([
      { label: "key", kind: "row", cell: (one) => one.key },
      { label: "arm", kind: "text", cell: (one) => one.arm },
      { label: "seed", kind: "number", cell: (one) => (one.seed == null ? "all" : String(one.seed)) },
      { label: "control's", kind: "text", cell: (one) => one.control_value },
      { label: "arm's", kind: "text", cell: (one) => one.arm_value },
    ], differences, { label: "Allowed differences" }),
    el("h3", {}, "Shared by all runs"),
    all.length === 0 ? el("p", { class: "soft" }, "No setting was recorded.") : large(details(`${all.length} settings`,
      filterable("Filter by key or value", table([
        { label: "key", kind: "row", cell: ([key]) => key },
        { label: "value", kind: "text", cell: ([, value]) => el("code", {}, value) },
      ], all, { label: "Shared settings" })))),
    el("h3", {}, "Fingerprints"), fingerprintTable(fingerprints));
  return element;
}

function large(element) {
  element.className = "large";
  return element;
}

function fingerprintTable(fingerprints) {
  const runs = Object.entries(fingerprints);
  if (runs.length === 0) return el("p", { class: "soft" }, "No fingerprint was recorded.");
  const keys = [...new Set(runs.flatMap(([, hashes]) => Object.keys(hashes)))];
  return el("div", {},
    el("p", { class: "soft" }, "What was fed into each run and what was left of it, as the first 12 digits of its hash; report.json has them whole."),
    large(details(`${runs.length} runs`, filterable("Filter by run or hash", table([
      { label: "run", kind: "row", cell: ([folder]) => folder },
      ...keys.map((key) => ({ label: key, kind: "hash", cell: ([, hashes]) => short(hashes[key]) })),
    ], runs, { label: "Fingerprints" })))));
}
