//! The configuration as it may be shown to others: what is not named here is not shown, and of files that hold
//! keys not even where they are.

use serde_json::{Value, json};

use crate::config::{Config, Confinement};
use crate::update::admission::Swap;

/// What the office needs to know of it.
pub fn redacted(config: &Config) -> Value {
    let Config { device, fleet, target, data, broker, models, gateway, telemetry, review, .. } = config;
    let crash_loop = config.crash_loop();
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
            "job_deadline_ms": config.job_deadline(),
            "swap": match models.swap {
                Swap::Hot => "hot",
                Swap::Cold => "cold",
            },
            "sandbox": match models.sandbox {
                Confinement::Prefer => "prefer",
                Confinement::Require => "require",
            },
        },
        "gateway": { "listen": gateway.listen, "socket": config.socket() },
        "telemetry": {
            "window_ms": config.window(),
            "backlog": telemetry.backlog,
            "answers": telemetry.answers,
            "answers_for_ms": telemetry.answers_for.as_millis() as u64,
        },
        "review": {
            "enabled": review.enabled,
            "per_day": review.per_day,
            "bytes_per_day": review.bytes_per_day,
            "redact": review.redact,
        },
        "policy": config.policy.shown(),
        "crash_loop": { "restarts": crash_loop.restarts, "window_ms": crash_loop.window },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_what_runs_is_shown_and_where_keys_lie_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("agent.toml");
        let text = "device = 'd'\nfleet = 'f'\ndata = '/data'\ntrust.root = 'root.json'\nmodels.swap = 'hot'\n\
                    models.sandbox = 'require'\ncrash_loop.restarts = 7\nreview.enabled = true\n\
                    review.redact = ['name']\nbroker.host = 'b'\nbroker.port = 8883\n\
                    broker.tls = { ca = '/s/ca.crt', certificate = '/s/d.crt', key = '/s/d.key' }\n\
                    [policy]\ndaily_bytes = '50MiB'\nmetered_interfaces = ['wwan*']\nfetch.min_free = '1GiB'\n\
                    install.windows = ['Mon-Fri 22:00-05:00']\ninstall.min_battery = '40%'\n";
        std::fs::write(&path, text).expect("written");
        let shown = redacted(&Config::read(&path).expect("right"));
        assert_eq!(
            (&shown["models"]["swap"], &shown["models"]["sandbox"]),
            (&json!("hot"), &json!("require"))
        );
        assert_eq!(shown["crash_loop"]["restarts"], 7);
        assert_eq!(
            (&shown["review"]["enabled"], &shown["review"]["redact"]),
            (&json!(true), &json!(["name"]))
        );
        let policy = &shown["policy"];
        assert_eq!(policy["install"]["windows"], json!(["Mon-Fri 22:00-05:00"]), "{policy}");
        assert_eq!(
            (&policy["install"]["min_battery"], &policy["fetch"]["min_free"]),
            (&json!(40), &json!(1 << 30))
        );
        assert_eq!(
            (&policy["daily_bytes"], &policy["metered_interfaces"]),
            (&json!(50 << 20), &json!(["wwan*"]))
        );
        assert!(!shown.to_string().contains("/s/"), "{shown}");
    }
}
