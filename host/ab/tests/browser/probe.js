// What the page of a report looks like, as JSON: its structure, and what must hold at every width.
(async () => {
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

  const count = (list) => list.reduce((counts, name) => ({ ...counts, [name]: (counts[name] ?? 0) + 1 }), {});
  const marks = (figure) => count([...figure.querySelectorAll(".plot svg g[class]")]
    .filter((group) => group.getAttribute("class") !== "label")
    .flatMap((group) => [...group.children].map(() => group.getAttribute("class"))));
  const chart = (figure) => ({
    kind: figure.dataset.chart,
    svgs: figure.querySelectorAll(".plot > svg").length,
    marks: marks(figure),
    legend: figure.querySelectorAll(".legend li").length,
    images: figure.querySelectorAll("img").length,
  });
  const size = (table) => [table.tBodies[0].rows.length, table.tHead.rows[0].cells.length];
  const structure = [...document.querySelectorAll("main > section")].map((section) => ({
    id: section.id,
    heading: section.querySelector("h2").textContent,
    parts: [...section.querySelectorAll("h3")].filter((part) => !part.closest(".card")).map((part) => part.textContent),
    verdicts: [...section.querySelectorAll(".card")].map((card) => card.dataset.verdict),
    charts: [...section.querySelectorAll("figure")].map(chart),
    tables: [...section.querySelectorAll("table")].map(size),
  }));

  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const luminance = ({ rgb }) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour.a > 0 || !element.parentElement ? colour : ground(element.parentElement);
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const ink = channels(element instanceof SVGElement ? style.fill : style.color);
    const [high, low] = [luminance(ink), luminance(ground(element))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const written = [...document.querySelectorAll("h1, h2, h3, p, li, th, td, summary, .badge, a, button, figcaption, footer, svg text")]
    .filter((element) => element.textContent.trim() !== "" && element.closest("noscript") == null);
  const faintest = written.map((element) => [contrast(element), element]).sort((a, b) => a[0] - b[0])[0];

  return JSON.stringify({
    structure,
    width: document.documentElement.scrollWidth,
    font: parseFloat(getComputedStyle(document.body).fontSize),
    background: getComputedStyle(document.body).backgroundColor,
    contrast: faintest[0],
    faintest: `${faintest[1].tagName} "${faintest[1].textContent.slice(0, 40)}"`,
    loaded: [...document.images].map((image) => image.naturalWidth),
    addresses: [...document.querySelectorAll("[src], [href]")].map((one) => one.getAttribute("src") ?? one.getAttribute("href")),
    unnamed: [...document.querySelectorAll(".plot > svg")].filter((svg) => !svg.getAttribute("aria-label")).length,
    attacked: window.broken !== undefined,
  });
})()
