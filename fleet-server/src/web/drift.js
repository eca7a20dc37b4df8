const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Shares of the predicted classes, side by side.
function bars(series) {
  const count = Math.max(...series.map(one => one.shares.length), 1);
  const each = 9, gap = 10, height = 90, width = count * (series.length * each + gap) + gap;
  const top = Math.max(...series.flatMap(one => one.shares), 0.01);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height + 16}`, width, height: height + 16, role: "img" });
  const words = series.map(one => `${one.name}: ` + one.shares.map((share, at) => `${at} ${(100 * share).toFixed(0)} %`).join(", "));
  svg.append(shape("title", {}, words.join("; ")));
  for (let at = 0; at < count; at++) {
    const left = gap + at * (series.length * each + gap);
    series.forEach((one, index) => {
      const tall = Math.max(0, (one.shares[at] || 0) / top * height);
      svg.append(shape("rect", { x: left + index * each, y: height - tall, width: each - 1, height: tall, class: one.fill }));
    });
    svg.append(shape("text", { x: left, y: height + 12 }, String(at)));
  }
  const figure = element("figure", "");
  const caption = element("figcaption", "soft");
  series.forEach(one => { caption.append(element("span", "key " + one.fill), one.name); });
  figure.append(caption, svg);
  return figure;
}

// What the server says of a distribution, by numbers and by the control: chance and size have both been asked.
const CAUSES = {
  steady: ["good", "as trained"],
  too_few: ["soft", "too few to say"],
  world: ["warn", "moved, the control too: the world"],
  release: ["bad", "moved, the control has not: the release"],
  unknown: ["warn", "moved, no control to compare with"],
};
const percent = share => `${(100 * share).toFixed(1)} %`;
const range = (estimate, write) => `${write(estimate.value)} (${write(estimate.low)} to ${write(estimate.high)})`;
const plain = value => value.toPrecision(3);

function pickSegment(name) { segment = name; drawDrift(); }

function drawSegmentChoice() {
  const names = drift.segments.map(one => one.name);
  if (!names.includes(segment)) segment = "";
  byId("segment-choice").hidden = !names.length;
  byId("segment").replaceChildren(...["", ...names].map(name => {
    const option = element("option", "", name || "all requests");
    option.value = name;
    option.selected = name === segment;
    return option;
  }));
}

function movedTable(picture) {
  const rows = [picture.predictions, picture.confidence, picture.entropy].filter(Boolean).concat(picture.features.slice(0, MAX_FEATURES));
  if (!rows.length) return [];
  const table = tableOf(["Against the reference data", "#Values", "#Missing", "#PSI", "#KS", "Finding", "Devices"], rows.map(row => [
    row.name, row.seen, row.missing ? percent(row.missing) : "–", row.psi.toFixed(3), row.ks === null ? "–" : row.ks.toFixed(3),
    CAUSES[row.cause] || row.cause, row.devices.slice(0, MAX_NAMED).map(one => one.device).join(", "),
  ]));
  const left = picture.features.length - MAX_FEATURES;
  return [element("h3", "", "What moved most"), table]
    .concat(left > 0 ? [element("p", "soft", `… and ${left} features that moved less: serin-fleet drift ${drift.release}`)] : []);
}

function qualityRow(name, quality) {
  const { labelled, accuracy, absolute_error: error } = quality;
  const right = accuracy ? range(accuracy, percent) : error ? `off by ${range(error, plain)}` : "–";
  const more = [["calibration error", quality.calibration_error], ["Brier", quality.brier], ["RMSE", quality.root_squared_error], ["bias", quality.bias]]
    .filter(([, value]) => value !== null).map(([word, value]) => `${word} ${plain(value)}`);
  return [name, labelled, right, more.join(", ")];
}

function qualityTable(picture) {
  if (!picture.quality) return [];
  const rows = [qualityRow(drift.release, picture.quality)];
  if (picture.control_quality) rows.push(qualityRow("control", picture.control_quality));
  const parts = [element("h3", "", "How right it was"), tableOf(["", "#Labels", "Right (95 % interval)", ""], rows)];
  const against = picture.quality.against_control;
  if (against) {
    const certain = against.low > 0 || against.high < 0;
    const write = picture.quality.accuracy ? percent : plain;
    parts.push(element("p", "", `Against the control: ${range(against, write)}` + (certain ? "" : "; with so few labels it can be chance")));
  }
  const bins = picture.quality.calibration.filter(bin => bin.labelled);
  if (bins.length) {
    const details = element("details", "", element("summary", "", "Confidence kept its word?"));
    details.dataset.key = "calibration";
    details.append(tableOf(["#It was so sure", "#and right in", "#Labels"],
      bins.map(bin => [percent(bin.confidence), percent(bin.right / bin.labelled), bin.labelled])));
    parts.push(details);
  }
  return parts;
}

function segmentTable() {
  if (!drift.segments.length) return [];
  return [element("h3", "", "By segment"), tableOf(["Segment", "#Requests", "#Failed", "Moved most", "#PSI", "Finding", "Right"], drift.segments.map(one => {
    const worst = [one.predictions, ...one.features].filter(Boolean).reduce((most, row) => !most || row.psi > most.psi ? row : most, null);
    const open = button(one.name, "segment " + one.name, () => pickSegment(one.name));
    return [open, one.requests, one.errors, worst ? worst.name : "–", worst ? worst.psi.toFixed(3) : "–",
      worst ? CAUSES[worst.cause] || worst.cause : "", one.quality ? qualityRow("", one.quality)[2] : ""];
  }))];
}

function drawDrift() {
  const fleet = drift.fleet;
  const slow = fleet.latency_p99_micros ? `, 99 % within ${(fleet.latency_p99_micros / 1000).toFixed(1)} ms` : "";
  byId("drift-summary").textContent = fleet.requests
    ? `${plural(fleet.devices, "device")}, ${plural(fleet.requests, "inference")} since ${clock(drift.since)}, ${fleet.errors} failed${slow}`
    : "No device has reported on this release in the last hour.";
  drawSegmentChoice();
  const one = drift.segments.find(one => one.name === segment);
  const parts = one ? [element("p", "", `Segment ${one.name}: ${plural(one.requests, "inference")}, ${one.errors} failed`)] : [];
  if (!one && fleet.requests && fleet.classes.length) {
    const series = [{ name: drift.release, shares: fleet.classes, fill: "fill1" }];
    if (drift.control) series.push({ name: "control, " + drift.control.releases.join(", "), shares: drift.control.classes, fill: "fill2" });
    if (drift.reference_classes.length) series.push({ name: "reference data", shares: drift.reference_classes, fill: "fill3" });
    parts.push(element("h3", "", "Predicted classes"), bars(series));
    if (drift.against_control) parts.push(element("p", "", `Against the control: PSI ${drift.against_control.psi.toFixed(3)}`));
  }
  const picture = one || drift;
  parts.push(...movedTable(picture), ...qualityTable(picture));
  if (!one) parts.push(...segmentTable());
  replace(byId("drift"), parts);
}
