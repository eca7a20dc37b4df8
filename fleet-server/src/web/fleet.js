function drawDevices() {
  const all = [...devices.values()].sort((a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }));
  const online = all.filter(device => device.online).length, pinned = all.filter(device => device.pinned).length;
  byId("counts").textContent = `${plural(all.length, "device")}, ${online} online` + (pinned ? `, ${pinned} pinned` : "");
  byId("no-devices").hidden = all.length > 0;
  byId("more-devices").hidden = all.length <= MAX_TILES;
  byId("more-devices").textContent = `… and ${all.length - MAX_TILES} more: serin-fleet device list`;
  byId("devices").replaceChildren(...all.slice(0, MAX_TILES).map(tile));
}

function tile(device) {
  const made = element("li", "tile" + (device.online ? "" : " offline") + (device.pinned ? " pinned" : ""));
  const state = (device.online ? "online" : "offline") + (device.pinned ? ", pinned" : "");
  made.append(element("strong", "", device.id));
  made.append(element("span", "", device.active || "no model yet"));
  made.append(element("span", "soft", device.candidate ? `${state}, installing ${device.candidate}` : state));
  if (device.last_move) {
    const move = device.last_move;
    const line = element("span", tone(move.phase), `${move.release} ${move.phase}`);
    if (move.reason) line.append(`: ${move.reason}`);
    made.append(line);
  }
  return made;
}

function drawRollouts() {
  const young = [...rollouts.values()].sort((a, b) => b.id - a.id).slice(0, MAX_ROLLOUTS);
  byId("no-rollouts").hidden = young.length > 0;
  byId("rollouts").replaceChildren(...young.map(drawRollout));
}

function drawRollout(rollout) {
  const made = element("article", "rollout");
  const title = element("h3", "", `${rollout.id}: ${rollout.release} is `);
  title.append(element("span", tone(rollout.state), rollout.state));
  made.append(title);
  if (rollout.why) made.append(element("p", "", rollout.why));
  const stages = element("ol", "stages");
  rollout.stages.forEach((stage, at) => {
    const now = at === rollout.stage && !rollout.finished;
    const past = at < rollout.stage || rollout.state === "completed";
    const item = element("li", now ? "now" : past ? "past" : "", stage.share);
    if (now) item.setAttribute("aria-current", "step");
    stages.append(item);
  });
  made.append(stages);
  const d = rollout.devices;
  const parts = [[d.running, "run it"], [d.installing, "install it"], [d.waiting, "wait (control)"], [d.failed, "failed"],
    [d.unreachable, "not reached"], [d.returning, "are returning"], [d.returned, "have returned"], [d.pinned, "pinned"]];
  made.append(element("p", "", parts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join(", ") || "no device yet"));
  if (rollout.missing && !rollout.finished) made.append(element("p", "soft", "Waiting for: " + rollout.missing));
  const verdicts = element("ul", "verdicts");
  (rollout.verdicts || []).slice(-MAX_VERDICTS).reverse().forEach(verdict => {
    const item = element("li", "", element("strong", tone(verdict.decision), verdict.decision));
    item.append(` (stage ${verdict.stage + 1}, ${clock(verdict.at)}): ${verdict.sentence}`);
    verdicts.append(item);
  });
  made.append(verdicts);
  return made;
}
