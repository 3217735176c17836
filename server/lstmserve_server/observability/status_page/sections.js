// What is shown of an answer, section by section; each is left out where the server tells nothing of it.

const MEANINGS = {
  OK: "answered", CANCELLED: "the caller went, or its deadline passed",
  INVALID_ARGUMENT: "wrong by itself", FAILED_PRECONDITION: "not for this model", NOT_FOUND: "no such model",
  RESOURCE_EXHAUSTED: "too large, or the server is full", UNAVAILABLE: "the server is starting or draining",
  DEADLINE_EXCEEDED: "too late", UNAUTHENTICATED: "who calls is not known", PERMISSION_DENIED: "not allowed",
  INTERNAL: "a fault of the server", UNKNOWN: "a fault of the server",
  queue: "waiting for its turn", compute: "in the model", encode: "writing the answer",
};
const meaning = what => (MEANINGS[what] ? [" ", el("span", {class: "meaning"}, MEANINGS[what])] : []);
const DAY = 86400;

// What needs attention, worst first.
function concerns(history) {
  const status = history.latest, found = [], left = status.certificate_expires - status.time;
  const say = (applies, text) => applies && found.push(text);
  const down = status.workers.filter(({serving}) => serving === false);
  say(down.length, ["Not every worker is serving: ", down.map(({worker}) => worker).join(", "), "."]);
  const calls = history.growth(called), faults = history.growth(failed);
  const share = faults / calls;
  say(share >= 0.01, `${percent(share)} of the calls of the last minute failed by a fault of the server.`);
  say(status.certificate_expires !== null && left <= 0, "The certificate has expired.");
  for (const {model, discrepant} of status.shadow?.models ?? [])
    say(discrepant, ["Answers of ", name(model), ` differ from Keras: ${plural(discrepant, "call")} over tolerance.`]);
  say(status.shadow && !status.shadow.reference_up, "Shadow mode compares nothing: the process with Keras is not up.");
  const busy = history.growth(it => it.refused.BUSY ?? 0);
  say(busy, `${plural(busy, "call")} of the last minute found the server full.`);
  say(status.event_loop_lag_seconds > 0.1, `The event loop is late by ${seconds(status.event_loop_lag_seconds)}.`);
  for (const {what, outcome, count: times} of status.reloads)
    say(outcome === "failed" && times, ["Reloading failed ", `${plural(times, "time")} since the start: `, what, "."]);
  say(left > 0 && left < 14 * DAY, `The certificate expires in ${span(left)}.`);
  say(status.open_descriptors > 0.8 * status.most_descriptors, "The process has few file descriptors left.");
  return found;
}

function tiles(history) {
  const status = history.latest, {lines} = history;
  const calls = history.growth(called), faults = history.growth(failed);
  const seen = history.buckets(it => together(it.methods.map(method => method.seconds.buckets)));
  const full = status.most_descriptors ? ` · ${count(status.open_descriptors)} descriptors` : "";
  const all = [
    ["Calls per second", brief(history.rate(called)), since(called(status)), lines.calls],
    ["Failed calls", calls ? percent(faults / calls) : NOTHING, since(failed(status)), lines.failed, faults],
    ["Latency, p99", seconds(quantile(seen, 0.99)), `half within ${seconds(quantile(seen, 0.5))}`, lines.p99],
    status.steps !== null && ["Steps per second", brief(history.rate(it => it.steps)), since(status.steps), lines.steps],
    status.in_flight !== null && ["Calls in flight", count(status.in_flight), peak(lines.flight, count), lines.flight],
    status.streams_open !== null && ["Open streams", count(status.streams_open),
      `${brief(history.rate(it => it.stream_messages))} messages per second`, lines.streams],
    status.memory_bytes !== null && ["Memory", memory(status.memory_bytes), peak(lines.memory, memory) + full, lines.memory],
    status.event_loop_lag_seconds !== null && ["Event loop lag", seconds(status.event_loop_lag_seconds),
      peak(lines.lag, seconds), lines.lag, status.event_loop_lag_seconds > 0.1],
  ];
  return el("dl", {class: "tiles"}, all.filter(Boolean).map(([title, value, more, line, bad]) =>
    el("div", {class: bad ? "tile bad" : "tile"},
      el("dt", null, title), el("dd", null, value), el("dd", {class: "soft"}, more),
      el("dd", {class: "drawing", "aria-hidden": "true"}, sparkline(line)))));
}

