//! Holding back for as long as the server asks: nothing is transferred, said again or reconnected. What runs,
//! rollbacks and the field engineer's orders are not touched, and orders of the fleet are still heard.

use bytes::Bytes;
use serin_protocol::envelope::open;
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{Detail, RefusedKind};
use serin_protocol::pause::Pause;

use super::Supervisor;
use crate::link::mqtt::Session;
use crate::link::outbox::Input;

impl Supervisor {
    pub(super) fn on_pause(&mut self, payload: &Bytes) {
        // The server clears a pause by an empty retained message; what is in force ends by itself.
        if payload.is_empty() {
            self.trust.pause = None;
            return;
        }
        let now = self.now();
        let Some(keys) = self.trust.client.fleet_keys(now.wall) else {
            self.trust.pause = Some(payload.clone());
            return;
        };
        let taken = open::<Pause, _>(payload, keys).map_err(|error| error.to_string()).and_then(|pause| {
            let taken = self.pausing.take(now, &self.config.device, &self.config.fleet, &pause);
            taken.map_err(|refusal| refusal.to_string())
        });
        match taken {
            Ok(true) => self.pause_changed(),
            Ok(false) => {}
            Err(why) => self.refuse(RefusedKind::Unknown, &Detail::new(&why)),
        }
    }

    /// Takes up again what was held back, once the pause is over.
    pub(super) fn tick_pause(&mut self) {
        if self.pausing.end(self.now().elapsed) {
            self.pause_changed();
        }
    }

    fn pause_changed(&mut self) {
        let now = self.now().elapsed;
        let until = self.pausing.until(now);
        self.hold_link.send_replace(until.map(|until| self.clock.instant(until)));
        if until.is_some() {
            tracing::info!("the server asks to hold back");
            if let Some(download) = &mut self.download {
                download.let_go();
            }
            self.request_chunks();
            if let Some(download) = &mut self.download {
                let notices = download.disconnected(now);
                self.on_notices(notices);
            }
            self.outbox(Input::Disconnected);
            return;
        }
        tracing::info!("the pause is over");
        if self.session.is_none() {
            return;
        }
        if let Some(download) = &mut self.download {
            let notices = download.connected(now);
            self.on_notices(notices);
        }
        self.outbox(Input::Connected);
    }

    /// The session, for what a pause holds back.
    pub(super) fn open_session(&self) -> Option<Session> {
        self.session.clone().filter(|_| self.pausing.until(self.now().elapsed).is_none())
    }

    /// Until when the server asked to hold back, for people.
    pub(super) fn paused_until(&self) -> Option<UnixMillis> {
        let now = self.now();
        let until = self.pausing.until(now.elapsed)?;
        Some(UnixMillis(now.wall.0.saturating_add(until.0.saturating_sub(now.elapsed.0))))
    }
}
