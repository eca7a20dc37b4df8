async function loadWatch() {
  drawAlerts(await get("/api/v1/alerts"));
  drawTriggers(await get("/api/v1/triggers"));
  drawReview(await get("/api/v1/review"));
}

async function loadReleases() {
  const releases = (await get("/api/v1/releases")).releases.sort((a, b) => b.added - a.added);
  const select = byId("release");
  byId("drift-section").hidden = releases.length === 0;
  const newest = releases.length ? releases[0].id : "";
  if (!releases.some(release => release.id === chosen)) chosen = newest;
  select.replaceChildren(...releases.map(release => {
    const option = element("option", "", release.id + (release.published ? "" : " (not published yet)"));
    option.value = release.id;
    option.selected = release.id === chosen;
    return option;
  }));
  await loadDrift();
}
async function loadDrift() {
  if (!chosen) return;
  drift = await get("/api/v1/drift?release=" + encodeURIComponent(chosen));
  drawDrift();
}
async function loadRollout(id) {
  rollouts.set(id, await get("/api/v1/rollouts/" + id));
  redraw(drawRollouts);
}
// Many events ask for the same rollout at once; one answer a second is enough.
const asked = new Map();
function soon(id) {
  if (!asked.has(id)) asked.set(id, setTimeout(() => { asked.delete(id); loadRollout(id).catch(complain); }, 300));
}

async function loadAll() {
  const fleet = await get("/api/v1/fleet");
  byId("fleet-name").textContent = fleet.fleet;
  document.title = `${fleet.fleet} · Serin fleet`;
  devices.clear();
  (await get("/api/v1/devices")).devices.forEach(device => devices.set(device.id, device));
  redraw(drawDevices);
  const young = (await get("/api/v1/rollouts")).rollouts.slice(-MAX_ROLLOUTS);
  rollouts.clear();
  await Promise.all(young.map(rollout => loadRollout(rollout.id)));
  redraw(drawRollouts);
  await loadWatch();
  await loadReleases();
}

function happened(name, data) {
  const now = Date.now();
  switch (name) {
    case "device": {
      const known = devices.get(data.id);
      if (!known) say(now, `${data.id} is new`, "info");
      else if (known.online !== data.online) say(now, `${data.id} is ${data.online ? "back" : "gone"}`, data.online ? "" : "warn");
      devices.set(data.id, data);
      redraw(drawDevices);
      break;
    }
    case "event": {
      const device = devices.get(data.device);
      if (device && data.kind === "transition") {
        device.last_move = { at: data.at, release: data.release, phase: data.phase, reason: null };
        redraw(drawDevices);
      }
      say(data.at, `${data.device}: ${data.text}`, data.phase ? tone(data.phase) : data.kind === "refused" ? "warn" : "");
      if (data.rollout !== null) soon(data.rollout);
      break;
    }
    case "rollout":
      say(now, `rollout ${data.rollout} is ${data.state}, stage ${data.stage + 1}`, tone(data.state));
      soon(data.rollout);
      break;
    case "verdict":
      say(data.verdict.at, `rollout ${data.rollout}: ${data.verdict.decision}: ${data.verdict.sentence}`, tone(data.verdict.decision));
      soon(data.rollout);
      break;
    case "release":
      say(now, data.published ? `${data.release} is published` : `${data.release} is being published`);
      loadReleases().catch(complain);
      break;
    case "alert":
      say(data.at, `alert ${data.change}: ${data.alert.summary}`, data.change === "fired" ? severe(data.alert.severity) : "good");
      loadWatch().catch(complain);
      break;
    case "trigger":
      say(data.fired, `training is asked for by ${data.id}: ${data.why}`, "info");
      loadWatch().catch(complain);
      break;
    case "refused":
      say(now, `a message of ${data.device} was refused: ${data.why}`, "warn");
      break;
    case "missed":
      loadAll().catch(complain);
      break;
  }
}

// Read by hand, because EventSource cannot show a token.
async function watch() {
  const answer = await ask("/api/v1/stream");
  live = true;
  byId("link").textContent = "live";
  await loadAll();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "", data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        if (line.startsWith("data:")) data += line.slice(5).trim();
      }
      if (data) happened(name, JSON.parse(data));
    }
  }
}
let live = false;
function complain(error) { byId("link").textContent = String(error.message || error); }

let running = false;
async function run() {
  running = true;
  try { await follow(); } finally { running = false; }
}
async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 10000)) {
    try { await watch(); wait = 500; byId("link").textContent = "the server ended the stream; trying again…"; }
    catch (error) {
      complain(error);
      if (error.denied) return;
    } finally { live = false; }
    await new Promise(done => setTimeout(done, wait));
  }
}
byId("release").addEventListener("change", event => { chosen = event.target.value; loadDrift().catch(complain); });
byId("segment").addEventListener("change", event => pickSegment(event.target.value));
byId("reviewer").value = reviewer;
byId("door").addEventListener("submit", event => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  byId("door").hidden = true;
  // What is public is shown without a token: then the stream is there already.
  if (!running) run();
});
setInterval(() => {
  if (document.hidden || !live) return;
  Promise.all([loadDrift(), loadWatch()]).then(() => { if (live) byId("link").textContent = "live"; }, complain);
}, 3000);
run();
