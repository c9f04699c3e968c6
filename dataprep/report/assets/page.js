
"use strict";
(() => {
  const { figures, samples } = JSON.parse(document.getElementById("data").textContent);
  const BETWEEN = "\x7f", EXCERPT = 120;
  const root = document.documentElement, $ = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");
  const share = (part, whole) => (whole ? (100 * part / whole).toFixed(1) + "%" : "–");
  const fromHash = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

  function make(tag, kind, text) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  }

  // ---- theme ----
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = $("theme");
  function theme() { return root.dataset.theme || (dark.matches ? "dark" : "light"); }
  function label() { button.textContent = theme() === "dark" ? "light" : "dark"; }
  const wanted = fromHash().theme;
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();

  // ---- tables that sort ----
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    const value = (row, column) => {
      const text = row.cells[column].textContent, plain = Number(text.replace(/[,%–<>]/g, "") || 0);
      return Number.isNaN(plain) ? text.toLowerCase() : plain;
    };
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending" && (column > 0 || head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      const order = ([a], [b]) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
      rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
      body.append(...rows.map(([, row]) => row));
    }));
  }

  // ---- samples ----
  const splitsOf = (item) => (item.split ? [item.split] : [...new Set((item.examples || []).map((each) => each.split))]);
  const sourcesOf = (item) => (item.source ? [item.source] : [...new Set(item.examples.map((each) => each.source))]);
  const kinds = {
    conversations: samples.conversations, packs: samples.packs, turned_away: samples.turned_away,
  };
  const first = kinds.conversations.length || !kinds.turned_away.length ? "conversations" : "turned_away";
  const state = { show: first, item: 0, as: "messages", bounds: false };
  const texts = new Map();

  function spokenText(messages) {
    return messages.map((m) => [m.text, m.reasoning, ...m.calls.flat()].filter(Boolean).join("\n")).join("\n");
  }
  function tokenText(examples) {
    return examples.map((each) => each.spans.map((span) => span.text.replaceAll(BETWEEN, "")).join("")).join("\n");
  }
  function searched(item) {
    if (!texts.has(item)) {
      const parts = [item.id, item.origin, item.file, item.detail, item.raw, item.tools];
      if (item.messages) parts.push(spokenText(item.messages));
      if (!item.messages && item.examples) parts.push(tokenText(item.examples));
      texts.set(item, parts.filter(Boolean).join("\n").toLowerCase());
    }
    return texts.get(item);
  }

  function fill(select, values) {
    const before = select.value;
    select.replaceChildren(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    select.value = values.includes(before) ? before : "";
    select.parentElement.hidden = values.length < 2;
  }
  function found() {
    const source = $("by-source").value, split = $("by-split").value, reason = $("by-reason").value;
    const text = $("search").value.trim().toLowerCase();
    return kinds[state.show].filter((item) => (!source || sourcesOf(item).includes(source))
      && (!split || splitsOf(item).includes(split)) && (!reason || item.reason === reason)
      && (!text || searched(item).includes(text)));
  }

  function excerpt(item) {
    if (state.show === "packs") return `pack ${number(item.number)} of ${item.split}: ${number(item.examples.length)} examples`;
    if (state.show === "turned_away") return item.detail;
    const first = item.messages.find((message) => message.role === "user" && message.text) || item.messages[0];
    return first ? first.text.slice(0, EXCERPT) || first.role : "";
  }
  function sizes(item) {
    if (state.show === "turned_away") return item.reason;
    const tokens = state.show === "packs" ? item.tokens : item.examples.reduce((sum, each) => sum + each.tokens, 0);
    return tokens ? `${number(tokens)} tokens` : `${number(item.messages.length + item.left_out)} messages`;
  }

  function drawControls() {
    const items = kinds[state.show];
    fill($("by-source"), [...new Set(items.flatMap(sourcesOf))].sort());
    fill($("by-split"), [...new Set(items.flatMap(splitsOf))].sort());
    fill($("by-reason"), [...new Set(items.map((item) => item.reason).filter(Boolean))].sort());
    for (const tab of document.querySelectorAll("[data-show]")) {
      tab.setAttribute("aria-pressed", String(tab.dataset.show === state.show));
    }
  }
  function drawList() {
    const items = found(), all = kinds[state.show];
    if (!items.includes(all[state.item])) state.item = items.length ? all.indexOf(items[0]) : -1;
    const whole = { conversations: figures.rows.kept, packs: figures.splits.reduce((sum, each) => sum + each.packs, 0),
      turned_away: Object.values(figures.rows.turned_away).concat(Object.values(figures.rows.refused)).reduce((a, b) => a + b, 0) };
    $("count").textContent = `${number(items.length)} shown of ${number(all.length)} sampled out of ${number(whole[state.show])}`
      + (samples.note && !all.length ? `; ${samples.note}` : "");
    $("list").replaceChildren(...items.map((item) => {
      const line = make("li"), choose = make("button"), meta = make("small");
      choose.type = "button";
      choose.dataset.item = all.indexOf(item);
      meta.append(make("span", "", state.show === "packs" ? item.split : item.source), make("span", "", sizes(item)));
      choose.append(meta, make("span", "excerpt", excerpt(item)));
      line.append(choose);
      return line;
    }));
    drawDetail();
  }

  function drawDetail() {
    for (const choose of $("list").querySelectorAll("button")) {
      const current = Number(choose.dataset.item) === state.item;
      choose.setAttribute("aria-current", String(current));
      if (current) reveal(choose);
    }
    const item = kinds[state.show][state.item], parts = [];
    if (!item) parts.push(make("p", "note", "Nothing to show."));
    else if (state.show === "conversations") parts.push(...conversation(item));
    else if (state.show === "packs") parts.push(...pack(item));
    else parts.push(...turnedAway(item));
    $("detail").replaceChildren(...parts);
    $("detail").scrollTop = 0;
  }

  function reveal(line) {
    const list = $("list"), top = line.offsetTop, bottom = top + line.offsetHeight;
    if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight) list.scrollTop = top - 8;
  }

  function conversation(item) {
    const examples = item.examples, tokens = examples.reduce((sum, each) => sum + each.tokens, 0);
    const targets = examples.reduce((sum, each) => sum + each.targets, 0);
    const about = [`conversation ${number(item.row)}`, item.origin, `id ${item.id.slice(0, 12)}`];
    if (tokens) about.push(`${number(tokens)} tokens, ${number(targets)} targets (${share(targets, tokens)})`);
    for (const each of examples) about.push(`${each.split} pack ${number(each.pack)}`);
    if (figures.tokens && !examples.length) about.push("in no pack");
    const parts = [make("h3", "", item.source), make("p", "meta", about.join(" · "))];
    if (examples.length) parts.push(switches(true));
    if (examples.length && state.as === "tokens") return parts.concat(examples.map((each) => example(each, false)));
    if (item.tools) parts.push(folded("tools", item.tools));
    parts.push(...item.messages.map(message));
    if (item.left_out) parts.push(make("p", "cut", `${number(item.left_out)} more messages are not shown`));
    return parts;
  }
  function pack(item) {
    const about = `${number(item.tokens)} tokens of ${number(figures.options.seq_len)}, ${number(item.targets)} targets `
      + `(${share(item.targets, item.tokens)}), ${number(item.examples.length)} examples`;
    return [make("h3", "", `${item.split} pack ${number(item.number)}`), make("p", "meta", about), switches(false),
      ...item.examples.map((each) => example(each, true))];
  }
  function turnedAway(item) {
    const why = make("dl", "why");
    const rows = [["reason", item.reason], ["found", item.detail], ["to mend", item.fix], ["by", `dataprep ${item.stage}`]];
    for (const [name, text] of rows) why.append(make("dt", "", name), make("dd", name === "reason" ? "reason" : "", text));
    const parts = [make("h3", "", item.source), make("p", "meta", `${item.file}:${number(item.row)}`), why];
    if (item.raw) parts.push(make("p", "meta", "the row"), make("pre", "", item.raw));
    return parts.concat(item.messages.map(message));
  }

  function switches(both) {
    const box = make("div", "switch");
    for (const as of both ? ["messages", "tokens"] : []) {
      const choose = make("button", "", as);
      choose.type = "button";
      choose.setAttribute("aria-pressed", String(state.as === as));
      choose.addEventListener("click", () => { state.as = as; drawDetail(); remember(); focusOn(`.switch button:nth-of-type(${as === "tokens" ? 2 : 1})`); });
      box.append(choose);
    }
    if (!both || state.as === "tokens") {
      const name = make("label"), check = make("input");
      check.type = "checkbox";
      check.checked = state.bounds;
      check.addEventListener("change", () => { state.bounds = check.checked; drawDetail(); remember(); focusOn(".switch input"); });
      name.append(check, " token bounds");
      const target = make("span", "key target", "targets"), context = make("span", "key", "context");
      box.append(name, target, context);
    }
    return box;
  }
  function focusOn(selector) { const node = $("detail").querySelector(selector); if (node) node.focus({ preventScroll: true }); }

  function message(item) {
    const kind = item.role === "text" ? "text-document" : item.role;
    const box = make("div", `message ${kind}${item.train === false ? " untrained" : ""}`);
    const role = item.role === "text" ? "document" : item.role;
    box.append(make("div", "role", [role, item.name, item.train === false ? "not trained on" : ""].filter(Boolean).join(" · ")));
    if (item.reasoning) box.append(folded("reasoning", item.reasoning));
    if (item.text) box.append(make("div", "text", item.text));
    for (const [name, given] of item.calls) box.append(folded(`calls ${name}`, pretty(given)));
    if (item.left_out) box.append(make("div", "cut", `${number(item.left_out)} more characters are not shown`));
    return box;
  }
  function folded(title, text) {
    const box = make("details");
    box.append(make("summary", "", title), make("pre", "", text));
    return box;
  }
  function pretty(text) { try { return JSON.stringify(JSON.parse(text), null, 1); } catch { return text; } }

  function example(item, inPack) {
    const box = make("div", inPack ? "example" : ""), text = make("div", state.bounds ? "tokens bounds" : "tokens");
    const head = [item.source, `conversation ${number(item.row)}`, `${number(item.tokens)} tokens`, `${number(item.targets)} targets`];
    if (item.start) head.push(`from its token ${number(item.start)}`);
    if (inPack || item.start) box.append(make("p", "example-head", head.join(" · ")));
    for (const span of item.spans) {
      const part = make("span", span.target ? "target" : "");
      if (state.bounds) part.append(...span.text.split(BETWEEN).map((piece) => make("i", "", piece)));
      else part.textContent = span.text.replaceAll(BETWEEN, "");
      text.append(part);
    }
    box.append(text);
    if (item.left_out) box.append(make("p", "cut", `${number(item.left_out)} more tokens are not shown`));
    return box;
  }

  function remember() {
    const words = new URLSearchParams({ show: state.show, item: state.item, as: state.as });
    if (state.bounds) words.set("bounds", "1");
    if (root.dataset.theme) words.set("theme", root.dataset.theme);
    history.replaceState(null, "", `#${words}`);
  }
  function choose(item) { state.item = item; drawDetail(); remember(); }

  $("list").addEventListener("click", (event) => {
    const line = event.target.closest("button");
    if (line) choose(Number(line.dataset.item));
  });
  $("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const lines = [...$("list").querySelectorAll("button")], next = lines[lines.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    choose(Number(next.dataset.item));
  });
  for (const tab of document.querySelectorAll("[data-show]")) {
    tab.addEventListener("click", () => { state.show = tab.dataset.show; state.item = 0; drawControls(); drawList(); remember(); });
  }
  for (const id of ["by-source", "by-split", "by-reason", "search"]) $(id).addEventListener("input", drawList);

  function follow() {
    const { show, item, as, bounds, source, reason } = fromHash();
    if (!(show in kinds)) return;
    Object.assign(state, { show, item: Number(item) || 0, as: as === "tokens" ? as : "messages", bounds: bounds === "1" });
    drawControls();
    $("by-source").value = source || "";
    $("by-reason").value = reason || "";
    drawList();
    if (reason && $("by-reason").value !== reason) $("count").textContent += `; none of them is ${reason}`;
    if (source || reason) $("samples").scrollIntoView();
  }
  $("browser").hidden = false;
  drawControls();
  drawList();
  follow();
  addEventListener("hashchange", follow);
})();
