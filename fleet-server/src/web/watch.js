function drawAlerts(alerts) {
  const { firing, watched, silences } = alerts;
  const blind = watched.filter(one => one.state === "no_data").length, pending = watched.filter(one => one.state === "pending").length;
  const more = [[pending, "pending"], [blind, "without data"], [silences.length, "silences"]];
  byId("alerts-summary").textContent = watched.length
    ? [`${firing.length} ring, ${watched.length} watched`, ...more.filter(([count]) => count).map(([count, word]) => `${count} ${word}`)].join(", ")
    : "No rule looks at anything that runs: serin-fleet alert rules";
  const parts = [];
  if (firing.length) {
    parts.push(tableOf(["Severity", "Since", "What", "Owner", ""], firing.slice(0, MAX_ROWS).map(alert => [
      [severe(alert.severity), alert.severity], clock(alert.since), alert.summary, alert.contact || alert.owner,
      alert.silenced_by === null ? "" : `silence ${alert.silenced_by}`,
    ])));
  }
  const unclear = watched.filter(one => one.state === "pending" || one.state === "no_data" || one.state === "clearing");
  if (unclear.length) {
    parts.push(element("h3", "", "Not fine, not ringing"));
    parts.push(tableOf(["Rule", "Of", "State", "Found"], unclear.slice(0, MAX_ROWS).map(one => [
      one.rule, one.segment ? `${one.release}, segment ${one.segment}` : one.release || `all of ${one.owner}`, ["warn", one.state.replace("_", " ")], one.text,
    ])));
  }
  if (silences.length) {
    parts.push(element("h3", "", "Silences"));
    parts.push(tableOf(["Until", "Of", "By", "Why"], silences.slice(0, MAX_ROWS).map(silence => [
      new Date(silence.until).toLocaleString(), silence.matchers.join(" "), silence.author, silence.reason,
    ])));
  }
  replace(byId("alerts"), parts);
}

function drawTriggers({ triggers, rules }) {
  byId("triggers-section").hidden = !triggers.length && !rules.length;
  const shown = triggers.slice(-MAX_ROWS).reverse();
  byId("triggers").replaceChildren(shown.length
    ? tableOf(["Trigger", "Fired", "Release", "Why", "State"], shown.map(trigger => [
      trigger.id, new Date(trigger.fired).toLocaleString(), trigger.release, `${trigger.cause.replace("_", " ")}: ${trigger.why}`,
      [trigger.state === "answered" ? "good" : trigger.state === "expired" ? "bad" : "info",
        trigger.state + (trigger.answered_by ? ` by ${trigger.answered_by}` : trigger.acknowledged_by ? ` by ${trigger.acknowledged_by}` : "")],
    ]))
    : element("p", "soft", "Nothing has asked for training yet."));
}
