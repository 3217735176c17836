// What was answered so far, as far as this page remembers it.

const POINTS = 150; // of a line, two seconds each
const RATE = 10; // seconds
const LATENCY = 60; // seconds

// The gRPC codes that are a fault of the server; the others are OK, or say what is wrong with a call or its caller. Of those that
// were too late the caller may have been: that a server is slow is seen by its latency.
const OURS = new Set(["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE"]);

const sum = values => Object.values(values).reduce((total, value) => total + value, 0);
const called = status => sum(status.methods.map(method => method.calls));
const byCode = status => status.methods.reduce((all, {codes}) => {
  for (const [name, number] of Object.entries(codes)) all[name] = (all[name] ?? 0) + number;
  return all;
}, {});
const failed = status => sum(Object.entries(byCode(status)).map(([name, number]) => (OURS.has(name) ? number : 0)));
const era = status => JSON.stringify([status.started, status.workers.map(({worker, started}) => [worker, started])]);

// As `samples.quantile`.
function quantile(buckets, share) {
  const rank = buckets.length ? share * buckets.at(-1)[1] : 0;
  let low = 0, below = 0;
  for (const [bound, number] of buckets) {
    if (bound === null) break;
    if (number >= rank && rank > 0) return low + (bound - low) * (rank - below) / (number - below);
    [low, below] = [bound, number];
  }
  return rank > 0 ? low : null;
}

function together(histograms) {
  const all = new Map();
  for (const buckets of histograms) for (const [bound, number] of buckets) all.set(bound, (all.get(bound) ?? 0) + number);
  return [...all];
}

class History {
  samples = [];
  lines = {};

  add(status) {
    // After a restart the counters start again, so they say nothing together with those before.
    if (this.samples.length && era(this.samples.at(-1)) !== era(status)) this.samples = [];
    this.samples.push(status);
    while (status.time - this.samples[0].time > LATENCY + 5) this.samples.shift();
    const points = {
      calls: this.rate(called, 0), failed: this.rate(failed, 0), steps: this.rate(it => it.steps, 0), flight: status.in_flight,
      p99: quantile(this.buckets(it => together(it.methods.map(method => method.seconds.buckets)), RATE), 0.99),
      streams: status.streams_open, memory: status.memory_bytes, lag: status.event_loop_lag_seconds,
    };
    for (const [name, value] of Object.entries(points)) this.lines[name] = [...(this.lines[name] ?? []), value].slice(-POINTS);
  }

  // A pause is a gap in the lines.
  gap() {
    for (const [name, values] of Object.entries(this.lines))
      if (values.at(-1) !== null) this.lines[name] = [...values, null].slice(-POINTS);
  }

  get latest() {
    return this.samples.at(-1);
  }

  // The oldest sample of the last seconds, but at least the one before.
  before(window) {
    const older = this.samples.slice(0, -1);
    return older.find(({time}) => this.latest.time - time <= window + 0.5) ?? older.at(-1);
  }

  // How much a count grows in a second; null while that cannot be known.
  rate(pick, window = RATE) {
    const before = this.before(window);
    if (!before) return null;
    const [then, now] = [pick(before), pick(this.latest)];
    if (now === null || now === undefined || this.latest.time <= before.time) return null;
    return Math.max(0, (now - (then ?? 0)) / (this.latest.time - before.time));
  }

  growth(pick, window = LATENCY) {
    const before = this.before(window);
    return before ? Math.max(0, pick(this.latest) - pick(before)) : 0;
  }

  // What a histogram saw in the last seconds.
  buckets(pick, window = LATENCY) {
    const before = this.before(window);
    const then = new Map(before ? pick(before) : []);
    return before ? pick(this.latest).map(([bound, number]) => [bound, Math.max(0, number - (then.get(bound) ?? 0))]) : [];
  }
}
