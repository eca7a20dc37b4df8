//! Which path stands for what. Pure.

use serin_protocol::ids::ReleaseId;

use super::refusal::Refusal;

/// The model and perhaps the version in the path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) version: Option<String>,
}

impl Asked {
    /// Whether `release`, which answers, is what is asked for. Another is named as what it is: `is_warm` says of which
    /// one a worker is kept for a rollback. Beside `release` an arm may answer, which would have been found.
    pub(super) fn check(
        &self,
        release: &ReleaseId,
        is_warm: impl Fn(&ReleaseId) -> bool,
    ) -> Result<(), Refusal> {
        if self.model != release.model.as_str() {
            let message = format!("there is no such model here, only {}", release.model);
            return Err(Refusal::not_found(message));
        }
        let ReleaseId { model, version } = release;
        let Some(asked) = self.version.as_deref().filter(|asked| *asked != version.as_str()) else {
            return Ok(());
        };
        let other = asked.parse().ok().map(|version| ReleaseId { model: model.clone(), version });
        let message = match other.filter(is_warm) {
            Some(ReleaseId { version: other, .. }) => format!(
                "{model} answers in version {version}; version {other} is only kept ready for a rollback"
            ),
            None => format!(
                "{model} answers in version {version}, not in the one asked for; /v2/models/{model} names all that answer"
            ),
        };
        Err(Refusal::not_found(message))
    }
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Server,
    Live,
    Ready,
    Model(Asked),
    ModelReady(Asked),
    Infer(Asked),
    /// Of all releases that answer, or of those of one model, or of one version.
    Statistics(Option<Asked>),
    Repository,
    /// The truth about what was predicted.
    Labels,
    /// An extension that is not here, by its name.
    Unsupported(&'static str),
    Field(&'p str),
    Unknown,
}

/// Levels of the longest path that is known.
const MAX_LEVELS: usize = 6;

impl<'p> Route<'p> {
    pub(super) fn parse(path: &'p str) -> Self {
        let mut levels = path.split('/');
        // A path starts with a slash; more levels than the longest route has are none of ours.
        if levels.next() != Some("") {
            return Self::Unknown;
        }
        let levels: Vec<&str> = levels.take(MAX_LEVELS + 1).collect();
        match levels.as_slice() {
            ["v2"] => Self::Server,
            ["v2", "health", "live"] => Self::Live,
            ["v2", "health", "ready"] => Self::Ready,
            ["v2", "models", "stats"] => Self::Statistics(None),
            ["v2", "models", model, "versions", version, rest @ ..] => {
                Self::of_model(Asked { model: (*model).into(), version: Some((*version).into()) }, rest)
            }
            ["v2", "models", model, rest @ ..] => {
                Self::of_model(Asked { model: (*model).into(), version: None }, rest)
            }
            ["v2", "repository", "index"] => Self::Repository,
            ["v2", "labels"] => Self::Labels,
            ["v2", "repository", "models", _, "load" | "unload"] => {
                Self::Unsupported("loading and unloading models is")
            }
            ["v2", "systemsharedmemory" | "cudasharedmemory", ..] => Self::Unsupported("shared memory is"),
            ["v2", "trace", ..] => Self::Unsupported("trace settings are"),
            ["v2", "logging"] => Self::Unsupported("log settings are"),
            ["field", "v1", command] => Self::Field(command),
            _ => Self::Unknown,
        }
    }

    fn of_model(asked: Asked, rest: &[&str]) -> Self {
        match rest {
            [] => Self::Model(asked),
            ["ready"] => Self::ModelReady(asked),
            ["infer"] => Self::Infer(asked),
            ["stats"] => Self::Statistics(Some(asked)),
            ["config"] => Self::Unsupported("the configuration of models is"),
            ["trace", "setting"] => Self::Unsupported("trace settings are"),
            ["generate" | "generate_stream"] => Self::Unsupported("generation is"),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;
    use proptest::prelude::*;

    fn asked(version: Option<&str>) -> Asked {
        Asked { model: "m".into(), version: version.map(Into::into) }
    }

    #[test]
    fn paths_are_routes_or_unknown() {
        assert_eq!(Route::parse("/v2"), Route::Server);
        assert_eq!(Route::parse("/v2/models/m/infer"), Route::Infer(asked(None)));
        assert_eq!(Route::parse("/v2/models/m/versions/1"), Route::Model(asked(Some("1"))));
        assert_eq!(Route::parse("/v2/models/m/versions/1/infer"), Route::Infer(asked(Some("1"))));
        assert_eq!(Route::parse("/v2/models/m/versions/1/ready"), Route::ModelReady(asked(Some("1"))));
        assert_eq!(Route::parse("/v2/models/m/versions/1/stats"), Route::Statistics(Some(asked(Some("1")))));
        assert_eq!(Route::parse("/v2/models/stats"), Route::Statistics(None));
        assert_eq!(Route::parse("/v2/labels"), Route::Labels);
        assert_eq!(Route::parse("/field/v1/status"), Route::Field("status"));
        for unknown in [
            "",
            "/",
            "v2",
            "/v2/",
            "/v3",
            "/v2/models",
            "/v2/models/m/infer/",
            "*",
            "//v2",
            "/v2/models/m/versions/1/infer/x",
            "/v2/models/m/versions/1/infer/x/y",
        ] {
            assert_eq!(Route::parse(unknown), Route::Unknown, "{unknown}");
        }
        for unsupported in [
            "/v2/models/m/config",
            "/v2/models/m/versions/1/config",
            "/v2/repository/models/m/load",
            "/v2/systemsharedmemory/status",
            "/v2/cudasharedmemory/region/r/register",
            "/v2/trace/setting",
            "/v2/models/m/trace/setting",
            "/v2/logging",
        ] {
            assert!(matches!(Route::parse(unsupported), Route::Unsupported(_)), "{unsupported}");
        }
    }

    #[test]
    fn only_the_active_version_is_what_is_asked_for() {
        let active: ReleaseId = "m@2".parse().expect("id");
        let warm: ReleaseId = "m@1".parse().expect("id");
        let check = |asked: Asked| asked.check(&active, |other| *other == warm);
        assert!(check(asked(None)).is_ok() && check(asked(Some("2"))).is_ok());
        for other in ["1", "3", "", "%", "no version at all"] {
            let refusal = check(asked(Some(other))).expect_err(other);
            assert_eq!(refusal.status(), StatusCode::NOT_FOUND);
            let said = format!("{refusal:?}");
            assert!(
                said.contains("answers in version 2") && said.contains("rollback") == (other == "1"),
                "{said}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_path_is_a_route(path in ".{0,60}") {
            let _ = Route::parse(&path);
        }
    }
}
