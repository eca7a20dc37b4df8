//! Who may ask over TCP. A web page in a browser on this device can reach loopback too, by letting its
//! own name resolve to 127.0.0.1 (DNS rebinding) or by a plain cross-origin form; both give themselves
//! away in `Host` and `Origin`.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};

use super::refusal::Refusal;

/// Refuses a request that was meant for another name or comes from another site.
pub(super) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => return Err(Refusal::bad_request("the Host header is missing").closing()),
        (Some(_), Some(_)) => None,
    };
    let named = [host, uri.authority().map(Authority::as_str)];
    if host.is_none() || named.into_iter().flatten().any(|host| !is_loopback(host)) {
        let message = "the Host header does not name this device: ask localhost or a loopback address";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message).closing());
    }
    let local = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    if headers.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(local)) {
        let message = "requests of web pages from elsewhere are refused";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message).closing());
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    if authority.as_str().contains('@') {
        return false;
    }
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn checked(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).expect("header"));
        }
        check(&Uri::from_static("/v2"), &headers).is_ok()
    }

    #[test]
    fn only_names_of_this_device_are_answered() {
        for good in ["localhost", "LocalHost:8500", "127.0.0.1", "127.9.9.9:1", "[::1]:8500"] {
            assert!(checked(good, None), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "",
            "x@localhost",
            "0.0.0.0",
            "local host",
        ] {
            assert!(!checked(bad, None), "{bad}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        assert!(checked("localhost", Some("http://localhost:3000")));
        for bad in ["https://evil.example", "null", "http://127.0.0.1.evil.example"] {
            assert!(!checked("localhost", Some(bad)), "{bad}");
        }
    }

    #[test]
    fn the_name_in_the_request_line_counts_as_well() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("http://evil.example/v2"), &headers).is_err());
        assert!(check(&Uri::from_static("/v2"), &HeaderMap::new()).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("/v2"), &headers).is_err());
    }
}
