//! A refresh from elsewhere than the broker, on what the client keeps.

use super::{Client, Effects};
use crate::trust::store::TrustStore;
use crate::update::effect::Now;

impl Client {
    /// Lends what is kept to a refresh from elsewhere. One that is under way here is begun anew afterwards, so
    /// that the two do not mix.
    pub fn lend<T>(&mut self, now: Now, refresh: impl FnOnce(&mut TrustStore) -> T) -> (T, Effects) {
        let mut effects = Effects::new();
        self.let_go(&mut effects);
        let root = self.store.root().to_vec();
        let done = refresh(&mut self.store);
        if self.store.root() != root {
            // A key that signed assignments may have been taken back.
            self.orders = None;
            effects.push(self.root_trusted());
        }
        if self.connected {
            self.ask_anew(now, &mut effects);
        }
        (done, effects)
    }
}
