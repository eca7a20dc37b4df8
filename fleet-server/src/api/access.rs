//! Who may do what: whoever shows the operator's token may do everything; on a loopback address, whoever is
//! on this machine may read.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Context;
use super::failure::Failure;
use crate::fleet::secrets::OperatorToken;

pub(super) struct Access {
    operator: OperatorToken,
    on_loopback: bool,
}

impl Access {
    pub(super) fn new(operator: OperatorToken, listen: SocketAddr) -> Self {
        Self { operator, on_loopback: listen.ip().is_loopback() }
    }

    fn allows(&self, method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let shown = headers.get(header::AUTHORIZATION);
        match shown {
            None if reads && self.on_loopback => Ok(()),
            None => Err(unauthorized("the operator's token is needed", "token_missing")),
            Some(shown) => {
                let token = shown.to_str().ok().and_then(|shown| shown.strip_prefix("Bearer "));
                if token.is_some_and(|token| self.operator.matches(token.trim())) {
                    Ok(())
                } else {
                    Err(unauthorized("this is not the operator's token", "token_wrong"))
                }
            }
        }
    }
}

fn unauthorized(error: &str, code: &'static str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, code, error)
        .next("send `Authorization: Bearer <token>`; the token is in keys/operator.token on the server")
}

pub(super) async fn check(State(context): State<Context>, request: Request, next: Next) -> Response {
    match context.access.allows(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// A page elsewhere must not read this server through a name that it makes point here (DNS rebinding):
/// where reading is free, only names of this machine are answered to.
pub(super) async fn check_host(State(context): State<Context>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if context.access.on_loopback && !host.is_none_or(is_this_machine) {
        let wrong = "this server answers only to names of this machine";
        return Failure::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", wrong).into_response();
    }
    next.run(request).await
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(header::AUTHORIZATION, text.parse().expect("plain"));
        }
        headers
    }

    #[test]
    fn changing_needs_the_token_and_reading_only_from_elsewhere() {
        let access = |ip: [u8; 4]| Access::new(OperatorToken::new("secret"), SocketAddr::from((ip, 80)));
        let (here, elsewhere) = (access([127, 0, 0, 1]), access([0, 0, 0, 0]));
        assert!(here.allows(&Method::GET, &headers(None)).is_ok());
        assert!(elsewhere.allows(&Method::GET, &headers(None)).is_err());
        for access in [here, elsewhere] {
            assert!(access.allows(&Method::POST, &headers(None)).is_err());
            assert!(access.allows(&Method::POST, &headers(Some("Bearer secret"))).is_ok());
            for wrong in ["Bearer secre", "Basic secret", "secret", "Bearer "] {
                assert!(access.allows(&Method::GET, &headers(Some(wrong))).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for own in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1"] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
