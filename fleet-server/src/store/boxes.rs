//! Memory for reports, used again. A report has 22 KB; when reports are merged, dozens of them come and go at once, and
//! giving their pages back to the kernel and taking them again would take longer than merging.

use std::cell::RefCell;

use serin_protocol::message::Report;

use super::StoreError;
use super::values::unreadable;

/// Boxes that wait at most: as many as one device's reports that are merged at once, 1.4 MB.
const MAX_WAITING: usize = 64;

/// Boxes whose reports are over.
#[derive(Default)]
pub(super) struct Boxes(RefCell<Vec<Box<Report>>>);

impl Boxes {
    /// Reads a report of `device`, as on the wire.
    pub(super) fn read(&self, device: &str, bytes: &[u8]) -> Result<Box<Report>, StoreError> {
        let waiting = self.0.borrow_mut().pop();
        match Report::read(bytes, waiting) {
            Ok((report, _)) => Ok(report),
            Err(error) => Err(unreadable("report of", device, &error.to_string())),
        }
    }

    /// Takes back the box of a report that is over.
    pub(super) fn take_back(&self, report: Box<Report>) {
        let mut waiting = self.0.borrow_mut();
        if waiting.len() < MAX_WAITING {
            waiting.push(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::report;
    use crate::store::values::wire;

    #[test]
    fn a_box_that_was_used_before_holds_what_is_read_and_nothing_else() {
        let boxes = Boxes::default();
        for sequence in 0..3 {
            let report = report("m@1", "d", 70 + sequence, sequence);
            let read = boxes.read("d", &wire("report", &report).expect("writes")).expect("reads");
            assert_eq!(*read, report);
            boxes.take_back(read);
        }
        assert!(boxes.read("d", b"nothing").is_err());
        assert!(boxes.0.borrow().is_empty(), "what was only half read is not used again");
    }

    #[test]
    fn there_is_an_end_to_how_many_wait() {
        let boxes = Boxes::default();
        (0..100).for_each(|sequence| boxes.take_back(Box::new(report("m@1", "d", 70, sequence))));
        assert_eq!(boxes.0.borrow().len(), MAX_WAITING);
    }
}
