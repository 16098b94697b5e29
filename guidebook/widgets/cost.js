// The arithmetic of guidebook/widgets/cost.py and a form around it, for a page without Python.
// It asks no other host for anything; prices and terms come from the page it stands in.
// A test runs `answer`, `rows` and `sentence` beside their Python twins with random numbers.

const HOURS_PER_WEEK = 168;
const WEEKS_PER_MONTH = (365.25 * 24) / 12 / HOURS_PER_WEEK;
const OWN = "#0f7fc0";
const RENT = "#d1660a";

/**
 * What buying a card and renting one cost, in US dollars.
 *
 * `q` holds the question (hours_per_week, usd_per_kwh, usd, load_w, usd_per_gpu_hour, speed,
 * startup_minutes) and the terms (billing_seconds, minimum_seconds, first_year, later_years,
 * selling_fee, hours_per_session, months, within_months). The result has the fields of the Python class.
 */
export function answer(q) {
  const running = q.startup_minutes / 60 + q.hours_per_session / q.speed;
  const seconds = Math.max(running * 3600, q.minimum_seconds);
  // The last digit of a product must not cost a whole unit.
  const units = Math.ceil(seconds / q.billing_seconds - 1e-9);
  const billed = Math.max(running, (units * q.billing_seconds) / 3600);
  // By the hour of work on the card that is bought.
  const rent_hour = (billed / q.hours_per_session) * q.usd_per_gpu_hour;
  const electricity_hour = (q.load_w / 1000) * q.usd_per_kwh;
  const hours = q.hours_per_week * WEEKS_PER_MONTH;
  const rent = rent_hour * hours;
  const electricity = electricity_hour * hours;
  const saved = rent - electricity;
  const years = q.months / 12;
  const kept =
    (1 - q.selling_fee) * (1 - q.first_year) ** Math.min(years, 1) * (1 - q.later_years) ** Math.max(years - 1, 0);
  const own_usd = q.usd * (1 - kept) + electricity * q.months;
  const rent_usd = rent * q.months;
  let months = null;
  if (q.usd <= 0) months = 0;
  else if (saved > 0 && q.usd / saved <= q.within_months) months = q.usd / saved;
  let year = null;
  if (q.usd <= 0) year = 0;
  else if (rent_hour > electricity_hour) {
    const needed = q.usd / 12 / (rent_hour - electricity_hour) / WEEKS_PER_MONTH;
    if (needed <= HOURS_PER_WEEK) year = needed;
  }
  return {
    rent_per_month: rent,
    electricity_per_month: electricity,
    months,
    own_usd,
    rent_usd,
    own_per_hour: hours ? own_usd / (hours * q.months) : null,
    rent_per_hour: hours ? rent_usd / (hours * q.months) : null,
    hours_for_a_year: year,
  };
}

const number = (value, decimals = 0) =>
  value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });

const usd = (value, decimals = 0) => (value === null ? "–" : `${number(value, decimals)} USD`);

/** How long it takes until a purchase has paid. */
export function showMonths(months) {
  if (months === null) return "not within 10 years";
  if (months >= 24) return `${number(months / 12, 1)} years`;
  return months >= 1.5 ? `${number(months)} months` : "1 month or less";
}

/** The answer in words. */
export function sentence(gpu, q, found) {
  const hours = found.hours_for_a_year;
  const paid =
    found.months === null
      ? "has not paid for itself within 10 years"
      : `has paid for itself after ${showMonths(found.months)}`;
  let year = "No number of hours pays within a year.";
  if (hours !== null && hours <= 0) year = "It pays within a year without any.";
  else if (hours !== null) year = `From ${number(hours, 1)} hours a week on, it pays within a year.`;
  return `With ${q.hours_per_week} hours a week, the ${gpu} ${paid}. ${year}`;
}

/** The table's rows: what, when bought, when rented. */
export function rows(names, q, found, card, offer) {
  // A hyphen that does not break keeps a date in one line.
  const day = (dated) => dated.replaceAll("-", "\u2011");
  const price = q.usd === card.usd ? `${card.kind}, ${day(card.dated)}` : "yours";
  const rent = q.usd_per_gpu_hour === offer.usd_per_gpu_hour ? day(offer.dated) : "yours";
  return [
    ["thing", names.gpu, `${offer.gpu}, ${names.provider}, ${offer.tier}`],
    ["price", `${usd(q.usd)} (${price})`, `${usd(q.usd_per_gpu_hour, 3)} an hour (${rent})`],
    ["speed", "1", `${number(q.speed, 2)} times`],
    [
      "each month",
      `${usd(found.electricity_per_month, 2)} of electricity`,
      usd(found.rent_per_month, 2),
    ],
    ["three years", `${usd(found.own_usd)}, sold at the end`, usd(found.rent_usd)],
    ["each hour of work", usd(found.own_per_hour, 3), usd(found.rent_per_hour, 3)],
  ];
}

