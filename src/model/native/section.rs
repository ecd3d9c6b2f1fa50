//! The sections of a pass: layers that the same runs pass through.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model::Run;

/// Consecutive layers, and the runs that pass through all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) layers: Range<usize>,
    /// Indices of the runs, in their order.
    pub(super) runs: Vec<usize>,
}

/// The sections that `runs` make of a model of `layers` layers, from the first layer on. Layers that nothing passes through are in
/// none.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a run through layers that are not there, or that asks for rows of logits
/// before the last.
pub(super) fn sections(runs: &[Run], layers: usize) -> Result<Vec<Section>> {
    let mut bounds = Vec::with_capacity(2 * runs.len());
    for run in runs {
        let depth = run.depth(layers);
        if depth.is_empty() || depth.end > layers || (depth.end < layers && run.logit_rows() > 0) {
            return Err(Error::internal(format!(
                "A run passes through layers {depth:?} of {layers}, for {} rows of logits.",
                run.logit_rows()
            )));
        }
        bounds.extend([depth.start, depth.end]);
    }
    bounds.sort_unstable();
    bounds.dedup();
    let sections = bounds.windows(2).map(|bound| {
        let through = |run: &Run| run.depth(layers).start <= bound[0] && bound[1] <= run.depth(layers).end;
        let runs = runs.iter().enumerate().filter(|(_, run)| through(run));
        Section { layers: bound[0]..bound[1], runs: runs.map(|(run, _)| run).collect() }
    });
    Ok(sections.filter(|section| !section.runs.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Factors;

    fn run(layers: Option<Range<usize>>, logits_from: usize) -> Run {
        Run { slot: 0, factors: Factors::Short, start: 0, tokens: vec![1, 2], logits_from, layers }
    }

    fn found(runs: &[Run]) -> Vec<(Range<usize>, Vec<usize>)> {
        sections(runs, 8).unwrap().into_iter().map(|section| (section.layers, section.runs)).collect()
    }

    #[test]
    fn whole_runs_make_one_section() {
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[run(None, 0), run(Some(0..8), 1)]), [(0..8, vec![0, 1])]);
    }

    #[test]
    fn a_section_ends_where_a_run_does() {
        let runs = [run(Some(2..4), 2), run(None, 0), run(Some(3..8), 1)];
        let expected = [(0..2, vec![1]), (2..3, vec![0, 1]), (3..4, vec![0, 1, 2]), (4..8, vec![1, 2])];
        assert_eq!(found(&runs), expected);
    }

    #[test]
    fn layers_that_nothing_passes_through_are_left_out() {
        assert_eq!(found(&[run(Some(0..2), 2), run(Some(5..6), 2)]), [(0..2, vec![0]), (5..6, vec![1])]);
    }

    #[test]
    fn layers_that_are_not_there_are_refused() {
        for (layers, logits_from) in [(0..9, 2), (3..3, 2), (0..4, 1)] {
            assert!(sections(&[run(Some(layers), logits_from)], 8).is_err());
        }
    }
}
