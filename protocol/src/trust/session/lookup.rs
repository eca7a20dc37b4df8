//! The search for a target through delegations: pre-order, depth first, in the order in which each role
//! lists them (specification, section 5.6.7).

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Session, Step};
use crate::trust::error::TrustError;
use crate::trust::metadata::{Role, TargetFile};

/// A search under way.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) path: String,
    /// Roles to ask with the role that delegates to them, the next one last.
    waiting: Vec<(Role, Role)>,
    visited: BTreeSet<Role>,
    /// Who speaks for the path, or why nobody does; none while the search goes on.
    pub(super) answer: Option<Result<(Role, TargetFile), TrustError>>,
}

impl Lookup {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            waiting: vec![(Role::Targets, Role::Root)],
            visited: BTreeSet::new(),
            answer: None,
        }
    }
}

impl Session {
    /// Asks one role after the other until one has the target or its metadata must be fetched first.
    pub(super) fn continue_lookup(&mut self) {
        if let Some(mut lookup) = self.lookup.take() {
            if lookup.answer.is_none() {
                lookup.answer = self.advance(&mut lookup);
            }
            self.lookup = Some(lookup);
        }
    }

    fn advance(&mut self, lookup: &mut Lookup) -> Option<Result<(Role, TargetFile), TrustError>> {
        loop {
            let Some((role, delegator)) = lookup.waiting.last().cloned() else {
                return Some(Err(TrustError::UnknownTarget { path: lookup.path.clone() }));
            };
            if lookup.visited.contains(&role) {
                lookup.waiting.pop();
                continue;
            }
            if lookup.visited.len() > self.limits.delegations as usize {
                let (limit, path) = (self.limits.delegations, lookup.path.clone());
                return Some(Err(TrustError::EndlessDelegations { limit, path }));
            }
            let known = self.targets.get(&role).filter(|(by, _)| *by == delegator);
            let Some((_, targets)) = known else {
                self.step = Step::LocalTargets { role, delegator };
                return None;
            };
            lookup.waiting.pop();
            if let Some(file) = targets.targets.get(&lookup.path) {
                return Some(Ok((role, file.clone())));
            }
            let mut children = Vec::new();
            let covering =
                targets.delegations.iter().flat_map(|delegations| delegations.covering(&lookup.path));
            for (child, terminating) in covering {
                children.push((Role::Delegated(child), role.clone()));
                if terminating {
                    lookup.waiting.clear();
                    break;
                }
            }
            lookup.waiting.extend(children.into_iter().rev());
            lookup.visited.insert(role);
        }
    }
}
