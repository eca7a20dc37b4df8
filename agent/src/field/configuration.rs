//! The configuration as it may be shown to others: what is not named here is not shown, and of files that hold
//! keys not even where they are.

use serde_json::{Value, json};

use crate::config::Config;

/// What the office needs to know of it.
pub fn redacted(config: &Config) -> Value {
    let Config { device, fleet, target, data, broker, models, gateway, telemetry, .. } = config;
    let given = |given: bool| if given { "given" } else { "not given" };
    let tls = broker.tls.as_ref().map(|tls| {
        json!({ "ca": "given", "certificate": given(tls.certificate.is_some()), "key": given(tls.key.is_some()) })
    });
    json!({
        "device": device,
        "fleet": fleet,
        "target": target,
        "data": data,
        "broker": {
            "host": broker.host,
            "port": broker.port,
            "patience_ms": config.pace().patience,
            "tls": tls,
        },
        "models": {
            "memory": models.memory,
            "reserve": models.reserve,
            "load_deadline_ms": models.load_deadline.as_millis() as u64,
            "request_deadline_ms": models.request_deadline.as_millis() as u64,
        },
        "gateway": { "listen": gateway.listen },
        "telemetry": { "window_ms": config.window(), "backlog": telemetry.backlog },
    })
}
