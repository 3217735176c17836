// What a page does wrong for people who see little, hear it, or use the keyboard, as sentences; an empty list if nothing.
() => {
  const faults = [], all = css => [...document.querySelectorAll(css)], say = (wrong, text) => wrong && faults.push(text);
  const shown = node => node.checkVisibility({visibilityProperty: true});
  const named = node => node.getAttribute("aria-label") || node.textContent.trim()
    || (node.getAttribute("aria-labelledby") ?? "").split(" ").map(id => document.getElementById(id)?.textContent).join("").trim();

  say(!document.documentElement.lang, "no language");
  say(!document.title.trim(), "no title");
  say(all("h1").length !== 1, `${all("h1").length} h1`);
  for (const landmark of ["body > header", "body > main", "body > footer"])
    say(all(landmark).length !== 1, `${all(landmark).length} ${landmark}`);
  all("h1, h2, h3, h4").reduce((level, {tagName, textContent}) => {
    say(Number(tagName[1]) > level + 1, `${tagName} "${textContent}" behind h${level}`);
    return Number(tagName[1]);
  }, 0);
  for (const table of all("table")) {
    say(!table.caption?.textContent.trim(), "a table without caption");
    for (const head of table.querySelectorAll("th")) {
      say(!["col", "row"].includes(head.scope), `no scope of "${head.textContent}"`);
      say(!head.textContent.trim(), `an empty head in "${table.caption.textContent}"`);
    }
    for (const row of table.tBodies[0].rows) say(row.cells[0].tagName !== "TH", `a row without head: "${row.textContent}"`);
    const across = new Set([...table.rows].map(row => row.cells.length));
    say(across.size !== 1, `rows of ${[...across]} cells in "${table.caption.textContent}"`);
  }
  const ids = all("[id]").map(({id}) => id);
  say(new Set(ids).size !== ids.length, `ids that are not unique: ${ids}`);
  for (const node of all("button, a, summary, [role=region], section, [role=status]")) say(!named(node), `no name: ${node.outerHTML}`);
  for (const {id} of all("[tabindex]").filter(({tabIndex}) => tabIndex > 0)) say(true, `an order of its own: ${id}`);
  for (const box of all(".scroll").filter(shown))
    say(box.scrollWidth > box.clientWidth && box.tabIndex !== 0, `cannot be scrolled by keys: ${box.ariaLabel}`);
  for (const svg of all("svg").filter(shown)) say(!svg.closest("[aria-hidden=true]"), "a drawing that is read out");
  for (const node of all("button, a, summary").filter(shown)) {
    const {width, height} = node.getBoundingClientRect();
    say(node.tagName !== "A" && (width < 24 || height < 24), `too small to hit: "${node.textContent}" ${width} x ${height}`);
  }
  say(document.documentElement.scrollWidth > innerWidth, `wider than the screen: ${document.documentElement.scrollWidth}`);

  // The contrast of every text, as WCAG 2 counts it.
  const channels = color => {
    const [red, green, blue, alpha = 1] = color.match(/[\d.]+/g).map(Number);
    return {rgb: [red, green, blue], alpha};
  };
  const over = ({rgb, alpha}, below) => rgb.map((value, index) => alpha * value + (1 - alpha) * below[index]);
  const behind = node => {
    const paper = channels(getComputedStyle(node).backgroundColor);
    if (paper.alpha === 1) return paper.rgb;
    return over(paper, node.parentElement ? behind(node.parentElement) : [255, 255, 255]);
  };
  const gray = rgb => Array(3).fill(0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]);
  const linear = value => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !shown(node) || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    const {color, fontSize, fontWeight} = getComputedStyle(node), paper = behind(node);
    const filtered = rgb => (getComputedStyle(document.getElementById("figures")).filter !== "none" && node.closest("#figures") ? gray(rgb) : rgb);
    const [dark, light] = [over(channels(color), paper), paper].map(filtered).map(luminance).sort((one, other) => one - other);
    const large = parseFloat(fontSize) >= 24 || (parseFloat(fontSize) >= 18.66 && fontWeight >= 700);
    const ratio = (light + 0.05) / (dark + 0.05);
    say(ratio < (large ? 3 : 4.5), `contrast of ${ratio.toFixed(2)}: "${texts.currentNode.data}"`);
    seen += 1;
  }
  say(seen < 10, `only ${seen} texts`);
  return faults;
}
