// Numbers as text.

const NONE = "–";
const VERDICTS = {
  better: "▲ better",
  worse: "▼ worse",
  no_difference_shown: "≈ no difference shown",
  underpowered: "? underpowered",
};

const fixed = (value, decimals = 2) => (value == null ? null : value.toFixed(decimals).replace("-", "−"));

/** A difference, with its sign; what rounds to zero has none. */
function signed(value) {
  if (value == null) return null;
  const text = Math.abs(value).toFixed(2);
  return text === "0.00" ? text : (value < 0 ? "−" : "+") + text;
}

const interval = (of) => (of == null ? null : `[${signed(of.low)}, ${signed(of.high)}]`);

function meanSd(summary, decimals = 2) {
  if (summary == null) return null;
  const spread = summary.sd == null ? "" : ` ± ${fixed(summary.sd, decimals)}`;
  return fixed(summary.mean, decimals) + spread;
}

function pValue(p) {
  if (p == null) return null;
  if (p < 0.0001) return "< 0.0001";
  return p.toFixed(p < 0.001 ? 4 : p < 0.01 ? 3 : 2);
}

const percent = (share) => `${(share * 100).toFixed(0)} %`;
const whole = (value) => (value == null ? null : value.toLocaleString("en-GB").replaceAll(",", " "));
const short = (hash) => (hash == null ? null : el("code", { title: hash }, hash.slice(0, 12)));

/** Names cut in their middle to a number of letters, still all different. */
function shortened(names, letters) {
  const result = new Map();
  const taken = new Set();
  names.forEach((name, index) => {
    const tail = Math.floor((letters - 1) / 2);
    let text = name.length <= letters ? name : `${name.slice(0, letters - 1 - tail)}…${name.slice(-tail)}`;
    if (taken.has(text)) text = `${name.slice(0, letters - 4)}… ${index}`;
    taken.add(text);
    result.set(name, text);
  });
  return result;
}
