// Numbers as people read them.

const NOTHING = "–";
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", {maximumSignificantDigits: 3});
const compact = new Intl.NumberFormat("en", {maximumSignificantDigits: 3, notation: "compact"});

const known = write => value => (value === null || value === undefined ? NOTHING : write(value));
const count = known(value => whole.format(value));
const brief = known(value => (value < 100000 ? short.format(Math.round(value * 100) / 100) : compact.format(value)));
const percent = known(value => (value > 0 && value < 0.001 ? "under 0.1 %" : `${whole.format(round(value * 100, 2))} %`));
const round = (value, digits) => (value < 100 ? Number(value.toPrecision(digits)) : Math.round(value));
const memory = known(value => {
  const mebibytes = value / 2 ** 20;
  return mebibytes < 1024 ? `${count(Math.round(mebibytes))} MiB` : `${short.format(mebibytes / 1024)} GiB`;
});
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const seconds = known(value => {
  if (value < 0.001) return `${short.format(value * 1e6)} µs`;
  return value < 1 ? `${short.format(value * 1000)} ms` : `${short.format(value)} s`;
});

const span = known(value => {
  const total = Math.max(0, Math.floor(value));
  const [days, hours, minutes] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60];
  if (days) return hours && days < 10 ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${total} s`;
});

const clock = milliseconds => new Date(milliseconds).toLocaleTimeString("en-GB");
const moment = known(value => new Date(value * 1000).toLocaleString("en-GB", {dateStyle: "medium", timeStyle: "short"}));
const counts = reasons => Object.entries(reasons).map(([reason, number]) => `${reason} ${count(number)}`).join(", ") || NOTHING;
