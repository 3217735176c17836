// Asks, remembers and shows.

const EVERY = 2000, PATIENCE = 5000; // milliseconds
const SIGNS = { // a shape of its own for each, for who sees no colors
  serving: "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Zm-1.4 14.2-4.2-4.2 1.6-1.6 2.6 2.6 5.4-5.4 1.6 1.6Z",
  "not-serving": "M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9Zm-.9 8.7v2.6h10v-2.6Z",
  stale: "M12 2 1 21.5h22ZM10.7 9h2.6l-.4 6h-1.8Zm1.3 7.3a1.4 1.4 0 1 1 0 2.8 1.4 1.4 0 0 1 0-2.8Z",
  waiting: "M5 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4Zm7 0a2 2 0 1 0 0 4 2 2 0 0 0 0-4Zm7 0a2 2 0 1 0 0 4 2 2 0 0 0 0-4Z",
};
const COLORS = {serving: "#16834a", "not-serving": "#c0172f", stale: "#a86200", waiting: "#6b7684"};
const WORDS = {serving: "Serving", "not-serving": "Not serving", stale: "No answer", waiting: "Waiting"};

const place = id => document.getElementById(id);
const history_ = new History();
let answered = null, lost = false, paused = false, full = false, timer = null, asking = false;

function stateNow() {
  if (lost) return "stale";
  if (!answered) return "waiting";
  return history_.latest.serving ? "serving" : "not-serving";
}

function show() {
  const state = stateNow(), root = document.documentElement;
  const found = state === "serving" || state === "not-serving" ? concerns(history_) : [];
  if (root.dataset.state !== state) {
    root.dataset.state = state;
    document.title = `${WORDS[state]}: lstmserve at ${location.host}`;
    document.querySelector("link[rel=icon]").href = icon(state);
    patch(place("sign"), [el("path", {d: SIGNS[state], "fill-rule": "evenodd"})]);
  }
  // It is read out when it changes, so it says nothing that changes all the time.
  patch(place("state"), [el("strong", null, WORDS[state]),
    found.length > 0 && el("span", null, ` ${plural(found.length, "thing")} to look at`)].filter(Boolean));
  patch(place("summary"), [summary(state)]);
  patch(place("concerns"), found.length ? [el("ul", {"aria-label": "To look at"}, found.map(text => el("li", null, text)))] : []);
  tick();
  if (answered) figures();
  root.dataset.shown = Number(root.dataset.shown ?? 0) + 1;
}

function icon(state) {
  const path = `<path fill="${COLORS[state]}" fill-rule="evenodd" d="${SIGNS[state]}"/>`;
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">${path}</svg>`)}`;
}

function figures() {
  const version = history_.latest.build.version;
  patch(place("place"), [version ? `${version} at ${location.host}` : `at ${location.host}`]);
  patch(place("figures"), [tiles, calls, refusals, history => models(history, full), shadow, workers, callers, server]
    .map(part => part(history_)).filter(Boolean));
  reachable();
}

function summary(state) {
  if (state === "waiting") return "";
  if (state === "stale" && !answered) return "The server has not answered yet.";
  if (state === "stale") return `The server has not answered since ${clock(answered)}. What stands below is what it said then.`;
  const {models: all, started, time} = history_.latest, rate = history_.rate(called);
  return [
    state === "not-serving" && "It is starting or draining, and answers no calls.",
    all.length > 0 && `${plural(all.length, "model")}.`,
    rate !== null && `${brief(rate)} calls per second.`,
    started !== null && `Up for ${span(time - started)}.`,
  ].filter(Boolean).join(" ");
}

function switchDigests() {
  full = !full;
  show();
}

function tick() {
  if (!answered) return;
  const age = Math.round((Date.now() - answered) / 1000), late = age > 3 ? `, ${span(age)} ago` : "";
  patch(place("clock"), [`${paused ? "Paused. " : ""}Answered at ${clock(answered)}${late}`]);
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await fetch("/status.json", {cache: "no-store", signal: AbortSignal.timeout(PATIENCE)});
    if (!answer.ok) throw new Error(answer.statusText);
    history_.add(await answer.json());
    [answered, lost] = [Date.now(), false];
  } catch {
    history_.gap();
    lost = true;
  }
  asking = false;
  show();
  if (!paused && !document.hidden) timer = setTimeout(ask, EVERY);
}

place("pause").addEventListener("click", ({currentTarget: button}) => {
  paused = !paused;
  button.ariaPressed = String(paused);
  if (paused) {
    clearTimeout(timer);
    history_.gap();
    tick();
  } else ask();
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) history_.gap();
  else if (!paused) ask();
});
addEventListener("resize", reachable);
setInterval(tick, 1000);
ask();
