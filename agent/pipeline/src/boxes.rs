//! Non-maximum suppression, class by class.

use serin_protocol::pipeline::BoxForm;

/// Most boxes looked at, the best ones: with 1,024 kept that is ten million comparisons, some ten milliseconds.
const MAX_CANDIDATES: usize = 10_000;

/// Which boxes are kept.
pub(crate) struct Suppression {
    pub(crate) form: BoxForm,
    pub(crate) least: f32,
    pub(crate) overlap: f32,
    pub(crate) most: usize,
}

/// A box, its best class and the score of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// `x1 y1 x2 y2`.
    pub(crate) corners: [f32; 4],
    pub(crate) class: i64,
    pub(crate) score: f32,
}

/// The boxes of one row that are kept, the best first; of equal scores the earlier box. What is no number is
/// never kept.
pub(crate) fn suppress(boxes: &[f32], scores: &[f32], classes: usize, how: &Suppression) -> Vec<Candidate> {
    let (boxes, _) = boxes.as_chunks::<4>();
    let rows = boxes.iter().zip(scores.chunks(classes.max(1)));
    let mut candidates: Vec<Candidate> =
        rows.filter_map(|(corners, scores)| candidate(*corners, scores, how)).collect();
    // Stable, so that equal ones stay in order.
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() >= how.most {
            break;
        }
        let duplicate = |other: &Candidate| {
            other.class == candidate.class && overlap(&other.corners, &candidate.corners) > how.overlap
        };
        if !kept.iter().any(duplicate) {
            kept.push(candidate);
        }
    }
    kept
}

fn candidate(written: [f32; 4], scores: &[f32], how: &Suppression) -> Option<Candidate> {
    let mut best: Option<(i64, f32)> = None;
    for (class, score) in (0_i64..).zip(scores.iter().copied()) {
        if score >= how.least && best.is_none_or(|(_, most)| score > most) {
            best = Some((class, score));
        }
    }
    let (class, score) = best?;
    let [a, b, c, d] = written;
    let corners = match how.form {
        BoxForm::Corners => written,
        BoxForm::Center => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
    };
    corners.iter().all(|corner| corner.is_finite()).then_some(Candidate { corners, class, score })
}

/// Intersection over union; 0 where a box has no area.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let [ax1, ay1, ax2, ay2] = *a;
    let [bx1, by1, bx2, by2] = *b;
    let area = |x1: f32, y1: f32, x2: f32, y2: f32| (x2 - x1).max(0.0) * (y2 - y1).max(0.0);
    let shared = area(ax1.max(bx1), ay1.max(by1), ax2.min(bx2), ay2.min(by2));
    let union = area(ax1, ay1, ax2, ay2) + area(bx1, by1, bx2, by2) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOW: Suppression = Suppression { form: BoxForm::Corners, least: 0.3, overlap: 0.5, most: 3 };

    #[test]
    fn of_boxes_that_overlap_the_best_of_each_class_is_kept() {
        let boxes = [
            [0.0, 0.0, 10.0, 10.0],
            [1.0, 0.0, 10.0, 10.0],
            [0.0, 1.0, 10.0, 10.0],
            [20.0, 20.0, 30.0, 30.0],
            [40.0, 40.0, 50.0, 50.0],
        ];
        let scores = [[0.6, 0.1], [0.9, 0.1], [0.1, 0.7], [0.4, 0.0], [0.2, 0.2]];
        let kept = suppress(boxes.as_flattened(), scores.as_flattened(), 2, &HOW);
        let told: Vec<_> = kept.iter().map(|kept| (kept.class, kept.corners)).collect();
        assert_eq!(told, [(0, boxes[1]), (1, boxes[2]), (0, boxes[3])]);
        let fewer = Suppression { most: 1, ..HOW };
        assert_eq!(suppress(boxes.as_flattened(), scores.as_flattened(), 2, &fewer).len(), 1);
    }

    #[test]
    fn a_box_by_its_middle_is_the_same_box() {
        let center = Suppression { form: BoxForm::Center, ..HOW };
        let kept = suppress(&[5.0, 6.0, 10.0, 4.0], &[0.5], 1, &center);
        assert_eq!(kept, [Candidate { corners: [0.0, 4.0, 10.0, 8.0], class: 0, score: 0.5 }]);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_sorted_and_apart(numbers in prop::collection::vec(any::<f32>(), 0..400)) {
            let count = numbers.len() / 6;
            let (boxes, scores) = numbers.split_at(count * 4);
            let kept = suppress(boxes, &scores[..count * 2], 2, &HOW);
            prop_assert!(kept.len() <= HOW.most);
            for (at, one) in kept.iter().enumerate() {
                prop_assert!(one.score >= HOW.least && one.corners.iter().all(|corner| corner.is_finite()));
                for other in &kept[at + 1..] {
                    prop_assert!(other.score <= one.score);
                    prop_assert!(other.class != one.class || overlap(&one.corners, &other.corners) <= HOW.overlap);
                }
            }
        }
    }
}