const since = number => `${brief(number)} since the start`;
const peak = (line, write) => `at most ${write(Math.max(...line.map(value => value ?? 0)))}`;

function calls(history) {
  const {methods, parts} = history.latest, codes = byCode(history.latest);
  if (!methods.length) return section("Calls", el("p", {class: "note"}, "No call has ended yet."));
  const of = method => it => it.methods.find(other => other.method === method);
  const timed = (pick, share) => seconds(quantile(history.buckets(pick), share));
  const rows = methods.map(({method, calls: number, codes: ended}) => {
    const buckets = it => of(method)(it)?.seconds.buckets ?? [];
    return [name(method), brief(history.rate(it => of(method)(it)?.calls ?? 0)), timed(buckets, 0.5), timed(buckets, 0.99),
      count(number), count(number - (ended.OK ?? 0))];
  });
  const outcomes = Object.keys(codes).sort((one, other) => (one !== "OK") - (other !== "OK") || codes[other] - codes[one]);
  return section("Calls",
    table("Calls by method", ["method", "#per second", "#p50", "#p99", "#ended", "#not OK"], rows),
    el("div", {class: "columns"},
      table("Calls by outcome", ["outcome", "#per second", "#calls"], outcomes.map(outcome => [
        [word(outcome === "OK" ? "good" : OURS.has(outcome) ? "bad" : "plain", outcome), meaning(outcome)],
        brief(history.rate(it => byCode(it)[outcome] ?? 0)), count(codes[outcome])])),
      Object.keys(parts).length > 0 && table("Where the time of a call goes", ["where its time goes", "#p50", "#p99"],
        Object.keys(parts).map(part => {
          const buckets = it => it.parts[part]?.buckets ?? [];
          return [[part, " ", meaning(part)], timed(buckets, 0.5), timed(buckets, 0.99)];
        }))));
}

function refusals(history) {
  const rows = [["refused", "call"], ["state_refused", "state"]].flatMap(([field, what]) =>
    Object.entries(history.latest[field]).filter(([, number]) => number).map(([reason, number]) =>
      [code(reason), what, brief(history.rate(it => it[field][reason] ?? 0)), count(number)]));
  if (!rows.length) return section("Refusals", el("p", {class: "note"}, "Nothing was refused since the start."));
  return section("Refusals", table("Refusals by reason", ["reason", "of", "#per second", "#since the start"], rows));
}

function health(serving) {
  return serving ? word("good", "serving") : word("bad", "not serving");
}

function models(history, full) {
  const {models: all, serving, shadow} = history.latest;
  if (!all.length) return null;
  const digits = text => (text ? code(full ? text : text.slice(0, 12)) : NOTHING);
  const steps = wanted => it => it.models.find(model => model.name === wanted)?.steps ?? 0;
  const rows = all.map(model => [name(model.name), health(model.serving ?? serving), model.kind ?? NOTHING,
    model.steps === null ? NOTHING : brief(history.rate(steps(model.name))), digits(model.digest), digits(model.fingerprint),
    ...(shadow ? [verdict(shadow.models.find(({model: other}) => other === model.name))] : [])]);
  const heads = ["model", "health", "kind", "#steps per second", "digest", "numerics", ...(shadow ? ["compared with Keras"] : [])];
  const button = el("button", {type: "button", id: "digests", "aria-pressed": full, onclick: switchDigests}, "Whole digests");
  return section("Models", button, table("Models", heads, rows));
}

