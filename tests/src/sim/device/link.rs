//! What comes over the link, and what is asked for.

use serin_agent::supervisor::download::{Download, Notice, Request};
use serin_agent::trust::client;
use serin_agent::update::admission::{Means, Swap};
use serin_agent::update::effect::Event;
use serin_protocol::assignment::{Assignment, Order, ReleaseRef};
use serin_protocol::envelope::open;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::release::Release;
use serin_protocol::topic::{FileName, Topic};

use super::Device;

impl Device {
    pub(super) fn attend(&mut self, effect: client::Effect) {
        match effect {
            client::Effect::Ask(file) => self.ask(&file),
            client::Effect::RootTrusted { floor, recovered } => {
                self.inbox.push_back(Event::RootTrusted { floor, recovered });
            }
            client::Effect::Refreshed { .. } => self.hear_assignment(),
            client::Effect::Listed(target) => self.fetch_statement(&target),
            client::Effect::Unlisted(target, detail) => {
                let outcome = Err(Reason::Untrusted(detail));
                self.inbox.push_back(Event::Statement { statement: target.statement, outcome });
            }
            client::Effect::Leave(_) | client::Effect::Refuse(_) => {}
        }
    }

    pub(super) fn ask(&mut self, file: &FileName) {
        if !self.connected {
            return;
        }
        if let Some(bytes) = self.broker.get(&Topic::Metadata(file.clone())) {
            let effects = self.trust.message(self.now, file, &bytes.to_vec().into());
            self.trust_effects.extend(effects);
        }
    }

    pub(super) fn hear_assignment(&mut self) {
        let Some(sealed) = self.broker.assignment().filter(|_| self.connected) else { return };
        let Some(keys) = self.trust.fleet_keys(self.now.wall) else { return };
        if let Ok(assignment) = open::<Assignment, _>(sealed, keys) {
            let below = match &assignment.order {
                Order::RollBack { to, .. } => self.trust.below_floor(&to.id),
                Order::Run { .. } | Order::Try { .. } | Order::Stay => None,
            };
            self.inbox.push_back(match below {
                Some(detail) => Event::AssignedBelowFloor(Box::new(assignment), detail),
                None => Event::Assigned(assignment),
            });
        }
    }

    pub(super) fn fetch_statement(&mut self, target: &ReleaseRef) {
        let Some(bytes) = self.broker.get(&Topic::Metadata(FileName::of_release(&target.statement))) else {
            return;
        };
        let outcome = match Release::parse(bytes) {
            Ok(release) if Digest::of(bytes) == target.statement => {
                Ok((Box::new(release), self.means(target.statement)))
            }
            Ok(_) => Err(Reason::BadStatement(Detail::new("its digest is not the assigned one"))),
            Err(error) => Err(Reason::BadStatement(Detail::new(&error.to_string()))),
        };
        self.inbox.push_back(Event::Statement { statement: target.statement, outcome });
    }

    pub(super) fn means(&self, statement: Digest) -> Means {
        let active = self.machine.record().active.as_ref();
        Means {
            target: "linux-x86_64".parse().expect("a name"),
            target_lacks: Vec::new(),
            hardware: serin_protocol::target::Hardware {
                architecture: std::env::consts::ARCH,
                memory: None,
                cpu_features: None,
                kernel: None,
                kernel_features: Vec::new(),
            },
            decoders: serin_protocol::release::Decoders::new(),
            memory_budget: ByteCount::from_mib(512),
            memory_active: active.map_or(ByteCount(0), |slot| slot.memory),
            swap: Swap::Cold,
            free_space: self.releases.free_space().unwrap_or_default(),
            installed: matches!(self.releases.open_release(statement), Ok(Some(_))),
        }
    }

    pub(super) fn wanted_chunk(&mut self) -> Option<(Digest, u32)> {
        let mut wanted = None;
        let download = self.download.as_mut()?;
        download.ask(|request, topic| match (request, topic) {
            (Request::Subscribe, Topic::Chunk { object, index }) if wanted.is_none() => {
                wanted = Some((*object, *index));
                true
            }
            (Request::Subscribe, _) => false,
            (Request::Unsubscribe, _) => true,
        });
        wanted
    }

    pub(super) fn deliver(&mut self, object: Digest, index: u32) {
        let Some(bytes) = self.broker.get(&Topic::Chunk { object, index }).map(<[u8]>::to_vec) else {
            return;
        };
        if let Some(download) = &mut self.download {
            let notices = download.chunk(self.now.elapsed, object, index, &bytes);
            self.take(notices);
        }
    }

    pub(super) fn take(&mut self, notices: Vec<Notice>) {
        let Some(statement) = self.download.as_ref().map(Download::statement) else { return };
        for notice in notices {
            match notice {
                Notice::Started { .. } => self.inbox.push_back(Event::FetchStarted(statement)),
                Notice::Report(kind) => self.said.push(kind),
                Notice::Done(bundle) => {
                    self.download = None;
                    self.fetched = Some((statement, bundle));
                    self.inbox.push_back(Event::Fetched(statement, Ok(())));
                }
                Notice::Failed(reason) => {
                    self.download = None;
                    self.inbox.push_back(Event::Fetched(statement, Err(reason)));
                }
            }
        }
    }
}
