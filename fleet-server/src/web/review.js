// The queue of samples for people. Contents are asked for one by one, by name, and the server keeps who looked.
let reviewer = sessionStorage.getItem("reviewer") || "";

function drawReview({ samples }) {
  byId("review-section").hidden = !samples.length && byId("sample").hidden;
  const waiting = samples.filter(sample => !sample.judgement).length;
  byId("review-summary").textContent = `${waiting} of ${samples.length} samples wait for a word. Who looks at one is on record.`;
  const rows = samples.slice(0, MAX_ROWS).map(sample => [
    button("Look", "look " + sample.id, () => look(sample.id)), clock(sample.received), sample.device, sample.release,
    sample.reason.replaceAll("_", " "), sample.class === null ? "–" : sample.class,
    sample.confidence === null ? "–" : sample.confidence.toFixed(2),
    sample.judgement ? [sample.judgement.verdict === "wrong" ? "bad" : "", `${sample.judgement.verdict}, ${sample.judgement.by}`] : "",
  ]);
  replace(byId("review"), !rows.length ? [] : [tableOf(["", "Came", "Device", "Release", "Reason", "#Class", "#Confidence", "Word"], rows)]);
}

function who() {
  byId("review-error").textContent = "";
  reviewer = byId("reviewer").value.trim();
  if (!reviewer) { byId("reviewer").focus(); throw new Error("say who you are: the server keeps who looked"); }
  sessionStorage.setItem("reviewer", reviewer);
  return reviewer;
}

async function look(id) {
  try {
    const answer = await ask(`/api/v1/review/${encodeURIComponent(id)}/show`, { by: who() });
    drawSample(await answer.json());
    byId("sample").focus();
  } catch (error) { byId("review-error").textContent = error.message; }
}

async function judge(id, verdict, right) {
  try {
    await ask(`/api/v1/review/${encodeURIComponent(id)}/judge`, { by: who(), verdict, class: right === "" ? null : Number(right) });
    byId("sample").hidden = true;
    await loadWatch();
  } catch (error) { byId("review-error").textContent = error.message; }
}

function drawSample(sample) {
  const inputs = sample.inputs.flatMap(input => {
    const values = input.data.slice(0, MAX_VALUES).map(value => value === null ? "·" : typeof value === "number" ? plain(value) : value);
    const more = input.data.length - values.length;
    return [element("h3", "", `${input.name}, ${input.datatype}, ${input.shape.join(" × ")}`),
      element("pre", "", values.join(" ") + (more > 0 ? ` … and ${more} more: serin-fleet review show ${sample.id}` : ""))];
  });
  const answered = [sample.class === null ? "" : `class ${sample.class}`, sample.confidence === null ? "" : `confidence ${sample.confidence.toFixed(2)}`,
    sample.shadow ? `the shadow ${sample.shadow.release} says class ${sample.shadow.class}` : ""].filter(Boolean).join(", ");
  const right = element("input", "");
  Object.assign(right, { type: "number", id: "right-class", step: "1" });
  const label = element("label", "", "Right class");
  label.htmlFor = "right-class";
  const word = (text, verdict) => button(text, "word " + verdict, () => judge(sample.id, verdict, verdict === "wrong" ? right.value : ""));
  const place = byId("sample");
  place.hidden = false;
  place.replaceChildren(
    element("h3", "", `Sample ${sample.id} of ${sample.device}`), element("p", "", answered || "no class"), ...inputs,
    element("p", "", word("Right", "right"), " ", word("Wrong", "wrong"), " ", word("Unclear", "unclear"), " ", label, right));
}