/** The question and the terms of one card and one provider, with the reader's own numbers. */
export function combine(data, names, values) {
  const card = data.cards[names.gpu];
  const [index, speed] = data.choices[names.gpu][names.provider];
  const offer = data.offers[index];
  return {
    card,
    offer,
    q: {
      usd: card.usd,
      load_w: card.load_w,
      first_year: card.first_year,
      later_years: card.later_years,
      selling_fee: card.selling_fee,
      usd_per_gpu_hour: offer.usd_per_gpu_hour,
      billing_seconds: offer.billing_seconds,
      minimum_seconds: offer.minimum_seconds,
      speed,
      startup_minutes: data.startup_minutes,
      hours_per_session: data.hours_per_session,
      months: data.months,
      within_months: data.within_months,
      ...values,
    },
  };
}

// --- the form -----------------------------------------------------------------------------------

const STYLE = `
.guidebook-cost form { display: grid; gap: 0.75rem 1.25rem; margin: 0.5rem 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.guidebook-cost label { display: grid; gap: 0.2rem; align-content: start; }
.guidebook-cost details { grid-column: 1 / -1; }
.guidebook-cost details > div { display: grid; gap: 0.75rem 1.25rem; padding-top: 0.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.guidebook-cost summary { cursor: pointer; }
.guidebook-cost :is(select, input:not([type="range"])) { box-sizing: border-box; font: inherit;
  width: 100%; min-height: 2.4rem; padding: 0.3rem 0.5rem; border-radius: 0.25rem;
  border: 1px solid var(--pst-color-text-muted, var(--jp-border-color0, #767676));
  color: var(--pst-color-text-base, var(--jp-ui-font-color1, inherit));
  background: var(--pst-color-background, var(--jp-layout-color1, Canvas)); }
.guidebook-cost input[type="range"] { width: 100%; min-height: 2.4rem; margin: 0;
  accent-color: ${OWN}; }
.guidebook-cost :is(select, input, summary):focus-visible { outline: 2px solid currentColor;
  outline-offset: 2px; }
.guidebook-cost .guidebook-cost-say { font-weight: 600; }
.guidebook-cost svg { display: block; width: 100%; max-width: 44rem; height: auto; }
.guidebook-cost svg text { fill: currentColor; font-size: 13px; }
.guidebook-cost-answer { overflow-x: auto; }
`;

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const drawn = (name, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

const fill = (list, names, chosen) => {
  list.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  list.value = names.includes(chosen) ? chosen : names[0];
};

/** Two cumulative costs over the months; buying counts no resale. */
function draw(figure, q, found) {
  // As wide as it is shown, so that its letters keep their size on a phone.
  const width = Math.min(Math.max(figure.parentElement.clientWidth, 300), 640);
  const [height, left, bottom, top, right] = [300, 62, 46, 34, 16];
  figure.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const own = (month) => q.usd + found.electricity_per_month * month;
  const rent = (month) => found.rent_per_month * month;
  const most = Math.max(own(q.months), rent(q.months), 1);
  const step = 10 ** Math.floor(Math.log10(most));
  const tick = [0.2, 0.5, 1, 2].map((n) => n * step).find((size) => most / size <= 5) || 5 * step;
  const highest = Math.ceil(most / tick) * tick;
  const x = (month) => left + ((width - left - right) * month) / q.months;
  const y = (value) => height - bottom - ((height - bottom - top) * value) / highest;
  const parts = [];
  const line = (attributes) => parts.push(drawn("line", { stroke: "currentColor", ...attributes }));
  const text = (at, words, anchor = "middle") =>
    parts.push(drawn("text", { x: at[0], y: at[1], "text-anchor": anchor }, words));
  for (let value = 0; value <= highest + tick / 2; value += tick) {
    line({ x1: left, x2: width - right, y1: y(value), y2: y(value), "stroke-opacity": 0.18 });
    text([left - 8, y(value) + 4], number(value, tick < 1 ? 1 : 0), "end");
  }
  for (let month = 0; month <= q.months; month += 6) text([x(month), height - bottom + 20], month);
  text([(left + width - right) / 2, height - 6], "months");
  text([4, 16], "spent (USD)", "start");
  const curve = (cost, color, dash) =>
    parts.push(
      drawn("line", {
        x1: x(0),
        y1: y(cost(0)),
        x2: x(q.months),
        y2: y(cost(q.months)),
        stroke: color,
        "stroke-width": 3,
        "stroke-dasharray": dash,
      }),
    );
  curve(own, OWN, "none");
  curve(rent, RENT, "9 5");
  const legend = (at, color, dash, words) => {
    line({ x1: at, x2: at + 34, y1: 12, y2: 12, stroke: color, "stroke-width": 3,
      "stroke-dasharray": dash });
    text([at + 42, 16], words, "start");
  };
  legend(width - 190, OWN, "none", "buy");
  legend(width - 92, RENT, "9 5", "rent");
  if (found.months !== null && found.months <= q.months) {
    parts.push(
      drawn("circle", { cx: x(found.months), cy: y(own(found.months)), r: 6,
        fill: "currentColor" }),
    );
  }
  figure.replaceChildren(...parts);
  figure.setAttribute(
    "aria-label",
    `Money spent in ${q.months} months: ${usd(own(q.months))} when bought, ` +
      `${usd(rent(q.months))} when rented; resale not counted.`,
  );
}

/** Put the form into a calculator's element and answer its first question. */
export function mount(root) {
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const place = root.querySelector(".guidebook-cost-answer");
  const gpu = element("select");
  const provider = element("select");
  const hours = element("input", { type: "range", min: 1, max: 100, step: 1 });
  // Not an <output>: a label belongs to the first control in it, and that would be one.
  const shown = element("span");
  const box = (step, min = 0) =>
    element("input", { type: "number", min, step, inputmode: "decimal" });
  const kwh = box("0.01");
  const own = {
    usd: box("1"),
    load_w: box("1"),
    usd_per_gpu_hour: box("0.01"),
    speed: box("0.01", 0.01),
    startup_minutes: box("1"),
  };
  const say = element("p", { class: "guidebook-cost-say", "aria-live": "polite" });
  const figure = drawn("svg", { role: "img" });
  const label = (words, ...controls) => element("label", {}, element("span", {}, ...words),
    ...controls);
  const form = element(
    "form",
    {},
    label(["Buy"], gpu),
    label(["Rent from"], provider),
    label(["Hours of work a week: ", shown], hours),
    label(["Electricity, USD per kWh"], kwh),
    element(
      "details",
      {},
      element("summary", {}, "Your own figures"),
      element(
        "div",
        {},
        label(["Price of the card, USD"], own.usd),
        label(["Its power at work, W"], own.load_w),
        label(["Rent, USD per GPU and hour"], own.usd_per_gpu_hour),
        label(["The rented GPU is so many times as fast"], own.speed),
        label(["Paid minutes before each two hours of work"], own.startup_minutes),
      ),
    ),
  );
  const names = () => ({ gpu: gpu.value, provider: provider.value });
  const reset = (keys) => {
    const { q } = combine(data, names(), {});
    for (const key of keys) own[key].value = q[key];
  };
  const update = () => {
    const boxes = { usd_per_kwh: kwh, ...own };
    const values = { hours_per_week: Number(hours.value) };
    for (const [key, control] of Object.entries(boxes)) values[key] = control.valueAsNumber;
    const wrong = Object.entries(values).some(
      ([key, value]) => !Number.isFinite(value) || value < 0 || (key === "speed" && value === 0),
    );
    shown.textContent = hours.value;
    if (wrong) {
      say.textContent = "Give a number from 0 on in every field; the speed must be above 0.";
      return;
    }
    const { q, card, offer } = combine(data, names(), values);
    const found = answer(q);
    say.textContent = sentence(gpu.value, q, found);
    const head = ["cost", "buy", "rent"].map((name) => element("th", { scope: "col" }, name));
    const body = rows(names(), q, found, card, offer).map((cells) =>
      element("tr", {}, ...cells.map((cell) => element("td", {}, cell))),
    );
    place.replaceChildren(
      element(
        "table",
        { class: "guidebook-table" },
        element("thead", {}, element("tr", {}, ...head)),
        element("tbody", {}, ...body),
      ),
    );
    draw(figure, q, found);
  };
  fill(gpu, Object.keys(data.cards), data.first.gpu);
  fill(provider, Object.keys(data.choices[gpu.value]), data.first.provider);
  hours.value = data.first.hours_per_week;
  kwh.value = data.first.usd_per_kwh;
  reset(Object.keys(own));
  gpu.addEventListener("change", () => {
    fill(provider, Object.keys(data.choices[gpu.value]), provider.value);
    reset(["usd", "load_w", "usd_per_gpu_hour", "speed"]);
  });
  provider.addEventListener("change", () => reset(["usd_per_gpu_hour", "speed"]));
  form.addEventListener("input", update);
  form.addEventListener("change", update);
  window.addEventListener("resize", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  root.prepend(element("style", {}, STYLE), form, say);
  root.append(figure);
  update();
}

if (typeof document !== "undefined") {
  for (const root of document.querySelectorAll(".guidebook-cost:not([data-ready])")) {
    root.setAttribute("data-ready", "");
    mount(root);
  }
}