function verdict(compared) {
  if (!compared?.compared) return word("open", "not compared");
  return compared.discrepant ? word("bad", "differs") : word("good", "agrees");
}

function shadow(history) {
  const told = history.latest.shadow;
  if (!told) return null;
  const models = [...told.models].sort((one, other) => (other.discrepant > 0) - (one.discrepant > 0));
  return section("Shadow",
    facts([["process with Keras", told.reference_up ? word("good", "up") : word("bad", "not up")],
      ["restarted", plural(told.restarts ?? 0, "time")], ["waiting to be compared", plural(told.queue ?? 0, "call")],
      ["oldest of them", told.queue ? seconds(told.lag_seconds) : NOTHING]]),
    table("Compared with Keras", ["model", "verdict", "#of all calls", "#compared", "#over tolerance",
      "#largest part of it", "left out"], models.map(compared)),
    el("div", {class: "cards"}, models.filter(({layers: all}) => all.length).map(layers)));
}

function compared(model) {
  const share = model.compared / Math.max(1, model.offered);
  const largest = Math.max(0, ...model.layers.map(({margin}) => margin ?? 0));
  return [name(model.model), verdict(model), [percent(share), " ", bar(share)], count(model.compared),
    model.discrepant ? word("bad", plural(model.discrepant, "call")) : model.compared ? "0" : NOTHING,
    model.layers.length ? percent(largest) : NOTHING, counts({...model.dropped, ...model.not_comparable, ...model.errors})];
}

function layers(model) {
  const bad = model.discrepant > 0, number = new Set(model.layers.map(({layer}) => layer)).size;
  return el("details", bad ? {class: "card bad", open: ""} : {class: "card"},
    el("summary", null, name(model.model), ` by layer (${number})`),
    table(`Layers of ${model.model}`, ["layer", "array", "#over", "#of tolerance"], model.layers.map(layer => [
      name(layer.layer), layer.array, layer.over ? word("bad", count(layer.over)) : "0",
      [percent(layer.margin), " ", bar(layer.margin ?? 0, layer.over ? "over" : "")]])));
}

function workers(history) {
  const {workers: all, time} = history.latest;
  if (!all.length) return null;
  const ended = wanted => it => it.workers.find(({worker}) => worker === wanted)?.calls ?? 0;
  const heads = ["worker", "health", "#calls per second", "#in flight", "#memory", "#loop lag", "#up for"];
  return section("Workers", table("Workers", heads,
    all.map(it => [name(it.worker), it.serving === null ? NOTHING : health(it.serving), brief(history.rate(ended(it.worker))),
      count(it.in_flight), memory(it.memory_bytes), seconds(it.event_loop_lag_seconds),
      it.started === null ? NOTHING : span(time - it.started)])));
}

function callers(history) {
  const {callers: all} = history.latest;
  if (!all.length) return null;
  const ended = wanted => it => it.callers.find(({caller}) => caller === wanted)?.calls ?? 0;
  return section("Callers", table("Callers", ["caller", "#calls per second", "#calls", "refused"], all.map(it =>
    [name(it.caller), brief(history.rate(ended(it.caller))), count(it.calls), counts(it.refused)])));
}

function server(history) {
  const status = history.latest, {version, ...libraries} = status.build, left = status.certificate_expires - status.time;
  return section("Process", facts([
    version && ["version", version], ...Object.entries(libraries),
    status.started !== null && ["started", moment(status.started)],
    status.cpu_seconds !== null && ["CPU", `${percent(history.rate(it => it.cpu_seconds) ?? 0)} of one core`],
    status.certificate_expires !== null && ["certificate", left > 0
      ? `until ${moment(status.certificate_expires)}, ${span(left)} left`
      : word("bad", `expired on ${moment(status.certificate_expires)}`)],
    ...status.reloads.map(({what, outcome, count: times}) => [`${what}, reloaded`, `${plural(times, "time")} ${outcome}`]),
  ]));
}
