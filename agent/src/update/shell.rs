//! How a machine is driven: events in, effects carried out in order, with all that follows from them. The
//! agent and its simulation are driven by the same few lines.

use std::collections::VecDeque;

use serin_protocol::message::Reason;

use super::effect::{Effect, Event, Now};
use super::machine::Machine;

/// What carries effects out: the agent on a device, or its simulation.
pub trait Shell {
    /// Both clocks at this moment.
    fn now(&self) -> Now;

    /// The machine to be driven.
    fn machine(&mut self) -> &mut Machine;

    /// Carries out one effect. Returns an event that follows at once.
    ///
    /// # Errors
    /// The reason why the boot record could not be written: the effects after it are dropped.
    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, Reason>;
}

/// Hands `event` to the machine and has carried out what it wants, with all that follows from it.
pub fn feed(shell: &mut impl Shell, event: Event) {
    let mut events = VecDeque::from([event]);
    while let Some(event) = events.pop_front() {
        let now = shell.now();
        let effects = shell.machine().handle(now, event);
        for effect in effects {
            match shell.carry_out(effect) {
                Ok(None) => {}
                Ok(Some(follows)) => events.push_back(follows),
                Err(reason) => {
                    tracing::error!(%reason, "the boot record could not be written");
                    events.push_front(Event::PersistFailed(reason));
                    break;
                }
            }
        }
    }
}
